//! What Prometheus sees of this process.

use std::sync::LazyLock;
use std::time::Duration;

use axum::http::Method;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// What is counted: of the process, as the process is what is scraped.
static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// The bounds of the buckets, in seconds.
const BUCKETS: [f64; 11] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 20.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: String,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Message {
    queue: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Queue {
    queue: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Repair {
    what: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Login {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    backend: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Backend {
    backend: String,
}

struct Metrics {
    registry: Registry,
    connections: Gauge,
    connections_refused: Family<Reason, Counter>,
    accept_failures: Counter,
    logins: Family<Login, Counter>,
    requests: Family<Request, Counter>,
    request_seconds: Family<Route, Histogram>,
    messages: Family<Message, Counter>,
    message_seconds: Family<Queue, Histogram>,
    repairs: Family<Repair, Counter>,
    passes: Family<Call, Counter>,
    unknown_instances: Family<Backend, Gauge>,
    held: Family<Backend, Gauge>,
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Metrics {
    fn new() -> Self {
        let mut registry = Registry::with_prefix("snf_central");
        let requests = Family::default();
        registry.register(
            "requests",
            "Requests that were answered, by method, route and status",
            requests.clone(),
        );
        let request_seconds = Family::new_with_constructor(histogram as fn() -> Histogram);
        registry.register_with_unit(
            "request_duration",
            "From a request's head to its answer, by route",
            Unit::Seconds,
            request_seconds.clone(),
        );
        let messages = Family::default();
        registry.register(
            "messages",
            "Messages that were taken from a queue, by what became of them",
            messages.clone(),
        );
        let message_seconds = Family::new_with_constructor(histogram as fn() -> Histogram);
        registry.register_with_unit(
            "message_duration",
            "One try to apply a message, by queue",
            Unit::Seconds,
            message_seconds.clone(),
        );
        let repairs = Family::default();
        registry.register(
            "repairs",
            "Differences that the reconciler put right, by kind",
            repairs.clone(),
        );
        let passes = Family::default();
        registry.register(
            "reconciler_passes",
            "Comparisons of a backend with the database, by how they ended",
            passes.clone(),
        );
        let connections = Gauge::default();
        registry.register(
            "connections",
            "Connections to the API that are open, websockets too",
            connections.clone(),
        );
        let connections_refused = Family::default();
        registry.register(
            "connections_refused",
            "Connections that were refused, or ended while idle, since there were too many",
            connections_refused.clone(),
        );
        let accept_failures = Counter::default();
        registry.register(
            "accept_failures",
            "Failures to accept a connection, as for want of descriptors",
            accept_failures.clone(),
        );
        let logins = Family::default();
        registry.register(
            "logins",
            "Passwords that were tried, by outcome: right, wrong, limited, busy",
            logins.clone(),
        );
        let unknown_instances = Family::default();
        registry.register(
            "unknown_instances",
            "Instances of the prefix that the database does not know, at the last pass",
            unknown_instances.clone(),
        );
        let held = Family::default();
        registry.register(
            "held",
            "Whether nothing is repaired or asked for in a backend until an operator accepts it: \
             the database is older than its clusters, or another one uses the cluster (0 or 1)",
            held.clone(),
        );
        Self {
            registry,
            connections,
            connections_refused,
            accept_failures,
            logins,
            requests,
            request_seconds,
            messages,
            message_seconds,
            repairs,
            passes,
            unknown_instances,
            held,
        }
    }
}

/// Shows how many connections are open.
pub fn connections(count: usize) {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    METRICS.connections.set(count);
}

/// Counts a connection that there was no room for, by the limit that it would have exceeded; or
/// an idle one that made room.
pub fn connection_refused(reason: &'static str) {
    METRICS
        .connections_refused
        .get_or_create(&Reason { reason })
        .inc();
}

/// Counts a failure to accept a connection.
pub fn accept_failed() {
    METRICS.accept_failures.inc();
}

/// Counts a password that was tried.
pub fn login(outcome: &'static str) {
    METRICS.logins.get_or_create(&Login { outcome }).inc();
}

/// Counts an answered request. `route` is the pattern that its path matched.
pub fn request(method: &Method, route: Option<&str>, status: u16, took: Duration) {
    // Whatever a client invents is one label.
    let method = match *method {
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::DELETE => {
            method.as_str().to_owned()
        }
        _ => "other".to_owned(),
    };
    let route = route.unwrap_or("none").to_owned();
    METRICS
        .request_seconds
        .get_or_create(&Route {
            route: route.clone(),
        })
        .observe(took.as_secs_f64());
    let labels = Request {
        method,
        route,
        status,
    };
    METRICS.requests.get_or_create(&labels).inc();
}

/// Counts a try to apply a message.
pub fn message(queue: &str, outcome: &'static str, took: Duration) {
    let queue = queue.to_owned();
    METRICS
        .message_seconds
        .get_or_create(&Queue {
            queue: queue.clone(),
        })
        .observe(took.as_secs_f64());
    METRICS
        .messages
        .get_or_create(&Message { queue, outcome })
        .inc();
}

/// Counts a difference that was put right.
pub fn repair(what: impl ToString) {
    let what = what.to_string();
    METRICS.repairs.get_or_create(&Repair { what }).inc();
}

/// Counts a pass of the reconciler.
pub fn pass(backend: &str, well: bool) {
    let labels = Call {
        backend: backend.to_owned(),
        outcome: if well { "done" } else { "trouble" },
    };
    METRICS.passes.get_or_create(&labels).inc();
}

/// Notes what a look at a backend has shown: how many instances nobody here knows, and whether
/// the backend is held.
pub fn cluster(backend: &str, unknown: usize, held: bool) {
    let labels = Backend {
        backend: backend.to_owned(),
    };
    let unknown = i64::try_from(unknown).unwrap_or(i64::MAX);
    METRICS
        .unknown_instances
        .get_or_create(&labels)
        .set(unknown);
    METRICS.held.get_or_create(&labels).set(i64::from(held));
}

/// All of it, in the OpenMetrics text format.
pub fn render() -> String {
    let mut text = String::new();
    match encode(&mut text, &METRICS.registry) {
        Ok(()) => text,
        // Writing to a string does not fail; if it does, half a text is worse than none.
        Err(error) => format!("# {error}\n"),
    }
}
