//! What happened, counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::omission::Omission;
use crate::reason::Reason;
use crate::respond::Kind;

/// A number that one thread counts up and others read.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Counts one.
    pub fn one(&self) {
        self.add(1);
    }

    /// Counts so many.
    pub fn add(&self, more: u64) {
        // One thread writes, so that no locked instruction is needed.
        let now = self.0.load(Ordering::Relaxed).wrapping_add(more);
        self.0.store(now, Ordering::Relaxed);
    }

    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// What was counted.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Answered,
    /// It ended here.
    Dropped,
    /// It went on.
    Passed,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 3] = [Self::Answered, Self::Dropped, Self::Passed];

    /// The label of metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Dropped => "dropped",
            Self::Passed => "passed",
        }
    }
}

/// The upper bounds of the latency histogram.
pub const LATENCY_BOUNDS: [Duration; 10] = [
    Duration::from_micros(20),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(200),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(100),
];

/// What happened since the start.
#[derive(Debug, Default)]
pub struct Stats {
    messages: [[Count; 3]; Kind::COUNT],
    drops: [Count; Reason::ALL.len()],
    /// Packets of interfaces without a binding, which went on.
    pub unknown: Count,
    /// Packets that the rules dropped since guests sent more than they may.
    pub limited: Count,
    /// Items of lists that answers had no room for.
    pub omitted_items: Count,
    /// Advertisements that nobody asked for.
    pub advertisements: Count,
    /// Frames that could not be sent.
    pub send_failures: Count,
    /// Times that the kernel had more packets than our socket could hold, and dropped some.
    pub overruns: Count,
    /// Interfaces that are served now.
    pub interfaces: Count,
    /// Bindings that are good now.
    pub bindings: Count,
    /// Bindings that are refused now.
    pub refused_bindings: Count,
    /// Configurations that were refused at a reload.
    pub refused_reloads: Count,
    /// How many packets were answered within each of [`LATENCY_BOUNDS`] but not the one before,
    /// counted from the moment that their batch was taken from the queue; the last took longer.
    latency: [Count; LATENCY_BOUNDS.len() + 1],
    /// All latencies together, in nanoseconds.
    latency_sum: Count,
}

impl Stats {
    /// Counts a message.
    pub fn message(&self, kind: Kind, outcome: Outcome) {
        if let Some(count) = self
            .messages
            .get(kind.number())
            .and_then(|counts| counts.get(outcome as usize))
        {
            count.one();
        }
    }

    /// Counts what an answer had no room for.
    pub fn omit(&self, omissions: &[Omission]) {
        let items: usize = omissions.iter().map(|omission| omission.left_out).sum();
        self.omitted_items
            .add(u64::try_from(items).unwrap_or(u64::MAX));
    }

    /// Counts a message that ended here.
    pub fn dropped(&self, kind: Kind, reason: Reason) {
        self.message(kind, Outcome::Dropped);
        if let Some(count) = self.drops.get(reason as usize) {
            count.one();
        }
    }

    /// Counts `packets` that were answered after so long.
    pub fn latency(&self, packets: u64, time: Duration) {
        let place = LATENCY_BOUNDS.iter().position(|bound| time <= *bound);
        if let Some(count) = self.latency.get(place.unwrap_or(LATENCY_BOUNDS.len())) {
            count.add(packets);
        }
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.latency_sum.add(nanoseconds.saturating_mul(packets));
    }

    /// The messages of this kind with this outcome.
    pub fn messages(&self, kind: Kind, outcome: Outcome) -> u64 {
        let counts = self.messages.get(kind.number());
        counts
            .and_then(|counts| counts.get(outcome as usize))
            .map_or(0, Count::get)
    }

    /// The messages that ended here for this reason.
    pub fn drops(&self, reason: Reason) -> u64 {
        self.drops.get(reason as usize).map_or(0, Count::get)
    }

    /// The latency histogram: the sum in seconds, and the counts up to each bound and beyond.
    pub fn latencies(&self) -> (Duration, impl Iterator<Item = (Option<Duration>, u64)>) {
        let bounds = LATENCY_BOUNDS.iter().copied().map(Some).chain([None]);
        let counts = self.latency.iter().map(Count::get);
        (
            Duration::from_nanos(self.latency_sum.get()),
            bounds.zip(counts),
        )
    }
}
