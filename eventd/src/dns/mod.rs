//! The names of instances in the DNS: what hooks left in the outbox becomes RFC 2136 updates.

mod exchange;
mod update;
mod worker;

pub use update::Zones;
pub use worker::start;
