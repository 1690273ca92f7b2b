//! What an event of a job means for its server: pure, without a database.

use super::register::{self, JobStatus, Order};
use crate::model::entity::server;

pub const BUILD: &str = "BUILD";
pub const STARTED: &str = "STARTED";
pub const STOPPED: &str = "STOPPED";
pub const ERROR: &str = "ERROR";

/// An event about an operation on an instance.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    pub order: Order,
    pub status: JobStatus,
    /// `OP_INSTANCE_CREATE` …
    pub opcode: &'a str,
    /// It brought the instance's NICs along.
    pub has_nics: bool,
    /// It brought new processors or memory along.
    pub has_shape: bool,
    /// The cluster was asked and does not have the instance (any more).
    pub gone: bool,
}

/// What is to be changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The event is the newest one: show it.
    pub job: bool,
    /// The new state.
    pub state: Option<&'static str>,
    /// What the user waited for is over.
    pub task_over: bool,
    /// The NICs are to be made what the event says.
    pub nics: bool,
    /// The flavor is to be made what the event says.
    pub shape: bool,
    /// The creation has failed.
    pub failed: bool,
    /// The server is no more.
    pub removed: bool,
}

/// Compares an event with what is known of its server.
pub fn decide(server: &server::Model, event: &Event<'_>) -> Change {
    if server.deleted_at.is_some() {
        return Change::default();
    }
    let success = event.status == JobStatus::Success;
    let fails = matches!(event.status, JobStatus::Error | JobStatus::Canceled);
    let mut change = Change {
        job: event.order > register::job(server),
        task_over: event.status.is_final()
            && server.task_job.is_some_and(|job| job <= event.order.job),
        ..Change::default()
    };
    if event.opcode == "OP_INSTANCE_REMOVE" && (success || fails && event.gone) {
        change.removed = true;
        change.task_over = true;
        return change;
    }
    if event.order > register::state(server) {
        change.state = match event.opcode {
            "OP_INSTANCE_CREATE" if fails => Some(ERROR),
            "OP_INSTANCE_CREATE" | "OP_INSTANCE_STARTUP" | "OP_INSTANCE_REBOOT" if success => {
                Some(STARTED)
            }
            "OP_INSTANCE_SHUTDOWN" if success => Some(STOPPED),
            _ => None,
        };
        change.failed = change.state == Some(ERROR);
    }
    change.nics = event.has_nics && event.status.is_final() && event.order > register::nics(server);
    change.shape = event.has_shape && success && event.order > register::shape(server);
    change
}
