//! The message with which a hook tells an instance's NICs.

use serde::{Deserialize, Serialize};

use super::EventTime;

/// The NICs of an instance, as a Ganeti hook saw them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetMessage {
    /// When the hook ran, by its node's clock.
    pub event_time: EventTime,
    /// The instance's name.
    pub instance: String,
    /// Its NICs, in their order.
    pub nics: Vec<NetNic>,
}

/// One NIC in a [`NetMessage`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetNic {
    /// Its name, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its address, if it has one (the original sends an empty one otherwise).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The address that it makes itself from its network's prefix and its MAC address
    /// (EUI-64), if its network has a prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
    /// Its MAC address.
    pub mac: String,
    /// The bridge or routing table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// The name of its network, if it is in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// `protected`, `limited` or `unprotected`, if the instance has a firewall tag for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall: Option<String>,
}
