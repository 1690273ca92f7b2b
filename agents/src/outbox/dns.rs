//! A change of an instance's names in the DNS, on its way from a hook to eventd.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The folder in the outbox where changes of the DNS wait.
pub const DNS_FOLDER: &str = "dns";

/// What the DNS should say of an instance. Carried out twice it is the same as once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsChange {
    /// The instance's name: a host name, with or without its domain.
    pub name: String,
    /// All addresses that the name has from now on; none takes the name away.
    pub addresses: Vec<IpAddr>,
    /// Addresses that it had before and has no longer.
    pub gone: Vec<IpAddr>,
}
