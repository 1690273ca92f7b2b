//! The sets of the guard's tables.

use std::time::Duration;

use agents::netlink::nftables::{Batch, Element, Family, KeyType, Set, Table, concat};

/// Interfaces that are guarded wholly. The number is the form of tables and rules: with
/// another, a table of an older program is made anew (see [`super::install`]).
pub const GUARDED: &str = "guarded-4";
/// Interfaces whose addresses are not checked, but whose MAC address is.
pub const ANY_IP: &str = "any-ip";
/// Interfaces with any MAC address.
pub const ANY_MAC: &str = "any-mac";
/// Interfaces that send nothing to DHCP clients, and else what they like.
pub const NO_LEASES: &str = "no-leases";
/// Interface and MAC address.
pub const MAC: &str = "mac";
/// Interface and IPv4 address.
pub const IPV4: &str = "ipv4";
/// Interface and IPv4 addresses by prefix.
pub const NETS4: &str = "nets4";
/// Interface and IPv6 address.
pub const IPV6: &str = "ipv6";
/// Interface and IPv6 addresses by prefix.
pub const NETS6: &str = "nets6";
/// Interface and /64 in which it may take addresses.
pub const PREFIX6: &str = "prefix6";
/// Addresses that nobody can take: those of NICs, and of gateways.
pub const STATIC6: &str = "static6";
/// MAC address and IPv6 address that it has taken.
pub const LEARNED: &str = "learned6";
/// IPv6 addresses that are taken.
pub const CLAIMED: &str = "claimed6";
/// Interface, and how fast it takes addresses.
pub const PACE: &str = "pace6";
/// Interfaces that send only so much in a second: of what they send, it holds what is beyond.
pub const TOO_FAST: &str = "too-fast";
/// Interfaces of private networks that share a bridge.
pub const FILTERED: &str = "filtered";
/// Interface and the MAC prefix of its private network.
pub const MAC_PREFIX: &str = "mac-prefix";
/// Interfaces of routers that stand in for each other.
pub const VRRP: &str = "vrrp";
/// Interfaces that the bridge takes tagged frames from.
pub const TRUNK: &str = "trunk";
/// Interfaces that exchange nothing but with some addresses.
pub const ISOLATED: &str = "isolated";
/// Interface and IPv4 addresses that it exchanges packets with, if isolated.
pub const ALLOWED4: &str = "allowed4";
/// The same of IPv6.
pub const ALLOWED6: &str = "allowed6";
/// ICMPv6 types that are nobody's business but the guest's: errors, echo, node information.
pub const ICMP6_FREE: &str = "icmp6-free";
/// ICMPv6 types of multicast listeners.
pub const ICMP6_LISTENER: &str = "icmp6-listener";
/// IGMP types of hosts.
pub const IGMP_HOST: &str = "igmp-host";

/// What may be behind an authentication header: nothing that is looked at more closely.
pub const BEHIND_AH: &str = "behind-ah";

/// IPv6 protocols that are passed without a look at what they carry.
pub const UPPER6: &str = "upper6";
/// The same of IPv4, the most frequent ones: what is not there is looked at more closely.
pub const UPPER4: &str = "upper4";
/// IPv6 extension headers that may not follow a fragment header.
pub const EXTENSIONS: &str = "extensions";
/// Protocols whose header is longer than 8 bytes.
pub const LONG_HEADERS: &str = "long-headers";
/// IPv6 extension headers that may not follow a routing header: a second one would hide.
pub const NOT_AFTER_ROUTING: &str = "not-after-routing";
/// Protocols that carry another packet, which are not looked into inside a tunnel.
pub const TUNNELS: &str = "tunnels";
/// ICMPv6 types that only routers send: MLD query, router advertisement, redirect.
pub const ICMP6_ROUTER: &str = "icmp6-router";
/// Length of a packet in memory, and the payload length that its IPv6 header states, where the
/// two agree, for first fragments: a multiple of 8 bytes (RFC 8200, section 4.5).
pub const LENGTHS6: &str = "lengths6";
/// Version and header length, protocol, and total lengths of first fragments of IPv4 that hold
/// the whole upper-layer header.
pub const WHOLE4: &str = "whole4";

