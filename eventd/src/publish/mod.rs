//! From messages to the broker: over the connection if there is one, else through the outbox.

mod broker;
mod confirms;
mod host;
mod outage;
mod parked;
mod relay;

pub use broker::{Broker, BrokerError, Link, connect};
pub use host::{Backoff, Host};
pub use outage::Outage;
pub use parked::{FOLDER as PARKED, Parked};
pub use relay::{Next, Relay};
