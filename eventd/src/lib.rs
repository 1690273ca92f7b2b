//! Watches the Ganeti job queue and publishes job progress and instance state over AMQP.
//!
//! On the way of a message:
//!
//! - [`watch`]: inotify on the queue: a job file has a new version
//! - [`source`]: the file is read, [`cursor`] knows what was told of it before
//! - [`job`]: what is new becomes messages
//! - [`publish`]: they go to the broker, through the outbox while it is away
//! - [`serve`]: the loop around all this
//!
//! Only on the cluster's master ([`mastership`]) do jobs become messages; on every node, what
//! hooks left in the outbox is published.

pub mod args;
pub mod check;
pub mod config;
mod config_cache;
pub mod cursor;
mod cursor_writer;
pub mod dns;
pub mod id_set;
pub mod job;
mod lock;
pub mod mastership;
pub mod messages;
pub mod metrics;
mod pace;
pub mod print;
pub mod publish;
mod readiness;
pub mod replay;
pub mod serve;
mod shorten;
pub mod source;
pub mod status;
pub mod takeover;
pub mod watch;

pub use config_cache::ConfigCache;
