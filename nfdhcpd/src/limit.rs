//! Rates: how often something may happen.

use std::time::{Duration, Instant};

/// So many events in a time, and so many at once (the generic cell rate algorithm).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Events in the time that was given.
    pub events: u32,
    /// Events at once.
    pub burst: u32,
    /// The time that one event takes up.
    interval: Duration,
    /// How far ahead of time events may come.
    tolerance: Duration,
}

impl Rate {
    /// `events` in each `time`, `burst` of them at once. `None` if `events` is 0: no limit.
    pub fn new(events: u32, time: Duration, burst: u32) -> Option<Self> {
        let interval = time.checked_div(events)?;
        Some(Self {
            events,
            burst,
            interval,
            tolerance: interval.saturating_mul(burst.saturating_sub(1)),
        })
    }
}

/// One who is held to a rate.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meter {
    /// When all that came would have come at an even rate.
    due: Option<Instant>,
}

impl Meter {
    /// Whether one more event may happen now. A clock that stands still or jumps forward does no
    /// harm; it cannot go back.
    pub fn allows(&mut self, rate: Option<Rate>, now: Instant) -> bool {
        let Some(rate) = rate else {
            return true;
        };
        let due = self.due.unwrap_or(now).max(now);
        if due.duration_since(now) > rate.tolerance {
            return false;
        }
        self.due = Some(due + rate.interval);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let rate = Rate::new(10, Duration::from_secs(1), 5);
        let mut meter = Meter::default();
        let mut now = Instant::now();
        assert_eq!((0..20).filter(|_| meter.allows(rate, now)).count(), 5);
        let mut passed = 0;
        for _ in 0..1000 {
            now += Duration::from_millis(10);
            passed += usize::from(meter.allows(rate, now));
        }
        assert_eq!(passed, 100);
        now += Duration::from_secs(3600);
        assert_eq!((0..20).filter(|_| meter.allows(rate, now)).count(), 5);
    }

    #[test]
    fn without_a_rate_everything_passes() {
        assert_eq!(Rate::new(0, Duration::from_secs(1), 5), None);
        let now = Instant::now();
        assert!((0..1000).all(|_| Meter::default().allows(None, now)));
    }
}
