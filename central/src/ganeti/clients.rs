//! The RAPI clients, one for each cluster, made when first needed and kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::rapi::{Rapi, RapiError};
use crate::model::entity::backend;

type Key = (String, String, String, Option<String>, bool);

/// Keeps a client for each backend as long as the backend's row stays as it is.
pub struct Clients {
    timeout: Duration,
    known: Mutex<HashMap<i64, (Key, Arc<Rapi>)>>,
}

impl Clients {
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            known: Mutex::default(),
        }
    }

    /// How long one call may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
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
