//! Routing keys in the topic exchange.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::ganeti::names::prefix_of;

/// The exchange that all messages go to: a durable topic exchange.
pub const EXCHANGE: &str = "ganeti";

/// AMQP's limit for a routing key, in bytes.
const KEY_LIMIT: usize = 255;

/// What a message is about: the last word of its routing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Operations on instances.
    Op,
    /// Operations on networks.
    Network,
    /// NICs of instances, from hooks.
    Net,
    /// Image deployments.
    Progress,
}

impl Topic {
    fn word(self) -> &'static str {
        match self {
            Self::Op => "op",
            Self::Network => "network",
            Self::Net => "net",
            Self::Progress => "progress",
        }
    }
}

/// A routing key: `ganeti.<prefix>.event.<topic>`, `ganeti.event.cluster` or
/// `eventd.heartbeat`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct RoutingKey(String);

impl<'de> Deserialize<'de> for RoutingKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let key = String::deserialize(deserializer)?;
        if key.is_empty() || key.len() > KEY_LIMIT {
            let length = key.len();
            return Err(de::Error::custom(format_args!(
                "a routing key of {length} bytes: must be 1 to {KEY_LIMIT}"
            )));
        }
        Ok(Self(key))
    }
}

impl RoutingKey {
    /// The key of messages about the instance or network `name`.
    pub fn of(topic: Topic, name: &str) -> Self {
        Self::for_prefix(topic, prefix_of(name))
    }

    /// The key of all messages about objects whose names have this prefix: what a consumer
    /// binds its queue with.
    pub fn for_prefix(topic: Topic, prefix: &str) -> Self {
        let mut key = format!("ganeti.{prefix}.event.{}", topic.word());
        // A name without `-` is all prefix and may be as long as a host name.
        let surplus = key.len().saturating_sub(KEY_LIMIT);
        if surplus > 0 {
            let end = prefix.floor_char_boundary(prefix.len().saturating_sub(surplus));
            let prefix = prefix.get(..end).unwrap_or_default();
            key = format!("ganeti.{prefix}.event.{}", topic.word());
        }
        Self(key)
    }

    /// The key of messages about the cluster.
    pub fn cluster() -> Self {
        Self("ganeti.event.cluster".to_owned())
    }

    /// The key of heartbeats.
    pub fn heartbeat() -> Self {
        Self("eventd.heartbeat".to_owned())
    }

    /// The key as AMQP wants it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoutingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
