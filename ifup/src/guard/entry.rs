//! What the sets say of one NIC.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agents::addr::{IpNet, Ipv6Net, MacAddr};
use agents::netlink::nftables::{Batch, Element, Table, concat, interface_name};
use serde::{Deserialize, Serialize};

use super::{ARP, BRIDGE, INET, profile, sets};

/// How much of what a guest sends is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// MAC address, IP addresses, and all that could be used to deceive.
    All,
    /// Its MAC address, and that it is no server or router.
    AnyIp,
    /// That it is no server or router.
    AnyMac,
    /// That it sends nothing to DHCP clients.
    NoLeases,
    /// Nothing.
    Nothing,
}

/// What the guard knows of a NIC.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// The NIC is a port of a bridge; else routed.
    pub bridged: bool,
    /// How much is checked.
    pub scope: Scope,
    /// What may come to it; everything if none.
    pub profile: Option<String>,
    /// Its MAC address.
    #[serde(with = "crate::text")]
    pub mac: MacAddr,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Whole prefixes that are its own.
    pub nets: Vec<IpNet>,
    /// Networks of 64 bits in which it may take addresses; the link-local one is among them.
    pub prefixes: Vec<Ipv6Net>,
    /// Of a private network that shares its bridge with others: all its MAC addresses begin so.
    #[serde(default)]
    pub mac_prefix: Option<[u8; 3]>,
    /// VRRP groups (RFC 9568) that it is a router of.
    #[serde(default)]
    pub vrrp: Vec<u8>,
    /// The bridge takes tagged frames from it.
    #[serde(default)]
    pub trunk: bool,
    /// It exchanges packets with these addresses only.
    #[serde(default)]
    pub isolated: Option<Vec<IpNet>>,
    /// It sends so many bytes a second at most.
    #[serde(default)]
    pub rate: Option<u64>,
}

/// An element, and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member {
    /// Table.
    pub table: Table,
    /// Set.
    pub set: String,
    /// Element.
    pub element: Element,
}

/// An address that no guest can take: a gateway's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reserved {
    /// For the ports of bridges; else for routed TAPs.
    pub bridged: bool,
    /// The address.
    pub address: Ipv6Addr,
}

impl Reserved {
    /// The element that says so.
    pub fn member(&self) -> Member {
        Member {
            table: if self.bridged { BRIDGE } else { INET },
            set: sets::STATIC6.to_owned(),
            element: Element::key(self.address.octets().to_vec()),
        }
    }
}

impl Guard {
    /// Returns whether the guest cannot send from whatever MAC address it likes.
    pub fn limits_mac(&self) -> bool {
        matches!(self.scope, Scope::All | Scope::AnyIp) || self.mac_prefix.is_some()
    }

    /// The MAC addresses that the guest sends from; none if any.
    pub fn macs(&self) -> Option<Vec<MacAddr>> {
        if !matches!(self.scope, Scope::All | Scope::AnyIp) {
            return None;
        }
        // RFC 9568, section 7.3: of IPv4 and of IPv6.
        let shared = self
            .vrrp
            .iter()
            .flat_map(|group| [1, 2].map(|kind| MacAddr::new([0, 0, 0x5e, 0, kind, *group])));
        Some(std::iter::once(self.mac).chain(shared).collect())
    }

    /// The table that has the NIC's rules, but for ARP of a routed one.
    pub const fn table(&self) -> Table {
        if self.bridged { BRIDGE } else { INET }
    }

