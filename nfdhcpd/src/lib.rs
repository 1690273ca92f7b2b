//! Answers DHCPv4, DHCPv6, router and neighbour solicitations of the guests from NFQUEUE.
//!
//! The way of a packet: [`queue`] → [`packet`] → [`respond`] → [`transmit`], and a verdict to the
//! queue. Who a guest is and what it is told comes from its binding ([`folder`]), from its
//! interface's place in the host ([`host`]) and from the configuration ([`config`]); together
//! they are its [`client::Client`]. [`rules`] makes the kernel queue, [`schedule`] says when
//! advertisements are due that nobody asked for, and [`serve`] runs it all.

pub mod arguments;
pub mod check;
pub mod client;
pub mod config;
pub mod control;
pub mod explain;
pub mod folder;
pub mod guest;
pub mod host;
pub mod limit;
pub mod metrics;
pub mod mmsg;
pub mod omission;
pub mod packet;
pub mod privileges;
pub mod profile;
pub mod queue;
pub mod reason;
pub mod respond;
pub mod rules;
pub mod schedule;
pub mod serve;
pub mod stats;
pub mod transmit;
