//! Anti-spoofing: what a guest may send.
//!
//! The rules are an allow-list with default deny, at prerouting: before a bridge learns a
//! source address, and before the host looks at anything. They are made once for the host
//! ([`chains`], [`sets`]); a NIC is only elements of the sets ([`entry`]), so that one more NIC
//! costs the same however many there are. Packets that pass go on to nfdhcpd's rules, which
//! come later.
//!
//! An address that is not the NIC's by configuration (a random link-local one, a privacy
//! address in the network's prefix) belongs to the MAC address that first asked for it or
//! used it in neighbour discovery (first-come, as RFC 6620 has it), except addresses that
//! another guest or a router is likely to have: another's EUI-64, small numbers, the gateway.
//! The kernel adds these to [`sets::LEARNED`] by itself, and forgets them after a day unseen.

pub mod chains;
pub mod corpus;
pub mod entry;
pub mod explain;
pub mod forwarding_corpus;
pub mod frame;
mod headers;
pub mod install;
pub mod profile;
pub mod sets;
mod tunnels;

use agents::netlink::nftables::{Family, Table};

/// For the ports of bridges.
pub const BRIDGE: Table = Table::new(Family::Bridge, "snf");
/// For routed TAPs: IPv4 and IPv6.
pub const INET: Table = Table::new(Family::Inet, "snf");
/// For routed TAPs: ARP.
pub const ARP: Table = Table::new(Family::Arp, "snf");

/// Before nfdhcpd's (-290) and the bridge's own address translation (-300).
pub const PRIORITY: i32 = -310;
