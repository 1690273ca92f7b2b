//! Neighbour advertisements (RFC 4861, section 7.2.4) in the host's name.

use std::net::Ipv6Addr;

use agents::addr::MacAddr;

use super::{Action, Answer, ra};
use crate::client::Client;
use crate::packet::addresses::Addresses;
use crate::packet::frame::{self, Route};
use crate::packet::nd::{NEIGHBOR_ADVERTISEMENT, NeighborSolicitation};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// Answers a neighbour solicitation. On a bridge the neighbours answer for themselves.
pub fn respond(
    addresses: Addresses<Ipv6Addr>,
    message: NeighborSolicitation,
    source_mac: Option<MacAddr>,
    client: &Client,
    out: &mut Vec<u8>,
) -> Action {
    if client.port.bridged || !client.profile.ipv6.enabled {
        return Action::Pass;
    }
    let Some(prefix) = client.binding.subnet6 else {
        return Action::Pass;
    };
    let target = message.target;
    let is_detection = addresses.source.is_unspecified();
    let is_router = client.binding.gateway6 == Some(target) || ra::router(client).source == target;
    let is_guest = client.binding.eui64 == Some(target) || client.binding.ip6 == Some(target);
    // Another guest's address is reached through the host; but we do not know whether it is in
    // use, so we do not say so to a guest that wants to take it, nor that its own is taken.
    let is_behind =
        prefix.contains(&target) && !is_guest && !is_detection && target != addresses.source;
    if !is_router && !is_behind {
        // The kernel answers for the host's own addresses; nobody else is on this link.
        return Action::Pass;
    }
    let guest_mac = source_mac.or(message.source_link_layer);
    let (destination, destination_mac, solicited) = match guest_mac {
        Some(mac) if !is_detection => (addresses.source, mac, SOLICITED),
        _ => (ALL_NODES, MacAddr::ipv6_multicast(ALL_NODES), 0),
    };
    let flags = ROUTER | solicited | if is_router { OVERRIDE } else { 0 };
    frame::start(out, frame::ICMP6_OFFSET);
    out.extend_from_slice(&[NEIGHBOR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0]);
    out.extend_from_slice(&target.octets());
    let [a, b, c, d, e, f] = client.port.host_mac.octets();
    out.extend_from_slice(&[2, 1, a, b, c, d, e, f]);
    let route = Route {
        source_mac: client.port.host_mac,
        destination_mac,
        // The router's own address answers for itself; for others the host's link-local does.
        source: if is_router {
            target
        } else {
            client.port.host_link_local
        },
        destination,
    };
    if frame::finish_icmp6(out, route) {
        Action::Reply(Answer::NeighborAdvertisement)
    } else {
        Action::Pass
    }
}

#[cfg(test)]
mod tests;
