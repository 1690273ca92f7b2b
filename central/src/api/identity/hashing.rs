//! The hashing of passwords, of which only so much goes on at once: each hash takes 19 MiB and
//! tens of milliseconds of a processor, by design.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::passwords;
use crate::api::fault::Fault;

/// The most hashes at once, however many processors there are.
const MOST: usize = 8;
/// The most that wait, for each that is being made.
const WAITING: usize = 64;
/// The longest wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// One place for each hash that may be made at once, and the queue in front of them.
#[derive(Debug)]
pub struct Hashing {
    places: Arc<Semaphore>,
    queue: Semaphore,
}

impl Default for Hashing {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let places = processors.clamp(1, MOST);
        Self {
            places: Arc::new(Semaphore::new(places)),
            queue: Semaphore::new(places.saturating_mul(WAITING)),
        }
    }
}

impl Hashing {
    /// Returns whether `password` is the one that was hashed; takes as long without a hash.
    ///
    /// # Errors
    /// 503: too many wait already, or this one has waited too long; nothing was hashed.
    pub async fn matches(&self, password: &str, hash: Option<String>) -> Result<bool, Fault> {
        let busy = || Fault::unavailable("too many logins at once; try again");
        let waiting = self.queue.try_acquire().map_err(|_| busy())?;
        let place = timeout(PATIENCE, Arc::clone(&self.places).acquire_owned())
            .await
            .map_err(|_| busy())?
            .map_err(Fault::internal)?;
        drop(waiting);
        let password = password.to_owned();
        tokio::task::spawn_blocking(move || {
            // The place is taken for as long as the hashing goes on, even if nobody waits any more.
            let _place = place;
            passwords::matches(&password, hash.as_deref())
        })
        .await
        .map_err(Fault::internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fault::Kind;

    #[tokio::test]
    async fn who_finds_the_queue_full_or_waits_too_long_is_told() {
        let hashing = Hashing {
            places: Arc::new(Semaphore::new(1)),
            queue: Semaphore::new(1),
        };
        let place = Arc::clone(&hashing.places).acquire_owned().await.unwrap();
        let start = tokio::time::Instant::now();
        let (first, second) = tokio::join!(hashing.matches("a", None), hashing.matches("b", None));
        assert!(start.elapsed() >= PATIENCE);
        for refused in [first, second] {
            assert_eq!(refused.unwrap_err().kind, Kind::ServiceUnavailable);
        }
        drop(place);
        assert!(!hashing.matches("a", None).await.unwrap());
        let hash = passwords::hash("a").unwrap();
        assert!(hashing.matches("a", Some(hash)).await.unwrap());
    }
}
