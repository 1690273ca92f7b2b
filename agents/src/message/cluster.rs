//! The message about an operation on the cluster itself.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::EventTime;

/// An operation on the cluster (`OP_CLUSTER_SET_PARAMS`) has a new status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterMessage {
    /// When the operation got this status, by the master's clock.
    pub event_time: EventTime,
    /// The opcode.
    pub operation: String,
    /// As in [`OpMessage::status`](super::OpMessage::status).
    pub status: String,
    /// The number of the Ganeti job.
    #[serde(rename = "jobId")]
    pub job_id: u64,
    /// The cluster's name.
    pub cluster: String,
    /// The newest line of the operation's log, if there is one.
    #[serde(default)]
    pub logmsg: Value,
    /// What the operation returned, or `[error class, [arguments…]]`; null until it ended.
    #[serde(default)]
    pub result: Value,
}
