//! One message in the outbox.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::message::{EventId, EventTime, Message, RoutingKey};

/// What becomes of a message when the outbox is full: the lowest class is dropped first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// The next one replaces it: image progress, a job's log line. Dropped first.
    Progress,
    /// A state on the way: queued, waiting, running. Dropped next.
    Status,
    /// How something ended, and what NICs an instance has. Never dropped.
    Final,
}

/// One message in the outbox: the body and what AMQP needs beside it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// The AMQP `message_id`.
    pub id: EventId,
    /// Where it goes.
    pub key: RoutingKey,
    /// When it was made: the AMQP `timestamp`.
    pub time: EventTime,
    /// What becomes of it when the outbox is full.
    pub class: Class,
    /// The cluster's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The node and the program that made it: `node1.gnt.lab/snf-ganeti-hook`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// True if it is about an operation that was only tried (`--dry-run`): the AMQP header
    /// `x-dry-run`. The bodies of most messages do not say so.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// The broker's reason for a refusal for good: the message is a dead letter then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The body, as it will be sent.
    pub body: Box<RawValue>,
}

impl Entry {
    /// An entry for `message`, made now.
    ///
    /// # Errors
    /// The message cannot be written as JSON, which none of ours can cause.
    pub fn new(id: EventId, class: Class, message: &Message) -> Result<Self, serde_json::Error> {
        Ok(Self {
            id,
            key: message.routing_key(),
            time: EventTime::now(),
            class,
            cluster: None,
            origin: None,
            dry_run: false,
            refused: None,
            body: serde_json::value::to_raw_value(message)?,
        })
    }

    /// The bytes of the body.
    pub fn body_bytes(&self) -> &[u8] {
        self.body.get().as_bytes()
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
            && self.key == other.key
            && self.time == other.time
            && self.class == other.class
            && self.cluster == other.cluster
            && self.origin == other.origin
            && self.dry_run == other.dry_run
            && self.refused == other.refused
            && self.body.get() == other.body.get()
    }
}
