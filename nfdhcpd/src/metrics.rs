//! The metrics as Prometheus reads them. None has a guest's name in it: a cloud has too many.

use std::fmt;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::reason::Reason;
use crate::respond::Kind;
use crate::stats::{Outcome, Stats};

/// The text for Prometheus, made anew at each call. `table` is the kernel's table of queues,
/// `/proc/net/netfilter/nfnetlink_queue`, and `queues` are ours in it.
pub fn text(stats: &Arc<Stats>, table: Option<&File>, queues: &[u16]) -> String {
    let mut registry = Registry::with_prefix("nfdhcpd");
    registry.register_collector(Box::new(Source {
        stats: Arc::clone(stats),
        queues: table
            .map(|table| kernel_queues(table, queues))
            .unwrap_or_default(),
    }));
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = text::encode(&mut out, &registry);
    out
}

#[derive(Debug)]
struct Source {
    stats: Arc<Stats>,
    queues: Vec<KernelQueue>,
}

/// One queue as the kernel tells of it.
#[derive(Debug, PartialEq, Eq)]
struct KernelQueue {
    number: u16,
    waiting: u64,
    /// The queue was full.
    dropped: u64,
    /// Our socket was full.
    undelivered: u64,
}

fn kernel_queues(mut table: &File, ours: &[u16]) -> Vec<KernelQueue> {
    let mut text = String::new();
    let read = table
        .rewind()
        .and_then(|()| table.read_to_string(&mut text));
    if let Err(error) = read {
        tracing::debug!(%error, "the kernel's table of queues");
    }
    parse_kernel_queues(&text, ours)
}

/// The columns are: number, port, waiting, copy mode, copy range, dropped, undelivered, last id, 1.
fn parse_kernel_queues(text: &str, ours: &[u16]) -> Vec<KernelQueue> {
    text.lines()
        .filter_map(|line| {
            let fields: Vec<u64> = line
                .split_whitespace()
                .map_while(|field| field.parse().ok())
                .collect();
            let &[number, _, waiting, _, _, dropped, undelivered, ..] = fields.as_slice() else {
                return None;
            };
            let number = u16::try_from(number).ok()?;
            Some(KernelQueue {
                number,
                waiting,
                dropped,
                undelivered,
            })
        })
        .filter(|queue| ours.contains(&queue.number))
        .collect()
}

