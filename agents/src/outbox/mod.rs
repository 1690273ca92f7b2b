//! The outbox: a spool directory in which a message waits for the broker.
//!
//! Hooks leave their message here and end; eventd publishes what it finds and removes it when
//! the broker has confirmed it. eventd also spools its own messages here while the broker is
//! away.
//!
//! One file has one message, or a batch of them, one a line, each a JSON object
//! ([`Entry`]): `jq . /var/spool/snf-agents/*.json` shows them. A file appears whole (written
//! under a name that begins with `.`, synced, renamed) and is never changed afterwards. The
//! order of the names is the order of publishing.

mod consumer;
mod dns;
mod entry;
mod limits;
mod name;
mod producer;

pub use consumer::{BadFile, Outbox, ReadError, Usage};
pub use dns::{DNS_FOLDER, DnsChange};
pub use entry::{Class, Entry};
pub use limits::{Limits, Trimmed};
pub use name::{FileName, Kind};
pub use producer::Producer;

/// Where the outbox is unless configured otherwise.
pub const DEFAULT_FOLDER: &str = "/var/spool/snf-agents";

#[cfg(test)]
mod tests;
