//! The message about an operation on a network.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::EventTime;

/// An operation on a network has a new status, or its log a new line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkMessage {
    /// When the operation got this status, by the master's clock.
    pub event_time: EventTime,
    /// The network's name.
    pub network: String,
    /// The opcode: `OP_NETWORK_ADD`, `OP_NETWORK_CONNECT`, …
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
    /// Of the operation's input.
    #[serde(default)]
    pub job_fields: NetworkFields,
}

/// What a network message says of the operation's input; null where it had none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NetworkFields {
    /// The IPv4 subnet of an add (Ganeti's input calls it `network`).
    #[serde(default)]
    pub subnet: Option<String>,
    /// The IPv4 gateway of an add or a modify.
    #[serde(default)]
    pub gateway: Option<String>,
    /// Addresses that the operation reserves.
    #[serde(default)]
    pub add_reserved_ips: Option<Vec<String>>,
    /// Addresses that the operation frees.
    #[serde(default)]
    pub remove_reserved_ips: Option<Vec<String>>,
    /// The node group of a connect or disconnect.
    #[serde(default)]
    pub group_name: Option<String>,
}
