//! The rate of messages: errors leave at once, of the others at most five a second, and
//! always the last.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use agents::message::ProgressMessage;

/// The time between two messages.
const INTERVAL: Duration = Duration::from_millis(200);

/// Messages that are not replaced by the next of their kind wait here; more than that are
/// not for people to read, and the oldest is dropped, of warnings only if nothing else waits.
const WAITING_LIMIT: usize = 50;

/// So many leave before an error, so that they stay in order.
const FEW: usize = 4;

/// The kind of which only the newest matters.
const REPLACED: &str = "image-copy-progress";

/// The kind that ends a deployment, and that says why.
const ERROR: &str = "image-error";

/// The kind that is kept longer than others.
const WARNING: &str = "image-warning";

/// Returns whether a message leaves before all others and is never dropped.
pub(super) fn is_urgent(message: &ProgressMessage) -> bool {
    message.kind == ERROR
}

/// Messages on their way out.
#[derive(Debug, Default)]
pub struct Throttle {
    last_sent: Option<Instant>,
    waiting: VecDeque<ProgressMessage>,
    dropped: usize,
}

impl Throttle {
    /// Takes a message; returns those that leave at once, in order. An older progress that still
    /// waits is replaced by a newer one. An error leaves at once, and the few that wait before it;
    /// it does not wait for many.
    pub fn offer(&mut self, message: ProgressMessage) -> Vec<ProgressMessage> {
        if is_urgent(&message) {
            let mut leaving = Vec::new();
            if self.waiting.len() <= FEW {
                leaving.extend(self.waiting.drain(..));
            }
            leaving.push(message);
            return leaving;
        }
        if message.kind == REPLACED {
            self.waiting.retain(|waiting| waiting.kind != REPLACED);
        }
        if self.waiting.len() >= WAITING_LIMIT {
            let least = self.waiting.iter().position(|one| one.kind != WARNING);
            self.waiting.remove(least.unwrap_or(0));
            self.dropped = self.dropped.saturating_add(1);
        }
        self.waiting.push_back(message);
        Vec::new()
    }

    /// The next message, if it may leave now.
    pub fn due(&mut self, now: Instant) -> Option<ProgressMessage> {
        if self.wait(now)? > Duration::ZERO {
            return None;
        }
        self.last_sent = Some(now);
        self.waiting.pop_front()
    }

    /// How long until the next message may leave; `None` if none waits.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        if self.waiting.is_empty() {
            return None;
        }
        let next = self.last_sent.map(|sent| sent + INTERVAL);
        Some(next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now)))
    }

    /// All that still waits: at the end of the stream nothing is held back.
    pub fn finish(&mut self) -> impl Iterator<Item = ProgressMessage> + '_ {
        self.waiting.drain(..)
    }

    /// How many messages were dropped so far.
    pub fn dropped(&self) -> usize {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agents::message::EventTime;
    use serde_json::json;

    fn message(kind: &str, number: u64) -> ProgressMessage {
        ProgressMessage {
            kind: kind.to_owned(),
            event_time: EventTime::new(1, 0).unwrap(),
            instance: "snf-1".to_owned(),
            fields: [("progress".to_owned(), json!(number))]
                .into_iter()
                .collect(),
        }
    }

    #[test]
    fn a_flood_of_progress_is_five_a_second_and_the_last() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        let mut sent = Vec::new();
        // one message a millisecond, for three seconds
        for number in 0..3000 {
            let now = start + Duration::from_millis(number);
            throttle.offer(message("image-copy-progress", number));
            sent.extend(throttle.due(now));
        }
        assert_eq!(sent.len(), 15);
        sent.extend(throttle.finish());
        assert_eq!(sent.last(), Some(&message("image-copy-progress", 2999)));
        assert_eq!(throttle.dropped(), 0);
    }

    #[test]
    fn a_slow_stream_is_not_delayed() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        assert_eq!(throttle.wait(start), None);
        for second in 0..3 {
            let now = start + Duration::from_secs(second);
            throttle.offer(message("image-copy-progress", second));
            assert_eq!(throttle.wait(now), Some(Duration::ZERO));
            assert!(throttle.due(now).is_some());
        }
    }

    #[test]
    fn what_is_told_once_is_kept_in_order_and_within_bounds() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        throttle.offer(message("image-copy-progress", 7));
        for number in 0..60 {
            throttle.offer(message("image-info", number));
        }
        assert!(throttle.due(start).is_some());
        assert_eq!(throttle.wait(start), Some(INTERVAL));
        assert!(throttle.due(start + INTERVAL / 2).is_none());
        assert!(throttle.due(start + INTERVAL).is_some());
        assert_eq!(throttle.dropped(), 11);
        let rest: Vec<_> = throttle.finish().collect();
        assert_eq!(rest.len(), 48);
        assert_eq!(rest.last(), Some(&message("image-info", 59)));
    }

    #[test]
    fn an_error_leaves_at_once_and_a_warning_is_dropped_last() {
        let mut throttle = Throttle::default();
        throttle.offer(message("image-warning", 1));
        for number in 0..200 {
            assert_eq!(throttle.offer(message("image-info", number)), []);
        }
        let error = message("image-error", 7);
        for _ in 0..100 {
            assert_eq!(throttle.offer(error.clone()).len(), 1);
        }
        assert_eq!(throttle.dropped(), 151);
        assert_eq!(throttle.finish().next(), Some(message("image-warning", 1)));
        // The few that wait stay before it.
        let progress = message("image-copy-progress", 3);
        throttle.offer(progress.clone());
        assert_eq!(throttle.offer(error.clone()), [progress, error]);
        assert_eq!(throttle.wait(Instant::now()), None);
        for number in 0..60 {
            throttle.offer(message("image-warning", number));
        }
        let rest: Vec<_> = throttle.finish().collect();
        assert_eq!(rest.first(), Some(&message("image-warning", 10)));
    }
}
