//! What every handler has at hand.

use std::sync::Arc;

use sea_orm::DatabaseConnection;
use tokio::sync::Semaphore;

use super::identity::attempts::Attempts;
use super::identity::hashing::Hashing;
use super::identity::keystone::{Keystone, KeystoneError};
use super::known_tokens::KnownTokens;
use crate::config::Config;
use crate::ganeti::submission::Submitter;
use crate::listener::descriptors;
use crate::model::availability::Availability;

/// The API's state: shared by all requests, and nothing in it is about one of them.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    config: Config,
    ganeti: Arc<Submitter>,
    attempts: Attempts,
    hashing: Hashing,
    consoles: Arc<Semaphore>,
    known_tokens: KnownTokens,
    keystone: Option<Keystone>,
    availability: Availability,
}

impl Context {
    /// # Errors
    /// The external Keystone cannot be asked as it is configured.
    pub fn new(config: Config, ganeti: Arc<Submitter>) -> Result<Self, KeystoneError> {
        let keystone = config.keystone.clone().map(Keystone::new).transpose()?;
        let consoles = (config.connections.most / descriptors::CONSOLES).max(1);
        Ok(Self(Arc::new(Inner {
            config,
            ganeti,
            attempts: Attempts::default(),
            hashing: Hashing::default(),
            consoles: Arc::new(Semaphore::new(consoles)),
            known_tokens: KnownTokens::default(),
            keystone,
            availability: Availability::default(),
        })))
    }

    pub fn config(&self) -> &Config {
        &self.0.config
    }

    pub fn database(&self) -> &DatabaseConnection {
        &self.0.ganeti.database
    }

    /// The passwords of late.
    pub fn attempts(&self) -> &Attempts {
        &self.0.attempts
    }

    /// The hashing of passwords.
    pub fn hashing(&self) -> &Hashing {
        &self.0.hashing
    }

    /// A place for each console that may be open at once.
    pub fn consoles(&self) -> &Arc<Semaphore> {
        &self.0.consoles
    }

    /// The tokens of late.
    pub fn known_tokens(&self) -> &KnownTokens {
        &self.0.known_tokens
    }

    /// The external Keystone, if there is one.
    pub fn keystone(&self) -> Option<&Keystone> {
        self.0.keystone.as_ref()
    }

    /// The reachability of the database.
    pub fn availability(&self) -> &Availability {
        &self.0.availability
    }

    pub fn ganeti(&self) -> &Arc<Submitter> {
        &self.0.ganeti
    }
}
