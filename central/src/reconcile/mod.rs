//! Keeping the database right where events could not: without a broker, after losses, and after
//! somebody has changed something behind our back.
//!
//! `pending` asks clusters for what they could not be asked for at once; `polling` follows jobs by
//! asking for them. The reconciler looks at everything a cluster has,
//! `seen`, and at what the database has of it, `known`; `compare` tells the differences, `memory`
//! which of them are acted on, `repair` acts. `pass` does all that for every cluster, `leader` at
//! an interval, in one process of all.

pub mod adoption;
pub mod compare;
pub mod difference;
pub mod known;
pub mod leader;
pub mod lease;
pub mod memory;
pub mod pass;
pub mod pending;
pub mod polling;
pub mod pools;
pub mod repair;
pub mod seen;
#[cfg(test)]
mod tests;
