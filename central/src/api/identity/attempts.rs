//! Limits on password attempts.
//!
//! Each attempt is counted before the password is looked at, and forgiven if it was right: of any
//! number at once no more are looked at than are free. It counts for the user at the address that
//! it comes from, for that address, and for the user. Somebody else's wrong passwords keep nobody
//! out of an address that the right one has come from of late: from there the user's count in all
//! does not matter, and when the address has used its own up, an attempt each second is still
//! looked at, which is answered as too many if it was wrong.
//!
//! A token is not guessed and not counted. The counts are each process's own.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::timeout_at;

use crate::listener::share;

/// The most entries of the table; those with the fewest wrong passwords, and then the oldest,
/// go first.
const ENTRIES: usize = if cfg!(test) { 3_000 } else { 30_000 };
/// The most addresses that a right password came from, and the time they are remembered for.
const KNOWN: usize = if cfg!(test) { 1_000 } else { 10_000 };
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);
/// The time that an attempt waits for others, of which each may turn out to be right.
const PATIENCE: Duration = Duration::from_secs(5);

/// A key that attempts are counted by; it is a hash, so that long names take no memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Scope {
    /// A user at an address.
    Pair,
    /// An address, whatever users it tries.
    Address,
    /// A user, wherever the attempts come from.
    User,
    /// A user at an address that the right password came from, when the others are used up.
    Familiar,
}

impl Scope {
    /// The number of free attempts, and the time after which one more is free.
    const fn limit(self) -> (u32, Duration) {
        match self {
            Self::Pair => (10, Duration::from_secs(6)),
            Self::Address => (100, Duration::from_millis(600)),
            Self::User => (100, Duration::from_secs(1)),
            Self::Familiar => (3, Duration::from_secs(1)),
        }
    }
}

type Hash = [u8; 16];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    scope: Scope,
    hash: Hash,
}

#[derive(Debug, Clone, Copy)]
struct Account {
    used: u32,
    /// Of those, the ones of which it is not known yet whether they were right.
    undecided: u32,
    since: Instant,
}

impl Account {
    /// What is left of it at `now`.
    fn at(self, now: Instant, interval: Duration) -> Self {
        let passed = now.saturating_duration_since(self.since).as_millis() / interval.as_millis();
        let back = u32::try_from(passed).unwrap_or(u32::MAX).min(self.used);
        Self {
            used: self.used.saturating_sub(back),
            since: self
                .since
                .checked_add(interval.saturating_mul(back))
                .unwrap_or(now),
            ..self
        }
    }
}

/// The identity behind a name: one user has one count, by whatever name it is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// The id of a user that there is.
    User(&'a str),
    /// A name that nobody has.
    Nobody(&'a str),
}

fn hash(subject: Option<Subject<'_>>, address: Option<IpAddr>) -> Hash {
    let (kind, text) = match subject {
        Some(Subject::User(id)) => ("user", id),
        Some(Subject::Nobody(name)) => ("name", name),
        None => ("", ""),
    };
    let address = address.map_or_else(String::new, |address| share(address).to_string());
    let digest = Sha256::new()
        .chain_update(format!("{kind}\0{address}\0"))
        .chain_update(text)
        .finalize();
    let mut short = Hash::default();
    for (to, from) in short.iter_mut().zip(digest) {
        *to = from;
    }
    short
}

#[derive(Debug, Default)]
struct Inner {
    accounts: HashMap<Key, Account>,
    /// When the right password last came, by the hash of user and address.
    known: HashMap<Hash, Instant>,
}

/// There is no attempt free.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    /// When there will be one.
    wait: Duration,
    /// One may be free before, if an attempt that goes on turns out to be right.
    undecided: bool,
}

impl Inner {
    fn account(&self, key: Key, now: Instant) -> Account {
        let (_, interval) = key.scope.limit();
        let unused = Account {
            used: 0,
            undecided: 0,
            since: now,
        };
        self.accounts
            .get(&key)
            .map_or(unused, |account| account.at(now, interval))
    }

    /// Returns whether one more is free.
    fn check(&self, key: Key, now: Instant) -> Result<(), Refusal> {
        let (free, interval) = key.scope.limit();
        let account = self.account(key, now);
        if account.used < free {
            return Ok(());
        }
        Err(Refusal {
            wait: interval.saturating_sub(now.saturating_duration_since(account.since)),
            undecided: account.undecided > 0,
        })
    }

    fn count(&mut self, key: Key, now: Instant) {
        let mut account = self.account(key, now);
        if account.used == 0 {
            account.since = now;
        }
        account.used = account.used.saturating_add(1);
        account.undecided = account.undecided.saturating_add(1);
        if self.accounts.len() >= ENTRIES && !self.accounts.contains_key(&key) {
            self.make_room(now);
        }
        self.accounts.insert(key, account);
    }

