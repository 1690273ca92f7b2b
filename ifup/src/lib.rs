//! What Ganeti runs for each KVM NIC: from a bare TAP to a connected interface, in one step.
//!
//! The way of the data: Ganeti's environment, checked ([`request`]) → what the host is
//! ([`facts`]) → what is to be done ([`plan`], a pure function of the two) → done over
//! netlink ([`apply`]), and written down ([`record`]) so that it can be undone, looked after
//! and explained later.

pub mod announce;
pub mod apply;
pub mod arguments;
pub mod binding_keys;
pub mod check;
pub mod closing;
pub mod config;
pub mod deadline;
pub mod error;
pub mod explain;
pub mod facts;
pub mod guard;
pub mod invocation;
pub mod list;
pub mod lock;
pub mod masquerade;
pub mod monitor;
pub mod openvswitch;
pub mod places;
pub mod plan;
pub mod record;
pub mod request;
pub mod restore;
pub mod run;
pub mod shared;
pub mod step;
pub mod sysctl;
pub mod takeover;
mod text;
pub mod vlan;
