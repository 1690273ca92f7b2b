//! How fast central's API is: `make bench ONLY="--bench api"`, as root. Words: `speed`, `updates`,
//! `memory`, `create`.
//!
//! The peer of lists and of one server is a bare handler that asks the same database once for the
//! same rows; wrk asks both, in turns.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    missing_docs
)] // a benchmark

mod cloud;
mod peer;
#[allow(dead_code)] // what the tests of central ask of it, and we do not
#[path = "../../../central/tests/support/rapi.rs"]
mod rapi;
#[path = "../shared/report.rs"]
mod report;
#[path = "../shared/served.rs"]
mod served;
#[path = "../shared/servers.rs"]
mod servers;
#[allow(
    dead_code, // percentiles, which wrk makes for us
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
#[path = "../shared/statistics.rs"]
mod statistics;

use std::collections::BTreeSet;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cloud::{API, Cloud, PEER};
use harness::netns::Netns;
use harness::process;
use rapi::FakeRapi;
use report::Report;
use sea_orm::{ConnectOptions, ConnectionTrait, Database};
use serde_json::{Value, json};
use served::Served;
use servers::{Base, TOKEN};

/// Rounds, in each of which wrk asks ours and the peer for so long.
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(4);
/// Connections that ask at the same time.
const CONNECTIONS: usize = 8;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, listen, url, project] = words.as_slice()
        && word == "peer"
    {
        peer::serve(listen, url, project);
        return ExitCode::SUCCESS;
    }
    // `cargo test --benches` and the like only want to know that it builds
    if !words.iter().any(|word| word == "--bench") {
        return ExitCode::SUCCESS;
    }
    rustls::crypto::ring::default_provider()
        .install_default()
        .expect("no other one yet");
    let mut report = Report::default();
    let parts: Vec<&String> = words
        .iter()
        .filter(|word| !word.starts_with("--"))
        .collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|word| *word == part);
    for postgres in [false, true] {
        if wanted("speed") {
            speed(&mut report, postgres);
        }
        if wanted("updates") {
            updates(&mut report, postgres);
        }
        if wanted("memory") {
            memory(&mut report, postgres);
        }
        if wanted("create") {
            create(&mut report, postgres);
        }
    }
    report.exit()
}

/// Runs something in a network namespace of its own, with a RAPI.
fn isolated<T>(work: impl FnOnce(&tokio::runtime::Runtime, &FakeRapi) -> T) -> T {
    let netns = Netns::new().unwrap();
    netns.enter().unwrap();
    // its threads begin in the namespace
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let rapi = runtime.block_on(FakeRapi::start());
    work(&runtime, &rapi)
}

fn name(postgres: bool) -> &'static str {
    if postgres { "PostgreSQL" } else { "SQLite" }
}

/// What wrk says of a run.
struct Run {
    /// Answers a second.
    rate: f64,
    /// The latency that 99 of 100 did not exceed, in ms.
    p99: f64,
    answers: f64,
}

fn wrk(address: &str, path: &str, connections: usize, time: Duration) -> Run {
    let mut command = Command::new("wrk");
    command
        .args(["--threads", "1", "--latency", "--timeout", "30s"])
        .args(["--connections", &connections.to_string()])
        .args(["--duration", &format!("{}s", time.as_secs())])
        .args(["--header", &format!("X-Auth-Token: {TOKEN}")])
        .arg(format!("http://{address}{path}"));
    let said = process::check(&mut command, time + Duration::from_secs(60)).unwrap();
    assert!(!said.contains("Non-2xx"), "{said}");
    let field = |label: &str, at: usize| {
        let line = said.lines().find(|line| line.contains(label));
        let line = line.unwrap_or_else(|| panic!("no {label} in {said}"));
        line.split_whitespace().nth(at).unwrap().to_owned()
    };
    Run {
        rate: field("Requests/sec:", 1).parse().unwrap(),
        p99: milliseconds(&field("99%", 1)),
        answers: field("requests in", 0).parse().unwrap(),
    }
}

/// A time as wrk writes it: `870.00us`, `12.34ms`, `1.02s`.
fn milliseconds(text: &str) -> f64 {
    let (number, factor) = if let Some(number) = text.strip_suffix("us") {
        (number, 1e-3)
    } else if let Some(number) = text.strip_suffix("ms") {
        (number, 1.0)
    } else {
        (text.strip_suffix('s').unwrap(), 1e3)
    };
    number.parse::<f64>().unwrap() * factor
}