/// The longest IPv6 packet that is sent in fragments: that of jumbo frames.
const LONGEST_FRAGMENT: u16 = 9216;

/// The elements of [`LENGTHS6`].
fn lengths6() -> Vec<Element> {
    (2..)
        .map(|words| words * 8)
        .take_while(|payload| payload + 40 <= LONGEST_FRAGMENT)
        .map(|payload| {
            let packet = u32::from(payload) + 40;
            Element::key(concat(&[&packet.to_ne_bytes(), &payload.to_be_bytes()]))
        })
        .collect()
}

/// First and last protocol, and the bytes that its first fragment has at least. Of a tunnel
/// that is up to where the rules look inside.
const HEADS4: [(u8, u8, u16); 15] = [
    (0, 3, 8),
    (4, 4, 96),
    (5, 5, 8),
    (6, 6, 20),
    (7, 40, 8),
    (41, 41, 96),
    (42, 46, 8),
    (47, 47, 96),
    (48, 50, 8),
    (51, 51, 96),
    (52, 96, 8),
    (97, 97, 96),
    (98, 131, 8),
    (132, 132, 12),
    (133, 255, 8),
];

/// The elements of [`WHOLE4`], one for each length of the IP header and row of [`HEADS4`].
fn whole4() -> Vec<Element> {
    (5..=15_u8)
        .flat_map(|words| {
            HEADS4.map(|(first, last, head)| {
                let version = [0x40 | words];
                let least = u16::from(words) * 4 + head;
                Element::range(
                    concat(&[&version, &[first], &least.to_be_bytes()]),
                    concat(&[&version, &[last], &[0xff, 0xff]]),
                )
            })
        })
        .collect()
}

/// A taken address is forgotten after this time without neighbour discovery from it.
const MEMORY: Duration = Duration::from_secs(24 * 3600);
const MOST_LEARNED: u32 = 1 << 20;
const MOST_NICS: u32 = 1 << 16;

/// The sets of numbers, with what is in them.
pub const FIXED: &[(&str, &[u8])] = &[
    (ICMP6_FREE, &[1, 2, 3, 4, 128, 129, 139, 140]),
    (ICMP6_LISTENER, &[131, 132, 143]),
    (ICMP6_ROUTER, &[130, 134, 137]),
    (BEHIND_AH, &[6, 50, 132]),
    (UPPER6, &[6, 33, 46, 50, 88, 89, 103, 108, 115, 132, 136]),
    (UPPER4, &[6, 33, 50, 132, 136]),
    (EXTENSIONS, &[0, 43, 44, 51, 135, 139, 140]),
    (LONG_HEADERS, &[4, 6, 41, 47, 51, 97, 132, 137]),
    (NOT_AFTER_ROUTING, &[0, 43, 60]),
    (TUNNELS, &[4, 41, 47, 51, 97, 137]),
    (IGMP_HOST, &[0x12, 0x16, 0x17, 0x22]),
];

/// The sets whose elements begin with the interface that they are about, of any table, but
/// profiles' and what the kernel counts by itself.
pub const OF_INTERFACES: [&str; 18] = [
    TOO_FAST, GUARDED, ANY_IP, ANY_MAC, NO_LEASES, MAC, IPV4, NETS4, IPV6, NETS6, PREFIX6,
    FILTERED, MAC_PREFIX, VRRP, TRUNK, ISOLATED, ALLOWED4, ALLOWED6,
];

/// The elements that the sets of a table have whatever NICs there are, but an ARP table's.
pub fn constant() -> Vec<(&'static str, Vec<Element>)> {
    let mut all: Vec<(&str, Vec<Element>)> = FIXED
        .iter()
        .map(|(name, members)| {
            let elements = members.iter().map(|member| Element::key(vec![*member]));
            (*name, elements.collect())
        })
        .collect();
    all.push((LENGTHS6, lengths6()));
    all.push((WHOLE4, whole4()));
    all
}

