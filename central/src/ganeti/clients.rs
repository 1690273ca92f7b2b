//! The RAPI clients, one for each cluster, made when first needed and kept.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::rapi::{Rapi, RapiError};
use crate::model::entity::backend;

type Key = (String, String, String, Option<String>, bool);

/// The time for which a cluster that did not answer is not asked again on behalf of a request.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Keeps a client for each backend as long as the backend's row stays as it is.
pub struct Clients {
    timeout: Duration,
    known: Mutex<HashMap<i64, (Key, Arc<Rapi>)>>,
    /// The clusters that this process has held the database against.
    examined: Mutex<HashSet<i64>>,
    /// One request at a time does so, and the others wait for what it finds.
    examining: tokio::sync::Mutex<()>,
    /// When it last tried to, of the others.
    tried: Mutex<HashMap<i64, Instant>>,
}

impl Clients {
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            known: Mutex::default(),
            examined: Mutex::default(),
            examining: tokio::sync::Mutex::default(),
            tried: Mutex::default(),
        }
    }

    /// How long one call may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Returns whether this process has held the database against the cluster of a backend.
    pub fn is_examined(&self, backend: i64) -> bool {
        let examined = self.examined.lock();
        let examined = examined.unwrap_or_else(PoisonError::into_inner);
        examined.contains(&backend)
    }

    /// Notes that this process has done so.
    pub fn note_examined(&self, backend: i64) {
        let examined = self.examined.lock();
        let mut examined = examined.unwrap_or_else(PoisonError::into_inner);
        examined.insert(backend);
    }

    /// Waits until no other request examines clusters.
    pub async fn examining(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.examining.lock().await
    }

    /// Returns whether it is time to try again to examine a cluster that did not answer; notes that it
    /// is tried now.
    pub fn may_try(&self, backend: i64) -> bool {
        let tried = self.tried.lock();
        let mut tried = tried.unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let last = tried.get(&backend);
        let may = last.is_none_or(|last| now.saturating_duration_since(*last) > TRY_AGAIN);
        if may {
            tried.insert(backend, now);
        }
        may
    }

    /// The client for `backend`.
    ///
    /// # Errors
    /// [`RapiError::Configuration`].
    pub fn of(&self, backend: &backend::Model) -> Result<Arc<Rapi>, RapiError> {
        let key = (
            backend.url.clone(),
            backend.username.clone(),
            backend.password_file.clone(),
            backend.ca_file.clone(),
            backend.insecure,
        );
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made_for, client)) = known.get(&backend.id)
            && *made_for == key
        {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(Rapi::new(backend, self.timeout)?);
        known.insert(backend.id, (key, Arc::clone(&client)));
        Ok(client)
    }

    /// Forgets the client of a backend, as after a refused password: its file may have changed.
    pub fn forget(&self, backend: i64) {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&backend);
    }
}