/// What a server answered in some rounds.
#[derive(Default)]
struct Measured {
    rates: Vec<f64>,
    p99: Vec<f64>,
    cpu: f64,
    answers: f64,
}

impl Measured {
    fn round(&mut self, served: &Served, address: &str, path: &str) {
        let before = served.cpu();
        let run = wrk(address, path, CONNECTIONS, ROUND);
        self.cpu += served.cpu() - before;
        self.answers += run.answers;
        self.rates.push(run.rate);
        self.p99.push(run.p99);
    }

    fn rate(&self) -> f64 {
        statistics::median(&self.rates).unwrap()
    }

    /// CPU of an answer, in µs.
    fn cost(&self) -> f64 {
        self.cpu * 1e6 / self.answers
    }
}

fn speed(report: &mut Report, postgres: bool) {
    isolated(|_, rapi| {
        let cloud = Cloud::new(postgres, &rapi.url(), 1000);
        let central = cloud.serve();
        let peer = cloud.serve_peer();
        for (what, ours, theirs) in [
            (
                "list of 1000 servers in detail",
                "/compute/v2.0/servers/detail",
                "/list",
            ),
            ("one server", "/compute/v2.0/servers/500", "/get/500"),
        ] {
            // what is done once is over by then
            wrk(API, ours, CONNECTIONS, Duration::from_secs(1));
            wrk(PEER, theirs, CONNECTIONS, Duration::from_secs(1));
            let (mut our, mut their) = (Measured::default(), Measured::default());
            for _ in 0..ROUNDS {
                our.round(&central, API, ours);
                their.round(&peer, PEER, theirs);
            }
            let what = format!("{what}, {}", name(postgres));
            report.figure(&what, our.rate(), "/s");
            report.figure("  p99", statistics::median(&our.p99).unwrap(), "ms");
            report.figure("  CPU of an answer", our.cost(), "µs");
            report.figure("  the bare handler", their.rate(), "/s");
            report.figure("  CPU of its answer", their.cost(), "µs");
            let ratio = our.rate() / their.rate();
            report.target("  ratio", ratio, "", ratio >= 0.5, ">= 0.5");
        }
    });
}

/// As often a second a server's state changes.
const UPDATES: u64 = 50;

fn updates(report: &mut Report, postgres: bool) {
    isolated(|runtime, rapi| {
        let cloud = Cloud::new(postgres, &rapi.url(), 1000);
        let _central = cloud.serve();
        let path = "/compute/v2.0/servers/500";
        wrk(API, path, CONNECTIONS, Duration::from_secs(1));
        let time = Duration::from_secs(10);
        let quiet = wrk(API, path, CONNECTIONS, time);
        let stop = Arc::new(AtomicBool::new(false));
        let url = match &cloud.base {
            Base::Postgres(server) => server.uri(),
            Base::Sqlite(file) => format!("sqlite://{}?mode=rw", file.display()),
        };
        let stream = runtime.spawn(stream_of_updates(url, Arc::clone(&stop)));
        let busy = wrk(API, path, CONNECTIONS, time);
        stop.store(true, Ordering::Relaxed);
        let done = runtime.block_on(stream).unwrap();
        let base = name(postgres);
        report.figure(
            &format!("one server, {base}, p99, nothing else"),
            quiet.p99,
            "ms",
        );
        report.figure(
            &format!("one server, {base}, p99, {UPDATES} updates/s"),
            busy.p99,
            "ms",
        );
        report.figure("  updates made", done, "/s");
    });
}

/// Writes what the dispatcher writes of a job that has ended; how many a second.
async fn stream_of_updates(url: String, stop: Arc<AtomicBool>) -> f64 {
    let mut options = ConnectOptions::new(url);
    options.max_connections(1).sqlx_logging(false);
    let database = Database::connect(options).await.unwrap();
    let begun = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(1000 / UPDATES));
    let mut count = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        count += 1;
        let id = count % 1000 + 1;
        let state = if count.is_multiple_of(2) {
            "STARTED"
        } else {
            "STOPPED"
        };
        let statement = format!(
            "UPDATE servers SET state = '{state}', job_id = {count}, job_rank = 4, \
             state_job = {count}, state_rank = 4, updated_at = {count} WHERE id = {id}"
        );
        database.execute_unprepared(&statement).await.unwrap();
    }
    f64::from(count) / begun.elapsed().as_secs_f64()
}

