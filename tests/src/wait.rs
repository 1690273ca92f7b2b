//! Waiting for something to become true, with a deadline and a name.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Deadlines in tests are generous, since the machines are shared; this is the usual one.
pub const USUAL: Duration = Duration::from_secs(30);

/// What one look at a condition found.
#[derive(Debug)]
pub enum Look<T> {
    /// It holds; this is what was waited for.
    Done(T),
    /// Not yet; this is what is there instead, for the error's text.
    NotYet(String),
    /// It can never hold any more.
    Failed(String),
}

/// Looks until the condition holds.
///
/// # Errors
/// The deadline has passed, or a look said [`Look::Failed`]; the text says what was waited
/// for, how long, and what the last look saw.
pub fn until<T>(what: &str, limit: Duration, look: impl FnMut() -> Look<T>) -> Result<T> {
    until_every(POLL, what, limit, look)
}

/// [`until`] with a pause of its own between two looks, for looks that cost or leave traces.
///
/// # Errors
/// As for [`until`].
pub fn until_every<T>(
    pause: Duration,
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Look<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let seen = match look() {
            Look::Done(value) => return Ok(value),
            Look::Failed(reason) => bail!("waiting for {what}: {reason}"),
            Look::NotYet(seen) => seen,
        };
        if start.elapsed() >= limit {
            bail!(
                "waited {:.1} s for {what}; last seen: {seen}",
                start.elapsed().as_secs_f64()
            );
        }
        thread::sleep(pause);
    }
}

/// [`until`] for a plain condition.
///
/// # Errors
/// As for [`until`].
pub fn until_true(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    until(what, limit, || {
        if condition() {
            Look::Done(())
        } else {
            Look::NotYet("it does not hold".to_owned())
        }
    })
}

/// [`until`] for something that is there or not; an error counts as not yet.
///
/// # Errors
/// As for [`until`].
pub fn until_ok<T>(
    what: &str,
    limit: Duration,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    until(what, limit, || match attempt() {
        Ok(value) => Look::Done(value),
        Err(error) => Look::NotYet(format!("{error:#}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_deadline_says_what_was_waited_for_and_what_was_seen() {
        let error = until::<()>("the moon", Duration::from_millis(30), || {
            Look::NotYet("clouds".to_owned())
        })
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("the moon") && error.contains("clouds"),
            "{error}"
        );
    }

    #[test]
    fn a_hopeless_wait_ends_at_once() {
        let start = Instant::now();
        let look = || Look::<()>::Failed("it is dead".to_owned());
        assert!(until("x", Duration::from_secs(60), look).is_err());
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
