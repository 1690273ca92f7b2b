//! When it is better to be woken up less often.

use std::time::{Duration, Instant};

/// How long job files are counted before it is decided anew.
const SPAN: Duration = Duration::from_millis(100);

/// So many in that time are a burst: more than 400 a second.
const BURST: usize = 40;

/// How long the loop rests in a burst before it looks at the queue.
const REST: Duration = Duration::from_millis(4);

/// Tells a burst of job files from their ordinary coming.
///
/// A version that comes alone is told at once. In a burst, being woken up for each of them (by
/// the kernel for the file, by the broker for its confirm) costs several times what is done with
/// it; so several are let come, and are read, sent and confirmed together.
#[derive(Debug)]
pub struct Pace {
    since: Instant,
    count: usize,
    burst: bool,
}

impl Pace {
    /// Nothing has come yet.
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            count: 0,
            burst: false,
        }
    }

    /// So many job files have come.
    pub fn came(&mut self, now: Instant, count: usize) {
        self.look(now);
        self.count = self.count.saturating_add(count);
        self.burst |= self.count > BURST;
    }

    /// How long to rest before the next look at the queue.
    pub fn rest(&mut self, now: Instant) -> Duration {
        self.look(now);
        if self.burst { REST } else { Duration::ZERO }
    }

    fn look(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        if passed >= SPAN {
            // a burst ends with a span that was none, or with a pause
            self.burst = self.count > BURST && passed < SPAN.saturating_mul(2);
            self.count = 0;
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hundred_a_second_are_told_at_once_and_a_thousand_are_a_burst() {
        let start = Instant::now();
        let rested = |gap: u64| {
            let mut pace = Pace::new(start);
            (0..1000u64)
                .filter(|number| {
                    let now = start + Duration::from_micros(number * gap);
                    let rest = pace.rest(now) > Duration::ZERO;
                    pace.came(now, 1);
                    rest
                })
                .count()
        };
        assert_eq!(rested(5000), 0, "200 a second");
        assert_eq!(rested(2700), 0, "370 a second");
        assert!(rested(1000) > 900, "1000 a second");
    }

    #[test]
    fn after_a_burst_the_next_one_is_told_at_once() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.came(start, 5000);
        assert_eq!(pace.rest(start + REST), REST);
        assert_eq!(pace.rest(start + SPAN * 2), Duration::ZERO);
        pace.came(start + SPAN * 3, 5000);
        // one that goes on slowly ends after a span in which it was slow
        for step in 30..50 {
            pace.came(start + SPAN / 10 * step, 1);
        }
        assert_eq!(pace.rest(start + SPAN / 10 * 49), REST);
        assert_eq!(pace.rest(start + SPAN / 10 * 50), Duration::ZERO);
    }
}
