//! Tokens whose owners were looked up a moment ago: a client that sends many requests costs one
//! look-up every other second, not three statements each.
//!
//! What this process revokes is not good from then on. What another one changes, or somebody at a
//! shell, is noticed after [`FRESH`], and of tokens of the external Keystone after the time that
//! the configuration says.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::authorization::Role;
use crate::model::entity::{token, user};

/// How long what was looked up is good.
pub const FRESH: Duration = Duration::from_secs(2);
/// How many are remembered.
const MOST: usize = 10_000;

/// A token's owner.
#[derive(Clone)]
pub struct Identity {
    pub token: token::Model,
    pub user: user::Model,
    /// The role in the project of the token.
    pub role: Role,
    /// The external Keystone's, not ours.
    pub external: bool,
}

struct Known {
    identity: Arc<Identity>,
    since: Instant,
    life: Duration,
}

impl Known {
    fn is_good(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < self.life
    }
}

#[derive(Default)]
struct Inner {
    /// By the token's digest: whose, since when, and for how long.
    known: HashMap<String, Known>,
    /// How often something was revoked.
    revocations: u64,
}

/// The tokens, shared by all requests.
#[derive(Default)]
pub struct KnownTokens(Mutex<Inner>);

/// What was so when a look-up began.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    at: Instant,
    revocations: u64,
}

impl KnownTokens {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change is whole, whatever fell over beside it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The owner, if it was looked up a moment ago.
    pub fn get(&self, digest: &str, now: Instant) -> Option<Arc<Identity>> {
        let inner = self.inner();
        let known = inner.known.get(digest)?;
        known.is_good(now).then(|| Arc::clone(&known.identity))
    }

    /// To be called before a look-up.
    pub fn begin(&self, now: Instant) -> Begun {
        Begun {
            at: now,
            revocations: self.inner().revocations,
        }
    }

    /// Remembers for `life` what was looked up, unless something was revoked meanwhile: that may
    /// be it.
    pub fn put(&self, begun: Begun, digest: String, identity: Arc<Identity>, life: Duration) {
        let mut inner = self.inner();
        if inner.revocations != begun.revocations {
            return;
        }
        if inner.known.len() >= MOST && !inner.known.contains_key(&digest) {
            inner.known.retain(|_, known| known.is_good(begun.at));
            if inner.known.len() >= MOST {
                inner.known.clear();
            }
        }
        let known = Known {
            identity,
            since: begun.at,
            life,
        };
        inner.known.insert(digest, known);
    }

    /// These tokens are no longer good.
    pub fn revoke<'a>(&self, digests: impl IntoIterator<Item = &'a String>) {
        let mut inner = self.inner();
        inner.revocations = inner.revocations.wrapping_add(1);
        for digest in digests {
            inner.known.remove(digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::entity::{token, user};

    fn identity() -> Arc<Identity> {
        Arc::new(Identity {
            token: token::Model {
                digest: String::new(),
                user_id: String::new(),
                project_id: None,
                issued_at: 0,
                expires_at: i64::MAX,
                parent: None,
            },
            user: user::Model {
                id: String::new(),
                name: String::new(),
                email: None,
                password_hash: None,
                enabled: true,
                admin: false,
                project_id: String::new(),
                created_at: 0,
            },
            role: Role::Member,
            external: false,
        })
    }

    #[test]
    fn what_was_looked_up_is_good_for_a_moment() {
        let known = KnownTokens::default();
        let now = Instant::now();
        known.put(known.begin(now), "a".to_owned(), identity(), FRESH);
        assert!(known.get("a", now).is_some());
        assert!(known.get("b", now).is_none());
        assert!(known.get("a", now + FRESH).is_none());
    }

    #[test]
    fn what_was_revoked_is_not_good_even_if_it_was_being_looked_up() {
        let known = KnownTokens::default();
        let now = Instant::now();
        known.put(known.begin(now), "a".to_owned(), identity(), FRESH);
        let begun = known.begin(now);
        known.revoke(&["a".to_owned()]);
        assert!(known.get("a", now).is_none());
        known.put(begun, "a".to_owned(), identity(), FRESH);
        assert!(known.get("a", now).is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let known = KnownTokens::default();
        let now = Instant::now();
        for number in 0..MOST + 10 {
            known.put(known.begin(now), number.to_string(), identity(), FRESH);
        }
        assert!(known.inner().known.len() <= MOST);
        assert!(known.get(&(MOST + 9).to_string(), now).is_some());
    }
}
