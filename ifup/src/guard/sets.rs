//! The sets of the guard's tables.

use std::time::Duration;

use agents::netlink::nftables::{Batch, Element, Family, KeyType, Set, Table};

/// Interfaces that are guarded wholly. The number is the form of tables and rules: with
/// another, a table of an older program is made anew (see [`super::install`]).
pub const GUARDED: &str = "guarded-3";
/// Interfaces whose addresses are not checked, but whose MAC address is.
pub const ANY_IP: &str = "any-ip";
/// Interfaces with any MAC address.
pub const ANY_MAC: &str = "any-mac";
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

/// A taken address is forgotten after this time without neighbour discovery from it.
const MEMORY: Duration = Duration::from_secs(24 * 3600);
const MOST_LEARNED: u32 = 1 << 20;
const MOST_NICS: u32 = 1 << 16;

/// The sets of numbers, with what is in them.
pub const FIXED: &[(&str, &[u8])] = &[
    (ICMP6_FREE, &[1, 2, 3, 4, 128, 129, 139, 140]),
    (ICMP6_LISTENER, &[131, 132, 143]),
    (BEHIND_AH, &[4, 6, 41, 50, 132]),
    (IGMP_HOST, &[0x12, 0x16, 0x17, 0x22]),
];

/// The sets whose elements begin with the interface that they are about, of any table, but
/// profiles' and what the kernel counts by itself.
pub const OF_INTERFACES: [&str; 17] = [
    TOO_FAST, GUARDED, ANY_IP, ANY_MAC, MAC, IPV4, NETS4, IPV6, NETS6, PREFIX6, FILTERED,
    MAC_PREFIX, VRRP, TRUNK, ISOLATED, ALLOWED4, ALLOWED6,
];

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
    for (name, members) in FIXED {
        batch.add_set(&set(name, &[Protocol])).add_elements(
            table,
            name,
            members
                .iter()
                .map(|member: &u8| Element::key(vec![*member])),
        );
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
        for scope in [Scope::All, Scope::AnyIp, Scope::AnyMac] {
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