    fn make_room(&mut self, now: Instant) {
        self.accounts.retain(|key, account| {
            let (_, interval) = key.scope.limit();
            account.undecided > 0 || account.at(now, interval).used > 0
        });
        // Some at once, so that this is not done for each.
        while self.accounts.len() >= ENTRIES {
            let mut order: Vec<(u32, Instant, Key)> = self
                .accounts
                .iter()
                .map(|(key, account)| (account.used, account.since, *key))
                .collect();
            order.sort_by_key(|(used, since, _)| (*used, *since));
            for (_, _, key) in order.iter().take(ENTRIES / 100) {
                self.accounts.remove(key);
            }
        }
    }

    fn remember(&mut self, pair: Hash, now: Instant) {
        if self.known.len() >= KNOWN && !self.known.contains_key(&pair) {
            let oldest = self.known.iter().min_by_key(|(_, since)| **since);
            if let Some(oldest) = oldest.map(|(hash, _)| *hash) {
                self.known.remove(&oldest);
            }
        }
        self.known.insert(pair, now);
    }
}

/// The attempts of late.
#[derive(Debug, Clone, Default)]
pub struct Attempts(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    /// Told when it is known of an attempt whether it was right.
    decided: Notify,
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An attempt that was counted, and of which it is not known whether it was right: then it was
/// wrong.
#[derive(Debug)]
pub struct Attempt {
    shared: Arc<Shared>,
    keys: Vec<Key>,
    pair: Hash,
    /// More than are free: only the right password is answered otherwise than by that.
    pub beyond: bool,
}

impl Attempts {
    /// Counts an attempt for `subject` from `address`. While others go on that may turn out to be
    /// right it waits for them, up to [`PATIENCE`].
    ///
    /// # Errors
    /// None is free; how long to wait.
    pub async fn begin(&self, subject: Subject<'_>, address: IpAddr) -> Result<Attempt, Duration> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let mut decided = std::pin::pin!(self.0.decided.notified());
            decided.as_mut().enable();
            match self.count(subject, address, Instant::now()) {
                Ok(attempt) => return Ok(attempt),
                Err(refusal) if refusal.undecided => {
                    if timeout_at(deadline, decided).await.is_err() {
                        return Err(refusal.wait);
                    }
                }
                Err(refusal) => return Err(refusal.wait),
            }
        }
    }

    fn count(
        &self,
        subject: Subject<'_>,
        address: IpAddr,
        now: Instant,
    ) -> Result<Attempt, Refusal> {
        let pair = hash(Some(subject), Some(address));
        let key = |scope, hash| Key { scope, hash };
        let mut inner = self.0.inner();
        let known = inner
            .known
            .get(&pair)
            .is_some_and(|since| now.saturating_duration_since(*since) < REMEMBERED);
        let mut keys = vec![
            key(Scope::Pair, pair),
            key(Scope::Address, hash(None, Some(address))),
        ];
        if !known {
            keys.push(key(Scope::User, hash(Some(subject), None)));
        }
        let refusal = keys
            .iter()
            .filter_map(|key| inner.check(*key, now).err())
            .max_by_key(|refusal| refusal.wait);
        let mut beyond = false;
        if let Some(refusal) = refusal {
            let familiar = key(Scope::Familiar, pair);
            // Those that go on are waited for first: their password may be the right one.
            if !known || refusal.undecided || inner.check(familiar, now).is_err() {
                return Err(refusal);
            }
            beyond = true;
            keys = vec![familiar];
        }
        for key in &keys {
            inner.count(*key, now);
        }
        Ok(Attempt {
            shared: Arc::clone(&self.0),
            keys,
            pair,
            beyond,
        })
    }
}

impl Attempt {
    /// The password was right: it is as if there had been no attempt, and none before from there.
    pub fn right(self) {
        let mut inner = self.shared.inner();
        self.give_back(&mut inner);
        for scope in [Scope::Pair, Scope::Familiar] {
            let key = Key {
                scope,
                hash: self.pair,
            };
            if let Some(account) = inner.accounts.get_mut(&key) {
                // Those that go on are still counted.
                account.used = account.used.min(account.undecided.saturating_sub(1));
            }
        }
        inner.remember(self.pair, Instant::now());
    }

    /// The password was not looked at.
    pub fn undone(self) {
        self.give_back(&mut self.shared.inner());
    }

    fn give_back(&self, inner: &mut Inner) {
        for key in &self.keys {
            if let Some(account) = inner.accounts.get_mut(key) {
                account.used = account.used.saturating_sub(1);
            }
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut inner = self.shared.inner();
        for key in &self.keys {
            if let Some(account) = inner.accounts.get_mut(key) {
                account.undecided = account.undecided.saturating_sub(1);
            }
        }
        drop(inner);
        self.shared.decided.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Subject<'_> = Subject::User("alice");

    fn address(number: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + number).into())
    }

