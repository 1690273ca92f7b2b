//! The answer to a dispatcher that asks whether eventd is alive.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::EventTime;

/// A dispatcher asked by setting, in a dry run, a cluster tag that begins with
/// `snf:eventd:heartbeat`; this is what eventd answers when it sees that job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeartbeatMessage {
    /// When the job began to wait for its locks, by the master's clock.
    pub event_time: EventTime,
    /// The opcode of the question: `OP_TAGS_SET`.
    pub operation: String,
    /// The status of the question's job: `waiting`.
    pub status: String,
    /// The number of the question's job.
    #[serde(rename = "jobId")]
    pub job_id: u64,
    /// The cluster's name.
    pub cluster: String,
    /// The newest line of the operation's log, if there is one.
    #[serde(default)]
    pub logmsg: Value,
    /// Null: the question's job has not run.
    #[serde(default)]
    pub result: Value,
}
