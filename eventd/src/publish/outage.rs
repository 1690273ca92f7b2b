//! What is said of an outage: its beginning, then at most a line a minute, and its end.

use std::time::{Duration, Instant};

const QUIET: Duration = Duration::from_secs(60);

/// One kind of outage.
#[derive(Debug, Default)]
pub struct Outage {
    began: Option<Instant>,
    said: Option<Instant>,
}

impl Outage {
    /// It fails (still). Returns how long it has, if it is time to say so.
    pub fn fails(&mut self, now: Instant) -> Option<Duration> {
        let began = *self.began.get_or_insert(now);
        if self
            .said
            .is_some_and(|said| now.saturating_duration_since(said) < QUIET)
        {
            return None;
        }
        self.said = Some(now);
        Some(now.saturating_duration_since(began))
    }

    /// Whether it failed when it was last tried.
    pub fn lasts(&self) -> bool {
        self.began.is_some()
    }

    /// It works. Returns how long it did not, if it did not.
    pub fn works(&mut self, now: Instant) -> Option<Duration> {
        let began = self.began.take()?;
        // `said` stays: an outage that comes and goes is still one outage
        Some(now.saturating_duration_since(began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once_a_minute_however_it_comes_and_goes() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut outage = Outage::default();
        assert_eq!(outage.works(at(0)), None);
        assert_eq!(outage.fails(at(0)), Some(Duration::ZERO));
        assert_eq!(outage.fails(at(30)), None);
        assert_eq!(outage.works(at(40)), Some(Duration::from_secs(40)));
        assert_eq!(outage.fails(at(50)), None);
        assert_eq!(outage.fails(at(61)), Some(Duration::from_secs(11)));
        assert_eq!(outage.fails(at(120)), None);
        assert_eq!(outage.fails(at(121)), Some(Duration::from_secs(71)));
    }
}
