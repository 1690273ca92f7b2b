//! From messages to the broker: over the connection if there is one, else through the outbox.

mod broker;
mod confirms;
mod host;
mod kept;
mod outage;
mod refusal;
mod relay;

pub use broker::{Broker, BrokerError, Link, connect};
pub use host::{Backoff, Host};
pub use kept::{Bounds, DEAD_LETTERS, PARKED, REFUSED, Subject};
pub use outage::Outage;
pub use refusal::{Fault, Refusal};
pub use relay::{Next, Relay, Settings};