impl Source {
    fn counter<L>(
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result
    where
        L: prometheus_client::encoding::EncodeLabelSet,
    {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauge(
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        value: u64,
    ) -> fmt::Result {
        let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(family)
    }
}

impl Collector for Source {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = &self.stats;
        let all = Kind::ALL
            .into_iter()
            .flat_map(|kind| Outcome::ALL.map(|outcome| (kind, outcome)));
        let messages = all
            .map(|(kind, outcome)| (kind, outcome, stats.messages(kind, outcome)))
            // What never comes (a server's messages from a guest) would only fill the page.
            .filter(|(_, _, count)| *count > 0)
            .map(|(kind, outcome, count)| {
                ([("type", kind.name()), ("outcome", outcome.label())], count)
            });
        Self::counter(
            &mut encoder,
            "messages",
            "Packets by type and what became of them",
            messages,
        )?;
        let drops = Reason::ALL
            .iter()
            .map(|reason| ([("reason", reason.label())], stats.drops(*reason)));
        Self::counter(
            &mut encoder,
            "drops",
            "Packets that ended here, by reason",
            drops,
        )?;
        for (name, help, count) in [
            (
                "unknown_interface",
                "Packets from interfaces without a binding",
                &stats.unknown,
            ),
            (
                "limited",
                "Packets that the rules dropped: more than a guest may send",
                &stats.limited,
            ),
            (
                "advertisements",
                "Router advertisements that nobody asked for",
                &stats.advertisements,
            ),
            (
                "omitted_items",
                "Routes, servers and names that answers had no room for",
                &stats.omitted_items,
            ),
            (
                "send_failures",
                "Frames that could not be sent",
                &stats.send_failures,
            ),
            (
                "overruns",
                "Times that the socket of a queue ran over",
                &stats.overruns,
            ),
            (
                "refused_reloads",
                "Reloads whose configuration was refused",
                &stats.refused_reloads,
            ),
        ] {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(count.get()).encode(family)?;
        }
        for (name, help, count) in [
            (
                "interfaces",
                "Interfaces that are served",
                &stats.interfaces,
            ),
            ("bindings", "Bindings that are good", &stats.bindings),
            (
                "refused_bindings",
                "Bindings that are refused",
                &stats.refused_bindings,
            ),
        ] {
            Self::gauge(&mut encoder, name, help, count.get())?;
        }
        self.encode_queues(&mut encoder)?;
        let (sum, counts) = stats.latencies();
        let buckets: Vec<(f64, u64)> = counts
            .map(|(bound, count)| {
                (
                    bound.map_or(f64::INFINITY, |bound| bound.as_secs_f64()),
                    count,
                )
            })
            .collect();
        let total = buckets.iter().map(|(_, count)| count).sum();
        let mut histogram = encoder.encode_descriptor(
            "answer_seconds",
            "Time from taking a packet to sending its answer",
            None,
            MetricType::Histogram,
        )?;
        histogram.encode_histogram::<[(&str, &str); 0]>(sum.as_secs_f64(), total, &buckets, None)
    }
}

impl Source {
    fn encode_queues(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let number = |queue: &KernelQueue| [("queue", queue.number.to_string())];
        let mut family = encoder.encode_descriptor(
            "queue_waiting",
            "Packets that wait in the kernel's queue",
            None,
            MetricType::Gauge,
        )?;
        for queue in &self.queues {
            ConstGauge::new(queue.waiting).encode(family.encode_family(&number(queue))?)?;
        }
        let full = self
            .queues
            .iter()
            .map(|queue| (number(queue), queue.dropped));
        Self::counter(
            encoder,
            "queue_full",
            "Packets dropped since the queue was full",
            full,
        )?;
        let lost = self
            .queues
            .iter()
            .map(|queue| (number(queue), queue.undelivered));
        Self::counter(
            encoder,
            "queue_undelivered",
            "Packets dropped since our socket was full",
            lost,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_kernels_table_is_read() {
        let text =
            "   42  12345    3 2  2049     7     9   100  1\n   43  1  0 2  1  0  0  1  1\nx\n";
        let queue = KernelQueue {
            number: 42,
            waiting: 3,
            dropped: 7,
            undelivered: 9,
        };
        assert_eq!(parse_kernel_queues(text, &[42]), [queue]);
    }

    #[test]
    fn what_was_counted_is_in_the_text() {
        let stats = Arc::new(Stats::default());
        stats.message(Kind::RouterSolicitation, Outcome::Answered);
        stats.dropped(Kind::Dhcp4(None), Reason::SpoofedMac);
        stats.latency(3, Duration::from_micros(30));
        stats.interfaces.set(5);
        let text = text(&stats, None, &[]);
        for line in [
            "nfdhcpd_messages_total{type=\"RS\",outcome=\"answered\"} 1",
            "nfdhcpd_messages_total{type=\"DHCPv4\",outcome=\"dropped\"} 1",
            "nfdhcpd_drops_total{reason=\"spoofed-mac\"} 1",
            "nfdhcpd_drops_total{reason=\"checksum\"} 0",
            "nfdhcpd_interfaces 5",
            "nfdhcpd_answer_seconds_bucket{le=\"0.00002\"} 0",
            "nfdhcpd_answer_seconds_bucket{le=\"0.00005\"} 3",
            "nfdhcpd_answer_seconds_bucket{le=\"+Inf\"} 3",
            "nfdhcpd_answer_seconds_count 3",
        ] {
            assert!(
                text.lines().any(|have| have == line),
                "{line} is not in\n{text}"
            );
        }
    }
}
