//! The AMQP messages and their routing keys: the contract between the agents and the
//! dispatcher.
//!
//! Every message is one JSON object; its `type` says which. The fields are those that the
//! Synnefo agents sent, so that either side can be exchanged for the original. Unknown fields
//! are tolerated on reading: they are for those who know them.

mod cluster;
mod event_time;
mod field;
mod heartbeat;
mod id;
mod net;
mod network;
mod op;
mod progress;
mod routing;

pub use cluster::ClusterMessage;
pub use event_time::EventTime;
pub use field::WrongField;
pub use heartbeat::HeartbeatMessage;
pub use id::EventId;
pub use net::{NetMessage, NetNic};
pub use network::{NetworkFields, NetworkMessage};
pub use op::{InstanceDisk, InstanceHvparams, InstanceNic, OpMessage};
pub use progress::ProgressMessage;
pub use routing::{EXCHANGE, RoutingKey, Topic};

use serde::{Deserialize, Serialize};

use crate::json_object;

/// The longest body that is parsed, in bytes. Ganeti puts whole command outputs into results,
/// but nothing of ours comes near this.
pub const BODY_LIMIT: usize = 16 << 20;

/// A message of any type.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type")]
pub enum Message {
    /// An operation on an instance has a new status: `ganeti-op-status`.
    #[serde(rename = "ganeti-op-status")]
    Op(Box<OpMessage>),
    /// An operation on a network has a new status: `ganeti-network-status`.
    #[serde(rename = "ganeti-network-status")]
    Network(Box<NetworkMessage>),
    /// What NICs an instance has, as a hook saw them: `ganeti-net-status`.
    #[serde(rename = "ganeti-net-status")]
    Net(NetMessage),
    /// An operation on the cluster itself has a new status: `ganeti-cluster-status`.
    #[serde(rename = "ganeti-cluster-status")]
    Cluster(ClusterMessage),
    /// The answer to a dispatcher asking whether we are alive: `eventd-heartbeat`.
    #[serde(rename = "eventd-heartbeat")]
    Heartbeat(HeartbeatMessage),
    /// An image deployment has something to tell: `image-copy-progress`, `image-error`, …
    #[serde(untagged)]
    Progress(ProgressMessage),
}

/// Why a body is not a message. The text names the field and the value where there is one.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// More than [`BODY_LIMIT`] bytes.
    #[error("message of {0} bytes: more than {BODY_LIMIT}")]
    TooLong(usize),
    /// Not a JSON object with a string `type`.
    #[error("not a message: {}{}", prefix(.field), reason(.source))]
    Shape {
        /// The `type`, if that is what is wrong.
        field: Option<WrongField>,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A `type` that is none of ours.
    #[error("unknown message type {0:?}")]
    UnknownType(String),
    /// A field is missing or has a wrong value.
    #[error("{kind} message: {}{}", prefix(.field), reason(.source))]
    Field {
        /// The message's `type`.
        kind: String,
        /// Which field has a wrong value; none if one is missing, which `source` names.
        field: Option<WrongField>,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// serde repeats a wrong text whole; it may be as long as the message.
fn reason(error: &serde_json::Error) -> String {
    const SHOWN: usize = 200;
    let whole = error.to_string();
    let mut shown: String = whole.chars().take(SHOWN).collect();
    if shown.len() < whole.len() {
        shown.push('…');
    }
    shown
}

fn prefix(field: &Option<WrongField>) -> String {
    field
        .as_ref()
        .map(|field| format!("{field}: "))
        .unwrap_or_default()
}

impl Message {
    /// Parses the body of an AMQP message.
    ///
    /// # Errors
    /// See [`MessageError`]. A body that fails here fails always: it is for the dead-letter
    /// queue, never for a retry.
    pub fn parse(body: &[u8]) -> Result<Self, MessageError> {
        #[derive(Deserialize)]
        struct Kind {
            r#type: String,
        }
        fn read<'a, T: Deserialize<'a>>(kind: &str, body: &'a [u8]) -> Result<T, MessageError> {
            serde_json::from_slice(body).map_err(|source| MessageError::Field {
                kind: kind.to_owned(),
                field: WrongField::find::<T>(body),
                source,
            })
        }
        if body.len() > BODY_LIMIT {
            return Err(MessageError::TooLong(body.len()));
        }
        let Kind { r#type: kind } =
            json_object::from_slice(body, "a message").map_err(|source| MessageError::Shape {
                field: WrongField::find::<Kind>(body),
                source,
            })?;
        Ok(match kind.as_str() {
            "ganeti-op-status" => Self::Op(Box::new(read(&kind, body)?)),
            "ganeti-network-status" => Self::Network(Box::new(read(&kind, body)?)),
            "ganeti-net-status" => Self::Net(read(&kind, body)?),
            "ganeti-cluster-status" => Self::Cluster(read(&kind, body)?),
            "eventd-heartbeat" => Self::Heartbeat(read(&kind, body)?),
            progress if progress.starts_with(progress::TYPE_PREFIX) => {
                Self::Progress(read(&kind, body)?)
            }
            _ => return Err(MessageError::UnknownType(kind)),
        })
    }

    /// The body of the AMQP message.
    pub fn to_body(&self) -> Vec<u8> {
        // Only maps with other keys than strings and failing writers make this fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Where the message goes.
    pub fn routing_key(&self) -> RoutingKey {
        match self {
            Self::Op(op) => RoutingKey::of(Topic::Op, &op.instance),
            Self::Network(network) => RoutingKey::of(Topic::Network, &network.network),
            Self::Net(net) => RoutingKey::of(Topic::Net, &net.instance),
            Self::Progress(progress) => RoutingKey::of(Topic::Progress, &progress.instance),
            Self::Cluster(_) => RoutingKey::cluster(),
            Self::Heartbeat(_) => RoutingKey::heartbeat(),
        }
    }
}

#[cfg(test)]
mod tests;
