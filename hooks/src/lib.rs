//! What Ganeti runs on instance operations: network state, neighbour clean-up, image progress.
//!
//! Two programs, neither of which ever waits for the network: what they have to tell they
//! leave in the outbox, from where eventd publishes it.
//!
//! - `snf-ganeti-hook` ([`hook`]): a Ganeti hook, found through links in
//!   `/etc/ganeti/hooks/*-post.d/`
//! - `snf-progress-monitor` ([`progress`]): reads what an image deployment tells

pub mod arguments;
pub mod config;
pub mod dns;
pub mod hook;
pub mod neighbours;
pub mod net_status;
pub mod progress;