fn memory(report: &mut Report, postgres: bool) {
    isolated(|_, rapi| {
        let cloud = Cloud::new(postgres, &rapi.url(), 10_000);
        let central = cloud.serve();
        // what it does at its start is over by then
        std::thread::sleep(Duration::from_secs(5));
        let idle = central.memory("VmRSS:");
        for marker in (0..10_000).step_by(1000) {
            let page = format!("/compute/v2.0/servers/detail?marker={marker}");
            wrk(API, &page, 2, Duration::from_secs(1));
        }
        wrk(API, "/compute/v2.0/servers/9999", CONNECTIONS, ROUND);
        let resident = central.memory("VmRSS:");
        report.target(
            &format!("memory with 10 000 servers, {}", name(postgres)),
            resident,
            "MB",
            resident <= 80.0,
            "<= 80 MB",
        );
        report.figure("  before any request", idle, "MB");
        report.figure("  at its highest", central.memory("VmHWM:"), "MB");
    });
}

const MANY: usize = 500;

fn create(report: &mut Report, postgres: bool) {
    isolated(|runtime, rapi| {
        let cloud = Cloud::new(postgres, &rapi.url(), 1);
        // room for them all, and a quota that they fill together with the one that is there
        cloud.sql(&format!(
            "UPDATE flavors SET ram = 1, disk = 0, vcpus = 0;\n\
             INSERT INTO quotas (project_id, resource, most) \
             SELECT id, 'servers', {} FROM projects;\n",
            MANY + 1
        ));
        let central = cloud.serve();
        let (took, again) = runtime.block_on(create_all());
        let calls = rapi.submissions();
        let names: BTreeSet<String> = calls
            .iter()
            .filter(|call| call.path == "/2/instances")
            .map(|call| call.body["name"].as_str().unwrap().to_owned())
            .collect();
        let made = calls
            .iter()
            .filter(|call| call.path == "/2/instances")
            .count();
        let base = name(postgres);
        report.figure(
            &format!("{MANY} servers asked for at once, {base}"),
            MANY as f64 / took.as_secs_f64(),
            "/s",
        );
        report.figure("  asked again after a 503", again as f64, "");
        let cpu = central.cpu() * 1e3 / MANY as f64;
        report.figure("  CPU of one", cpu, "ms");
        let good = names.len() == MANY && made == MANY;
        report.target("  placed, each once", made as f64, "", good, "500");
        let rows: usize = cloud
            .sql("SELECT COUNT(*) FROM servers WHERE deleted_at IS NULL")
            .parse()
            .unwrap();
        let good = rows == MANY + 1;
        report.target("  in the quota of 501", rows as f64, "", good, "501");
    });
}

/// Asks for all of them; who is told to come later comes later. How long, and how often again.
async fn create_all() -> (Duration, usize) {
    let http = reqwest::Client::new();
    let base = format!("http://{API}");
    let get = async |path: &str, list: &str| {
        let request = http
            .get(format!("{base}{path}"))
            .header("X-Auth-Token", TOKEN);
        let body: Value = request.send().await.unwrap().json().await.unwrap();
        body[list][0]["id"].clone()
    };
    let order = json!({"server": {
        "name": "one of many",
        "flavorRef": get("/compute/v2.0/flavors", "flavors").await,
        "imageRef": get("/compute/v2.0/images", "images").await,
        "networks": [],
    }});
    let ask = async || {
        let request = http
            .post(format!("{base}/compute/v2.0/servers"))
            .header("X-Auth-Token", TOKEN)
            .json(&order);
        request.send().await.unwrap().status().as_u16()
    };
    let one = async || {
        let mut again = 0;
        loop {
            match ask().await {
                202 => break again,
                503 => {
                    again += 1;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                status => panic!("{status}"),
            }
        }
    };
    let begun = Instant::now();
    let again: Vec<usize> = futures_util::future::join_all((0..MANY).map(|_| one())).await;
    let took = begun.elapsed();
    assert_eq!(ask().await, 413, "one more than the quota has");
    (took, again.iter().sum())
}
