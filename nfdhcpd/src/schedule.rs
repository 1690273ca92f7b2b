//! When which interface gets its next unsolicited router advertisement (RFC 4861, section 6.2.4).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// RFC 4861, section 10: so many advertisements come quickly after an interface begins to
/// advertise, at most so far apart.
const INITIAL: u8 = 3;
const INITIAL_INTERVAL: Duration = Duration::from_secs(16);

/// When which interface gets its next unsolicited router advertisement.
///
/// Each has a timer of its own, so that one that cannot be served does not hold up another.
#[derive(Debug, Default)]
pub struct Schedule {
    timers: BTreeSet<(Instant, u32)>,
    random: Random,
}

/// The place of one interface in the schedule.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timer {
    due: Option<Instant>,
    sent: u8,
}

impl Schedule {
    /// Starts the timer of an interface: its first advertisement comes within a second.
    pub fn start(&mut self, interface: u32, now: Instant) -> Timer {
        let due = now + self.random.up_to(Duration::from_secs(1));
        self.timers.insert((due, interface));
        Timer {
            due: Some(due),
            sent: 0,
        }
    }

    /// Stops the timer of an interface.
    pub fn stop(&mut self, interface: u32, timer: &mut Timer) {
        if let Some(due) = timer.due.take() {
            self.timers.remove(&(due, interface));
        }
    }

    /// The interface whose time has come, taken out of the schedule.
    pub fn pop(&mut self, now: Instant) -> Option<u32> {
        let &(due, interface) = self.timers.first().filter(|(due, _)| *due <= now)?;
        self.timers.remove(&(due, interface));
        Some(interface)
    }

    /// Winds up the timer after an advertisement: at random between a third of `interval` and the
    /// whole, so that many interfaces do not fall into step.
    pub fn wind(&mut self, interface: u32, timer: &mut Timer, interval: Duration, now: Instant) {
        timer.sent = timer.sent.saturating_add(1);
        let longest = if timer.sent < INITIAL {
            interval.min(INITIAL_INTERVAL)
        } else {
            interval
        };
        let shortest = longest / 3;
        let due = now + shortest + self.random.up_to(longest - shortest);
        timer.due = Some(due);
        self.timers.insert((due, interface));
    }

    /// How long until the next is due.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        self.timers
            .first()
            .map(|(due, _)| due.saturating_duration_since(now))
    }
}

/// A small generator, good enough to keep timers apart (xorshift64*).
#[derive(Debug)]
struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        use std::hash::{BuildHasher, Hasher};
        // The standard library's source of randomness without a dependency.
        let seed = std::collections::hash_map::RandomState::new()
            .build_hasher()
            .finish();
        Self(seed | 1)
    }
}

impl Random {
    fn up_to(&mut self, limit: Duration) -> Duration {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        let nanoseconds = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX >> 32);
        let scaled = (u128::from(nanoseconds) * u128::from(value)) >> 32;
        Duration::from_nanos(u64::try_from(scaled).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(300);

    #[test]
    fn the_first_come_quickly_then_at_random_within_the_interval() {
        let mut schedule = Schedule::default();
        let mut now = Instant::now();
        let mut timer = schedule.start(7, now);
        assert!(schedule.wait(now).unwrap() <= Duration::from_secs(1));
        let mut gaps = Vec::new();
        for _ in 0..50 {
            let wait = schedule.wait(now).unwrap();
            assert_eq!(schedule.pop(now + wait - Duration::from_nanos(1)), None);
            now += wait;
            assert_eq!(schedule.pop(now), Some(7));
            assert_eq!(schedule.pop(now), None);
            schedule.wind(7, &mut timer, INTERVAL, now);
            gaps.push(schedule.wait(now).unwrap());
        }
        assert!(
            gaps[..2].iter().all(|gap| *gap <= INITIAL_INTERVAL),
            "{gaps:?}"
        );
        assert!(
            gaps[2..]
                .iter()
                .all(|gap| *gap >= INTERVAL / 3 && *gap <= INTERVAL)
        );
        let (least, most) = (
            gaps[2..].iter().min().unwrap(),
            gaps[2..].iter().max().unwrap(),
        );
        assert!(*most - *least > INTERVAL / 10, "not at random: {gaps:?}");
    }

    #[test]
    fn a_stopped_timer_never_comes() {
        let mut schedule = Schedule::default();
        let now = Instant::now();
        let mut timer = schedule.start(7, now);
        schedule.stop(7, &mut timer);
        assert_eq!(schedule.pop(now + INTERVAL), None);
        assert_eq!(schedule.wait(now), None);
    }
}
