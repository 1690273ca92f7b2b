//! What Prometheus sees.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use agents::message::RoutingKey;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// What a message is about: the last word of its routing key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Topic {
    topic: String,
}

/// All that is counted and measured. Clones share the figures.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    confirmed: Family<Topic, Counter>,
    lag: Histogram,
    /// Messages that no queue wanted, and that are kept until one does.
    pub parked: Counter,
    /// Messages that were dropped because what cannot be delivered has its bounds.
    pub parked_dropped: Counter,
    /// Times that a queue or the broker refused a message.
    pub refused: Counter,
    /// Messages that the broker refuses for good, set aside.
    pub dead_letters: Counter,
    /// Messages that no queue wants, on the disk.
    pub parked_messages: Gauge,
    /// Messages that a queue or the broker refuses, on the disk.
    pub refused_messages: Gauge,
    /// Messages that are set aside, on the disk.
    pub dead_letter_messages: Gauge,
    /// Messages that went into the outbox because the broker was away.
    pub spooled: Counter,
    /// Messages that were dropped because the outbox was full.
    pub dropped: Counter,
    /// Times that the whole queue was looked through.
    pub rescans: Counter,
    /// Connections made.
    pub connects: Counter,
    /// Connections lost.
    pub disconnects: Counter,
    /// Whether there is a connection (1) or not (0).
    pub connected: Gauge,
    /// Whether this node is the master (1) or not (0).
    pub master: Gauge,
    /// Jobs that have not ended.
    pub open_jobs: Gauge,
    /// Jobs of the time as the master, whose end is not told yet though another node is the
    /// master now.
    pub jobs_in_arrears: Gauge,
    /// Job files that are to be read.
    pub queue_backlog: Gauge,
    /// Messages in memory that the broker has not confirmed.
    pub unconfirmed: Gauge,
    /// Files in the outbox.
    pub outbox_files: Gauge,
    /// Their bytes.
    pub outbox_bytes: Gauge,
    /// The age of the oldest.
    pub outbox_age: Gauge<i64, AtomicI64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("snf_eventd");
        let confirmed = Family::<Topic, Counter>::default();
        registry.register(
            "messages_confirmed",
            "Messages that the broker confirmed, by topic",
            confirmed.clone(),
        );
        // 0.5 ms to a minute
        let buckets = [
            0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0,
        ];
        let lag = Histogram::new(buckets);
        registry.register_with_unit(
            "lag",
            "From the writing of a job file to the broker's confirm of what it says",
            Unit::Seconds,
            lag.clone(),
        );
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let parked = counter("messages_parked", "Messages that no queue wanted, kept");
        let parked_dropped = counter(
            "messages_parked_dropped",
            "Undeliverable messages, final ones too, dropped because their bounds were reached",
        );
        let refused = counter(
            "messages_refused",
            "Times that a queue or the broker refused a message",
        );
        let dead_letters = counter(
            "messages_dead_letters",
            "Messages that the broker refuses for good, set aside",
        );
        let spooled = counter(
            "messages_spooled",
            "Messages that went into the outbox because the broker was away",
        );
        let dropped = counter(
            "messages_dropped",
            "Messages that were not final, dropped because the outbox was full",
        );
        let rescans = counter("rescans", "Times that the whole queue was looked through");
        let connects = counter("connects", "Connections to a broker made");
        let disconnects = counter("disconnects", "Connections to a broker lost");
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let parked_messages = gauge("parked_messages", "Messages kept that no queue wants");
        let refused_messages = gauge(
            "refused_messages",
            "Messages kept that a queue or the broker refuses, tried again",
        );
        let dead_letter_messages = gauge(
            "dead_letter_messages",
            "Messages kept that the broker refuses for good",
        );
        let connected = gauge("connected", "Whether there is a connection to a broker");
        let master = gauge("master", "Whether this node is the cluster's master");
        let open_jobs = gauge("jobs_open", "Jobs that have not ended");
        let queue_backlog = gauge("jobs_to_read", "Job files that are to be read");
        let jobs_in_arrears = gauge(
            "jobs_in_arrears",
            "Jobs of the time as the master, whose end is not told yet though another node is it now",
        );
        let unconfirmed = gauge(
            "messages_unconfirmed",
            "Messages in memory that the broker has not confirmed",
        );
        let outbox_files = gauge("outbox_files", "Files that wait in the outbox");
        let outbox_bytes = gauge("outbox_bytes", "Bytes that wait in the outbox");
        let outbox_age = gauge("outbox_age_seconds", "The age of the oldest in the outbox");
        Self {
            registry: Arc::new(registry),
            confirmed,
            lag,
            parked,
            parked_dropped,
            refused,
            dead_letters,
            parked_messages,
            refused_messages,
            dead_letter_messages,
            spooled,
            dropped,
            rescans,
            connects,
            disconnects,
            connected,
            master,
            open_jobs,
            jobs_in_arrears,
            queue_backlog,
            unconfirmed,
            outbox_files,
            outbox_bytes,
            outbox_age,
        }
    }
}

impl Metrics {
    /// A message is confirmed, whose job file (if it was one) was written then.
    pub fn confirm(&self, key: &RoutingKey, written: Option<SystemTime>) {
        let topic = key.as_str().rsplit('.').next().unwrap_or_default();
        let topic = topic.to_owned();
        self.confirmed.get_or_create(&Topic { topic }).inc();
        if let Some(written) = written {
            // a clock that went back gives no lag
            let lag = written.elapsed().unwrap_or(Duration::ZERO);
            self.lag.observe(lag.as_secs_f64());
        }
    }

    /// Sets a gauge from a count.
    pub fn set(gauge: &Gauge, count: impl TryInto<i64>) {
        gauge
            .inner()
            .store(count.try_into().unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agents::message::Topic as MessageTopic;

    #[test]
    fn the_figures_are_in_the_text() {
        let metrics = Metrics::default();
        let key = RoutingKey::of(MessageTopic::Op, "snf-1");
        let written = SystemTime::now() - Duration::from_millis(3);
        metrics.confirm(&key, Some(written));
        metrics.confirm(&key, Some(SystemTime::now() + Duration::from_secs(60)));
        metrics.confirm(&RoutingKey::heartbeat(), None);
        metrics.rescans.inc();
        Metrics::set(&metrics.outbox_files, 7usize);
        let text = metrics.render();
        for line in [
            "snf_eventd_messages_confirmed_total{topic=\"op\"} 2",
            "snf_eventd_messages_confirmed_total{topic=\"heartbeat\"} 1",
            "snf_eventd_lag_seconds_count 2",
            "snf_eventd_rescans_total 1",
            "snf_eventd_outbox_files 7",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