    /// The elements that say this of the interface.
    pub fn members(&self, interface: &str) -> Vec<Member> {
        let table = self.table();
        let name = interface_name(interface);
        let mut members = Vec::new();
        let mut add = |table, set: &str, element| {
            members.push(Member {
                table,
                set: set.to_owned(),
                element,
            });
        };
        let key = |parts: &[&[u8]]| Element::key(concat(parts));
        let scope = match self.scope {
            Scope::All => sets::GUARDED,
            Scope::AnyIp => sets::ANY_IP,
            Scope::AnyMac => sets::ANY_MAC,
            Scope::NoLeases => sets::NO_LEASES,
            Scope::Nothing => "",
        };
        if let Some(profile) = &self.profile {
            add(table, &profile::object(profile), Element::key(name.clone()));
        }
        if let Some([a, b, c]) = self.mac_prefix.filter(|_| self.bridged) {
            let prefix = [a, b, c, 0, 0, 0];
            add(table, sets::MAC_PREFIX, key(&[&name, &prefix]));
            add(table, sets::FILTERED, Element::key(name.clone()));
        }
        if let Some(allowed) = &self.isolated {
            for net in allowed {
                let (first, last) = ends(net);
                let range = Element::range(concat(&[&name, &first]), concat(&[&name, &last]));
                let set = match net {
                    IpNet::V4(_) => sets::ALLOWED4,
                    IpNet::V6(_) => sets::ALLOWED6,
                };
                add(table, set, range);
            }
            add(table, sets::ISOLATED, Element::key(name.clone()));
        }
        if let Some(bytes) = self.rate {
            let element = Element::key(name.clone()).beyond(bytes);
            add(table, sets::TOO_FAST, element);
        }
        match self.scope {
            Scope::Nothing => return members,
            Scope::NoLeases => {
                add(table, scope, Element::key(name));
                return members;
            }
            Scope::All | Scope::AnyIp | Scope::AnyMac => {}
        }
        add(table, sets::MAC, key(&[&name, &self.mac.octets()]));
        for group in &self.vrrp {
            // RFC 9568, section 7.3: of IPv4 and of IPv6.
            for kind in [1, 2] {
                let mac = [0, 0, 0x5e, 0, kind, *group];
                add(table, sets::MAC, key(&[&name, &mac]));
                if !self.bridged {
                    add(ARP, sets::MAC, key(&[&name, &mac]));
                }
            }
        }
        if !self.vrrp.is_empty() {
            add(table, sets::VRRP, Element::key(name.clone()));
        }
        if self.trunk && self.bridged {
            add(table, sets::TRUNK, Element::key(name.clone()));
        }
        if self.scope == Scope::All {
            let arp = (!self.bridged).then_some(ARP);
            if let Some(arp) = arp {
                add(arp, sets::MAC, key(&[&name, &self.mac.octets()]));
            }
            for address in &self.addresses {
                match address {
                    IpAddr::V4(address) => {
                        let octets = address.octets();
                        for table in [Some(table), arp].into_iter().flatten() {
                            add(table, sets::IPV4, key(&[&name, &octets]));
                        }
                    }
                    IpAddr::V6(address) => {
                        let octets = address.octets();
                        add(table, sets::IPV6, key(&[&name, &octets]));
                        add(table, sets::STATIC6, Element::key(octets.to_vec()));
                    }
                }
            }
            for net in &self.nets {
                let (first, last) = ends(net);
                let range = Element::range(concat(&[&name, &first]), concat(&[&name, &last]));
                match net {
                    IpNet::V4(_) => {
                        for table in [Some(table), arp].into_iter().flatten() {
                            add(table, sets::NETS4, range.clone());
                        }
                    }
                    IpNet::V6(_) => add(table, sets::NETS6, range),
                }
            }
            for prefix in &self.prefixes {
                let network = prefix.network().octets();
                add(table, sets::PREFIX6, key(&[&name, &network]));
            }
            if let Some(arp) = arp {
                add(arp, sets::GUARDED, Element::key(name.clone()));
            }
        }
        // Last: from here on the rest is looked at.
        add(table, scope, Element::key(name));
        members
    }
}

fn ends(net: &IpNet) -> (Vec<u8>, Vec<u8>) {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => Ipv4Addr::octets(&address).to_vec(),
        IpAddr::V6(address) => Ipv6Addr::octets(&address).to_vec(),
    };
    let last = match net {
        IpNet::V4(net) => IpAddr::V4(net.broadcast()),
        IpNet::V6(net) => IpAddr::V6(net.broadcast()),
    };
    (octets(net.network()), octets(last))
}

/// Puts into a batch what leads from one state of an interface to another.
pub fn change(batch: &mut Batch, interface: &str, from: Option<&Guard>, to: Option<&Guard>) {
    let members = |guard: Option<&Guard>| guard.map_or(Vec::new(), |g| g.members(interface));
    let (old, new) = (members(from), members(to));
    // The check of an interface ends before what it needs goes, and begins after that is there.
    for member in old.iter().rev() {
        if !new.contains(member) {
            batch.delete_elements(member.table, &member.set, [member.element.clone()]);
        }
    }
    for member in &new {
        batch.add_elements(member.table, &member.set, [member.element.clone()]);
    }
}