/// Adds the sets of a table to the batch, those that rules need but NICs do not with their
/// elements.
pub fn add(batch: &mut Batch, table: Table) {
    use KeyType::{EtherAddress, InterfaceName, Ipv4, Ipv6, Protocol};
    let set = |name, key| Set::new(table, name, key);
    batch
        .add_set(&set(GUARDED, &[InterfaceName]))
        .add_set(&set(MAC, &[InterfaceName, EtherAddress]))
        .add_set(&set(IPV4, &[InterfaceName, Ipv4]))
        .add_set(&set(NETS4, &[InterfaceName, Ipv4]).intervals());
    if table.family == Family::Arp {
        return;
    }
    if table.family == Family::Bridge {
        batch
            .add_set(&set(FILTERED, &[InterfaceName]))
            .add_set(&set(MAC_PREFIX, &[InterfaceName, EtherAddress]))
            .add_set(&set(TRUNK, &[InterfaceName]));
    }
    batch
        .add_set(&set(ISOLATED, &[InterfaceName]))
        .add_set(&set(ALLOWED4, &[InterfaceName, Ipv4]).intervals())
        .add_set(&set(ALLOWED6, &[InterfaceName, Ipv6]).intervals())
        .add_set(&set(TOO_FAST, &[InterfaceName]))
        .add_set(&set(VRRP, &[InterfaceName]))
        .add_set(&set(ANY_IP, &[InterfaceName]))
        .add_set(&set(ANY_MAC, &[InterfaceName]))
        .add_set(&set(NO_LEASES, &[InterfaceName]))
        .add_set(&set(IPV6, &[InterfaceName, Ipv6]))
        .add_set(&set(NETS6, &[InterfaceName, Ipv6]).intervals())
        .add_set(&set(PREFIX6, &[InterfaceName, Ipv6]))
        .add_set(&set(STATIC6, &[Ipv6]))
        .add_set(
            &set(LEARNED, &[EtherAddress, Ipv6])
                .dynamic()
                .size(MOST_LEARNED)
                .timeout(MEMORY),
        )
        .add_set(
            &set(CLAIMED, &[Ipv6])
                .dynamic()
                .size(MOST_LEARNED)
                .timeout(MEMORY),
        )
        .add_set(
            &set(PACE, &[InterfaceName])
                .dynamic()
                .size(MOST_NICS)
                .timeout(Duration::from_secs(3600)),
        );
    batch
        .add_set(&set(LENGTHS6, &[KeyType::Mark, KeyType::Port]))
        .add_set(&set(WHOLE4, &[Protocol, Protocol, KeyType::Port]).intervals());
    for (name, _) in FIXED {
        batch.add_set(&set(name, &[Protocol]));
    }
    for (name, elements) in constant() {
        batch.add_elements(table, name, elements);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::entry::{Guard, Scope};
    use crate::guard::profile;

    /// `check` looks there for interfaces that have no record.
    #[test]
    fn what_a_nic_is_in_is_a_set_of_interfaces() {
        let guard = |scope, bridged| Guard {
            bridged,
            scope,
            profile: Some("limited".to_owned()),
            mac: "aa:00:00:e1:87:fc".parse().unwrap(),
            addresses: vec!["10.66.1.7".parse().unwrap(), "fd66:1::7".parse().unwrap()],
            nets: vec![
                "10.66.3.0/24".parse().unwrap(),
                "fd66:3::/64".parse().unwrap(),
            ],
            prefixes: vec!["fd66:1::/64".parse().unwrap()],
            mac_prefix: Some([0xaa, 0, 0]),
            vrrp: vec![7],
            trunk: true,
            isolated: Some(vec![
                "10.66.4.1/32".parse().unwrap(),
                "fd66:4::1/128".parse().unwrap(),
            ]),
            rate: Some(1000),
        };
        let mut seen = Vec::new();
        for scope in [Scope::All, Scope::AnyIp, Scope::AnyMac, Scope::NoLeases] {
            for bridged in [true, false] {
                for member in guard(scope, bridged).members("tap0") {
                    if member.element.key.starts_with(b"tap0\0") {
                        seen.push(member.set);
                    }
                }
            }
        }
        seen.sort();
        seen.dedup();
        let mut known: Vec<String> = OF_INTERFACES.map(str::to_owned).to_vec();
        known.push(profile::object("limited"));
        known.sort();
        assert_eq!(seen, known);
    }
}
