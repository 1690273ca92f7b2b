//! The whole chain: a broker and central on one host, a Ganeti node with the four agents on
//! another, and a router that the guests call their gateway.
//!
//! ```text
//!  center 10.66.0.100 ─ br-mgmt ─ node1 (Ganeti, eventd, hooks, ifup, nfdhcpd)
//!   RabbitMQ, central              │ br0 ── bridged guests 10.66.1.0/24, fd66:1::/64
//!                                  │ uplink, table 100 ── routed guests 10.66.2.0/24, fd66:2::/64
//!                                router 10.66.1.1, fd66:1::1 / 10.66.2.1, fd66:2::1
//! ```
//!
//! [`Chain`] puts it up, [`story`] is what a person does with it, [`api`] how, and
//! [`timeline`] what it shows meanwhile.

pub mod api;
mod place;
pub mod story;
pub mod timeline;

pub use place::{Chain, Program, Remains};
