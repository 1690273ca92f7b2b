//! The heartbeat of an eventd: it says that the way from a job file to us is open.

use agents::message::HeartbeatMessage;

use super::outcome::Applied;

/// Notes a heartbeat.
pub fn apply(message: &HeartbeatMessage) -> Applied {
    tracing::debug!(cluster = %message.cluster, "heartbeat");
    Applied::Yes
}
