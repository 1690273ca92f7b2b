//! What the tests of answers share: a guest, and packets from it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use agents::addr::MacAddr;
use agents::binding::Binding;
use etherparse::PacketBuilder;

use super::{Action, Query, Scratch, respond};
use crate::client::{Client, Port};
use crate::packet::ip::Checksum;
use crate::profile::{Dhcp, Ipv6, Profile};

pub const GUEST: MacAddr = MacAddr::new([0xaa, 0, 0, 0, 0, 1]);
pub const HOST: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 0xff]);
pub const GUEST_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xa800, 0xff, 0xfe00, 1);
pub const HOST_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 0xff);

/// A guest on a bridge that the host has the gateway's addresses on.
pub fn client() -> Client {
    let mut binding = Binding::new(GUEST, "snf-1");
    binding.ip = Some("10.0.0.5".parse().unwrap());
    binding.subnet = Some("10.0.0.0/24".parse().unwrap());
    binding.gateway = Some("10.0.0.1".parse().unwrap());
    binding.subnet6 = Some("fd66:1::/64".parse().unwrap());
    binding.gateway6 = Some("fd66:1::1".parse().unwrap());
    Client {
        interface: "tap0".to_owned(),
        binding,
        port: Port {
            index: 7,
            bridged: true,
            host_mac: HOST,
            host_link_local: HOST_LINK_LOCAL,
            host_has_gateway6: true,
        },
        profile: Arc::new(Profile {
            dhcp: Dhcp::default(),
            ipv6: Ipv6::default(),
        }),
    }
}

pub fn set(client: &mut Client, change: impl FnOnce(&mut Profile)) {
    change(Arc::make_mut(&mut client.profile));
}

/// What becomes of a packet from the guest, and the frame that is sent.
pub fn ask(client: &Client, packet: &[u8]) -> (Action, Vec<u8>) {
    ask_from(client, packet, GUEST)
}

pub fn ask_from(client: &Client, packet: &[u8], source: MacAddr) -> (Action, Vec<u8>) {
    let query = Query {
        packet,
        source_mac: Some(source),
        checksum: Checksum::Present,
    };
    let mut frame = Vec::new();
    let (_, action) = respond(query, client, &mut Scratch::default(), &mut frame);
    (action, frame)
}

/// A DHCPv4 message as it comes from the queue.
pub fn dhcp4_packet(message: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let (from, to) = (Ipv4Addr::UNSPECIFIED.octets(), Ipv4Addr::BROADCAST.octets());
    PacketBuilder::ipv4(from, to, 64)
        .udp(68, 67)
        .write(&mut packet, message)
        .unwrap();
    packet
}

/// An ICMPv6 message, whose checksum is filled in.
pub fn icmp6_packet(from: Ipv6Addr, to: Ipv6Addr, hop_limit: u8, message: &[u8]) -> Vec<u8> {
    let [kind, code, _, _, rest @ ..] = message else {
        panic!()
    };
    let (head, body) = rest.split_first_chunk::<4>().unwrap();
    let mut packet = Vec::new();
    PacketBuilder::ipv6(from.octets(), to.octets(), hop_limit)
        .icmpv6_raw(*kind, *code, *head)
        .write(&mut packet, body)
        .unwrap();
    packet
}

/// A DHCPv6 message as it comes from the queue.
pub fn dhcp6_packet(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv6(from.octets(), to.octets(), 1)
        .udp(546, 547)
        .write(&mut packet, message)
        .unwrap();
    packet
}
