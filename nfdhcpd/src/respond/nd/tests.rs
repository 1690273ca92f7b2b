//! Neighbour solicitations of a guest on a routed interface.

use super::*;
use crate::client::Client;
use crate::reason::Reason;
use crate::respond::testing::{
    GUEST, GUEST_LINK_LOCAL, HOST, HOST_LINK_LOCAL, ask, client, icmp6_packet, set,
};

fn routed() -> Client {
    let mut client = client();
    client.port.bridged = false;
    client.port.host_has_gateway6 = false;
    client.binding.eui64 = Some("fd66:1::a800:ff:fe00:1".parse().unwrap());
    client
}

fn solicitation(from: Ipv6Addr, target: &str, with_address: bool) -> Vec<u8> {
    let target: Ipv6Addr = target.parse().unwrap();
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    if with_address {
        message.extend([1, 1]);
        message.extend(GUEST.octets());
    }
    icmp6_packet(from, agents::addr::solicited_node(target), 255, &message)
}

struct Heard {
    from: Ipv6Addr,
    to: Ipv6Addr,
    to_mac: MacAddr,
    flags: u8,
}

fn hear(client: &Client, packet: &[u8]) -> Heard {
    let (action, frame) = ask(client, packet);
    assert_eq!(action, Action::Reply(Answer::NeighborAdvertisement));
    let sliced = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
    let Some(etherparse::NetSlice::Ipv6(ip)) = sliced.net else {
        panic!()
    };
    assert_eq!(ip.header().hop_limit(), 255);
    let Some(etherparse::TransportSlice::Icmpv6(icmp)) = sliced.transport else {
        panic!()
    };
    assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
    let message = icmp.slice();
    assert_eq!(message[..2], [136, 0]);
    // The target as it was asked for, and the host's MAC address.
    assert_eq!(message[8..24], packet[48..64]);
    assert_eq!(message[24..], [&[2, 1][..], &HOST.octets()].concat());
    Heard {
        from: ip.header().source_addr(),
        to: ip.header().destination_addr(),
        to_mac: MacAddr::try_from(&frame[..6]).unwrap(),
        flags: message[4],
    }
}

#[test]
fn the_gateway_and_the_hosts_link_local_address_are_the_hosts() {
    for target in ["fd66:1::1".to_owned(), HOST_LINK_LOCAL.to_string()] {
        let heard = hear(&routed(), &solicitation(GUEST_LINK_LOCAL, &target, true));
        assert_eq!(heard.flags, ROUTER | SOLICITED | OVERRIDE);
        assert_eq!((heard.to, heard.to_mac), (GUEST_LINK_LOCAL, GUEST));
        assert_eq!(heard.from.to_string(), target);
    }
}

#[test]
fn without_its_own_address_in_it_a_solicitation_is_answered_too() {
    let heard = hear(
        &routed(),
        &solicitation(GUEST_LINK_LOCAL, "fd66:1::1", false),
    );
    assert_eq!(heard.to_mac, GUEST);
}

#[test]
fn another_guest_is_reached_through_the_host() {
    let heard = hear(
        &routed(),
        &solicitation(GUEST_LINK_LOCAL, "fd66:1::9", true),
    );
    // Without override: a neighbour that answers for itself is better.
    assert_eq!(heard.flags, ROUTER | SOLICITED);
    assert_eq!(heard.from, HOST_LINK_LOCAL);
}

#[test]
fn a_guest_that_would_take_the_gateways_address_hears_that_it_is_taken() {
    let heard = hear(
        &routed(),
        &solicitation(Ipv6Addr::UNSPECIFIED, "fd66:1::1", false),
    );
    assert_eq!(heard.flags, ROUTER | OVERRIDE);
    assert_eq!(
        (heard.to, heard.to_mac),
        (ALL_NODES, MacAddr::ipv6_multicast(ALL_NODES))
    );
}

#[test]
fn a_guest_may_take_its_own_and_any_free_address() {
    for target in [
        "fd66:1::a800:ff:fe00:1",
        "fd66:1::1234:5678:9abc:def0",
        "fe80::1:2",
    ] {
        let packet = solicitation(Ipv6Addr::UNSPECIFIED, target, false);
        assert_eq!(ask(&routed(), &packet).0, Action::Pass, "{target}");
    }
    let own = solicitation(GUEST_LINK_LOCAL, "fd66:1::a800:ff:fe00:1", true);
    assert_eq!(ask(&routed(), &own).0, Action::Pass);
}

#[test]
fn what_is_elsewhere_is_not_answered_for() {
    let packet = solicitation(GUEST_LINK_LOCAL, "2001:db8::1", true);
    assert_eq!(ask(&routed(), &packet).0, Action::Pass);
    let packet = solicitation(GUEST_LINK_LOCAL, "fd66:1::1", true);
    assert_eq!(
        ask(&client(), &packet).0,
        Action::Pass,
        "on a bridge neighbours answer"
    );
    let mut off = routed();
    set(&mut off, |profile| profile.ipv6.enabled = false);
    assert_eq!(ask(&off, &packet).0, Action::Pass);
}

#[test]
fn a_spoofed_one_is_dropped() {
    let mut other = routed();
    other.binding.mac = MacAddr::new([0xaa, 0, 0, 0, 0, 2]);
    let packet = solicitation(GUEST_LINK_LOCAL, "fd66:1::1", true);
    assert_eq!(ask(&other, &packet).0, Action::Drop(Reason::SpoofedMac));
}
