//! How often somebody may be wrong about a password.
//!
//! Each name has a number of wrong passwords free, and one more after each interval; when they
//! are used up, not even the right one is looked at. Who guesses gets nowhere, and the hashing,
//! which is slow by design, is not done for him. A token is not guessed and not counted. The
//! count is each process's own.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many wrong passwords are free.
const FREE: u32 = 10;
/// After how long one more is.
const INTERVAL: Duration = Duration::from_secs(6);
/// The most names that are remembered; the ones that have been quiet the longest go first.
const NAMES: usize = 10_000;

/// The wrong passwords of late, by name.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<HashMap<String, Account>>);

#[derive(Debug, Clone, Copy)]
struct Account {
    used: u32,
    since: Instant,
}

impl Account {
    /// What is left of it at `now`.
    fn at(self, now: Instant) -> Self {
        let passed = now.saturating_duration_since(self.since).as_secs() / INTERVAL.as_secs();
        let back = u32::try_from(passed).unwrap_or(u32::MAX).min(self.used);
        Self {
            used: self.used.saturating_sub(back),
            since: self
                .since
                .checked_add(INTERVAL.saturating_mul(back))
                .unwrap_or(now),
        }
    }
}

impl Attempts {
    /// Whether a password for `name` may be tried at `now`; if not, how long to wait.
    pub fn check(&self, name: &str, now: Instant) -> Result<(), Duration> {
        let accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match accounts.get(name).map(|account| account.at(now)) {
            Some(account) if account.used >= FREE => {
                Err(INTERVAL.saturating_sub(now.saturating_duration_since(account.since)))
            }
            _ => Ok(()),
        }
    }

    /// A password for `name` was wrong.
    pub fn wrong(&self, name: &str, now: Instant) {
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if accounts.len() >= NAMES && !accounts.contains_key(name) {
            accounts.retain(|_, account| account.at(now).used > 0);
            if accounts.len() >= NAMES
                && let Some(oldest) = accounts
                    .iter()
                    .min_by_key(|(_, account)| account.since)
                    .map(|(name, _)| name.clone())
            {
                accounts.remove(&oldest);
            }
        }
        let account = accounts.entry(name.to_owned()).or_insert(Account {
            used: 0,
            since: now,
        });
        *account = account.at(now);
        if account.used == 0 {
            account.since = now;
        }
        account.used = account.used.saturating_add(1).min(FREE);
    }

    /// The right one came: what was before is forgiven.
    pub fn right(&self, name: &str) {
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_free_ones_are_used_up_and_come_back_one_by_one() {
        let attempts = Attempts::default();
        let start = Instant::now();
        for _ in 0..FREE {
            assert!(attempts.check("alice", start).is_ok());
            attempts.wrong("alice", start);
        }
        let wait = attempts.check("alice", start).unwrap_err();
        assert_eq!(wait, INTERVAL);
        assert!(attempts.check("bob", start).is_ok());
        let later = start + wait;
        assert!(attempts.check("alice", later).is_ok());
        attempts.wrong("alice", later);
        assert!(attempts.check("alice", later).is_err());
        attempts.right("alice");
        assert!(attempts.check("alice", later).is_ok());
    }

    #[test]
    fn memory_is_bounded_and_the_busy_are_not_forgotten() {
        let attempts = Attempts::default();
        let start = Instant::now();
        let end = start + Duration::from_secs(1);
        for name in 0..NAMES + 100 {
            attempts.wrong(&name.to_string(), start);
        }
        for _ in 0..FREE {
            attempts.wrong("alice", end);
        }
        assert!(attempts.0.lock().unwrap().len() <= NAMES);
        assert!(attempts.check("alice", end).is_err());
    }
}
