//! When to give up: the time is over, or a signal came.

use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Error, Result};

/// A time limit for one call, and the signals that end it: TERM, INT and HUP. They are held
/// back so that a step is never left half done, and looked for between steps.
#[derive(Debug)]
pub struct Deadline {
    start: Instant,
    limit: Duration,
    signals: Option<SignalFd>,
}

impl Deadline {
    /// Starts now. Without signals if the kernel gives no descriptor for them: then they end
    /// the process at once, and the next call repairs.
    pub fn start(seconds: u64) -> Self {
        let mut ending = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            ending.add(signal);
        }
        let signals = ending.thread_block().ok().and_then(|()| {
            SignalFd::with_flags(&ending, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).ok()
        });
        Self {
            start: Instant::now(),
            limit: Duration::from_secs(seconds),
            signals,
        }
    }

    /// Whether there is time for the next step, which `what` names.
    ///
    /// # Errors
    /// The time is over, or a signal came.
    pub fn check(&self, what: impl FnOnce() -> String) -> Result<()> {
        if let Some(signals) = &self.signals
            && let Ok(Some(signal)) = signals.read_signal()
        {
            let number = i32::try_from(signal.ssi_signo).unwrap_or_default();
            let signal = Signal::try_from(number)
                .map_or_else(|_| number.to_string(), |signal| signal.to_string());
            return Err(Error::Signal {
                signal,
                what: what(),
            });
        }
        if self.start.elapsed() >= self.limit {
            return Err(Error::Deadline {
                seconds: self.limit.as_secs(),
                what: what(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_over_names_what_was_next() {
        let over = Deadline::start(0);
        let error = over.check(|| "link tap0".to_owned()).unwrap_err();
        assert_eq!(error.to_string(), "not done within 0 s: link tap0");
        assert!(Deadline::start(60).check(String::new).is_ok());
    }

    #[test]
    fn a_signal_is_seen_between_steps() {
        let deadline = Deadline::start(60);
        assert!(deadline.check(String::new).is_ok());
        nix::sys::signal::raise(Signal::SIGTERM).unwrap();
        let error = deadline.check(|| "link tap0".to_owned()).unwrap_err();
        assert_eq!(error.to_string(), "ended by SIGTERM before: link tap0");
    }
}
