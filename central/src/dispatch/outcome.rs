//! What becomes of a message.

use sea_orm::DbErr;

use crate::ganeti::measurement::MeasureError;
use crate::ganeti::rapi::RapiError;

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Applied {
    /// It changed something.
    Yes,
    /// It is older than what is known, or a repetition.
    Stale,
    /// It is about an object that is not ours, or no more.
    NotOurs,
    /// Ganeti only tried the operation: nothing has changed.
    DryRun,
    /// Another cluster has an object of this name: it is not about ours.
    OtherCluster,
}

/// Why a message was not applied.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// It fails always: it is for the dead-letter queue, with this reason.
    #[error("{0}")]
    Poison(String),
    /// The database or the cluster failed: it is to be tried again.
    #[error("{0}")]
    Transient(String),
    /// A cluster must be asked, which was not to be done now ([`Asking::Later`]).
    #[error("the cluster must be asked")]
    MustAsk,
}

/// Whether a cluster may be asked for what a message does not say. It may take long to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    Now,
    /// [`RouteError::MustAsk`] says that it has to be.
    Later,
}

impl From<DbErr> for RouteError {
    fn from(error: DbErr) -> Self {
        Self::Transient(format!("database: {error}"))
    }
}

impl From<RapiError> for RouteError {
    fn from(error: RapiError) -> Self {
        Self::Transient(error.to_string())
    }
}

impl From<MeasureError> for RouteError {
    fn from(error: MeasureError) -> Self {
        match error {
            MeasureError::Rapi(error) => error.into(),
            MeasureError::Database(error) => error.into(),
        }
    }
}