    /// An attempt that turns out to be wrong; whether it was looked at.
    fn wrong(attempts: &Attempts, subject: Subject<'_>, number: u32, now: Instant) -> bool {
        attempts.count(subject, address(number), now).is_ok()
    }

    #[test]
    fn the_free_ones_are_used_up_and_come_back_one_by_one() {
        let attempts = Attempts::default();
        let start = Instant::now();
        let (free, interval) = Scope::Pair.limit();
        for _ in 0..free {
            assert!(wrong(&attempts, ALICE, 1, start));
        }
        let refusal = attempts.count(ALICE, address(1), start).unwrap_err();
        assert_eq!(refusal.wait, interval);
        assert!(!refusal.undecided);
        assert!(wrong(&attempts, Subject::User("bob"), 1, start));
        assert!(wrong(&attempts, ALICE, 2, start));
        let later = start + interval;
        assert!(wrong(&attempts, ALICE, 1, later));
        assert!(!wrong(&attempts, ALICE, 1, later));
    }

    #[test]
    fn the_right_one_forgives_what_came_from_the_same_address() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let (free, _) = Scope::Pair.limit();
        for turn in 0..free * 5 {
            if turn % 2 == 0 {
                assert!(wrong(&attempts, ALICE, 1, now));
            } else {
                attempts.count(ALICE, address(1), now).unwrap().right();
            }
        }
    }

    #[test]
    fn attempts_at_once_are_all_counted() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let (free, _) = Scope::Pair.limit();
        let mut going_on: Vec<Attempt> = (0..free)
            .map(|_| attempts.count(ALICE, address(1), now).unwrap())
            .collect();
        assert!(
            attempts
                .count(ALICE, address(1), now)
                .unwrap_err()
                .undecided
        );
        going_on.pop().unwrap().right();
        // The others that go on are counted still.
        let more = attempts.count(ALICE, address(1), now).unwrap();
        assert!(attempts.count(ALICE, address(1), now).is_err());
        more.undone();
        assert!(attempts.count(ALICE, address(1), now).is_ok());
    }

    #[test]
    fn an_address_and_a_user_have_limits_of_their_own() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let names: Vec<String> = (0..200).map(|number| number.to_string()).collect();
        let looked_at = names
            .iter()
            .filter(|name| wrong(&attempts, Subject::Nobody(name), 1, now))
            .count();
        assert_eq!(looked_at, 100);
        assert!(wrong(&attempts, Subject::Nobody("5"), 2, now));
        let looked_at = (10..400)
            .filter(|number| wrong(&attempts, ALICE, *number, now))
            .count();
        assert_eq!(looked_at, 100);
        assert!(wrong(&attempts, Subject::User("bob"), 10, now));
    }

    #[test]
    fn an_address_that_the_right_password_came_from_is_never_shut_out() {
        let attempts = Attempts::default();
        let now = Instant::now();
        attempts.count(ALICE, address(1), now).unwrap().right();
        // From everywhere.
        while (10..400).any(|number| wrong(&attempts, ALICE, number, now)) {}
        assert!(!attempts.count(ALICE, address(1), now).unwrap().beyond);
        // From the same address.
        while wrong(&attempts, ALICE, 1, now) {}
        let (_, interval) = Scope::Familiar.limit();
        let later = now + interval;
        let attempt = attempts.count(ALICE, address(1), later).unwrap();
        assert!(attempt.beyond);
        drop(attempt);
        assert!(!wrong(&attempts, ALICE, 1, later));
        // Not for ever.
        let long_after = now + REMEMBERED;
        while wrong(&attempts, ALICE, 1, long_after) {}
        assert!(!wrong(&attempts, ALICE, 1, long_after + interval));
    }

    #[test]
    fn memory_is_bounded_and_the_busy_are_not_forgotten() {
        let attempts = Attempts::default();
        let now = Instant::now();
        while wrong(&attempts, ALICE, 1, now) {}
        for number in 0..ENTRIES + 100 {
            let number = u32::try_from(number).unwrap();
            let name = "x".repeat(1000) + &number.to_string();
            let subject = Subject::Nobody(&name);
            attempts.count(subject, address(number + 2), now).unwrap();
            attempts
                .count(subject, address(number + 2), now)
                .unwrap()
                .right();
        }
        let inner = attempts.0.inner();
        assert!(inner.accounts.len() <= ENTRIES);
        assert!(inner.known.len() <= KNOWN);
        drop(inner);
        assert!(!wrong(&attempts, ALICE, 1, now));
        assert!(size_of::<(Key, Account)>() < 100);
    }
}
