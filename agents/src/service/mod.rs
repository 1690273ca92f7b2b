//! What every daemon and every command needs, whatever it does.

pub mod config;
pub mod environment;
pub mod journal;
pub mod log;
pub mod metrics;
pub mod notify;
