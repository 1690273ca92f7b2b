//! The host's interfaces and their IPv6 addresses, as far as guests depend on them.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv6Addr;

use agents::addr::{self, MacAddr};
use agents::binding::Binding;
use agents::netlink::{AddressEvent, Link, monitor::LinkEvent};

use crate::client::Port;

/// The host's interfaces and their IPv6 addresses.
#[derive(Debug, Default)]
pub struct Host {
    links: HashMap<u32, Link>,
    names: HashMap<String, u32>,
    addresses: HashMap<u32, BTreeSet<Ipv6Addr>>,
}

impl Host {
    /// Forgets all that was known, and starts with these.
    pub fn replace(
        &mut self,
        links: Vec<Link>,
        addresses: impl IntoIterator<Item = (u32, Ipv6Addr)>,
    ) {
        *self = Self::default();
        for link in links {
            self.insert(link);
        }
        for (interface, address) in addresses {
            self.addresses.entry(interface).or_default().insert(address);
        }
    }

    fn insert(&mut self, link: Link) {
        // A renamed interface keeps its index.
        if let Some(old) = self.links.get(&link.index)
            && old.name != link.name
            && self.names.get(&old.name) == Some(&link.index)
        {
            self.names.remove(&old.name);
        }
        self.names.insert(link.name.clone(), link.index);
        self.links.insert(link.index, link);
    }

    /// Notes an event of an interface. Returns whose guests may be served otherwise now: the
    /// names of the interface before and after.
    pub fn link_event(&mut self, event: LinkEvent) -> Vec<Affected> {
        match event {
            LinkEvent::Present(link) => {
                let old = self.links.get(&link.index);
                if old.is_some_and(|old| is_same(old, &link)) {
                    return Vec::new();
                }
                let mut affected = vec![Affected::Interface(link.name.clone())];
                if let Some(old) = old.filter(|old| old.name != link.name) {
                    affected.push(Affected::Interface(old.name.clone()));
                }
                affected.push(Affected::PortsOf(link.index));
                self.insert(link);
                affected
            }
            LinkEvent::Gone(link) => {
                self.links.remove(&link.index);
                self.addresses.remove(&link.index);
                if self.names.get(&link.name) == Some(&link.index) {
                    self.names.remove(&link.name);
                }
                vec![
                    Affected::Interface(link.name),
                    Affected::PortsOf(link.index),
                ]
            }
        }
    }

    /// Notes an event of an address.
    pub fn address_event(&mut self, event: AddressEvent) -> Vec<Affected> {
        let AddressEvent {
            interface,
            address,
            present,
        } = event;
        let changed = if present {
            self.addresses.entry(interface).or_default().insert(address)
        } else {
            let known = self.addresses.get_mut(&interface);
            known.is_some_and(|known| known.remove(&address))
        };
        if !changed {
            return Vec::new();
        }
        let name = self
            .links
            .get(&interface)
            .map(|link| Affected::Interface(link.name.clone()));
        name.into_iter()
            .chain([Affected::PortsOf(interface)])
            .collect()
    }

    /// The index of the bridge that this interface is a port of.
    pub fn bridge_of(&self, interface: &str) -> Option<u32> {
        self.bridge(self.links.get(self.names.get(interface)?)?)
    }

    fn bridge(&self, link: &Link) -> Option<u32> {
        link.master
            .filter(|_| link.port_kind.as_deref() == Some("bridge"))
    }

    /// Where the interface is. `None` if there is none of this name, or it is none that a guest
    /// can be behind.
    pub fn port(&self, interface: &str, binding: &Binding) -> Option<Port> {
        let link = self.links.get(self.names.get(interface)?)?;
        let bridge = self.bridge(link);
        let host = match bridge {
            Some(index) => self.links.get(&index)?,
            None => link,
        };
        let host_mac: MacAddr = host.mac?;
        let addresses = self.addresses.get(&host.index);
        let link_local =
            addresses.into_iter().flatten().copied().find(|address| {
                addr::is_link_local(*address) && Some(*address) != binding.gateway6
            });
        Some(Port {
            index: link.index,
            bridged: bridge.is_some(),
            host_mac,
            host_link_local: link_local.unwrap_or_else(|| addr::link_local(host_mac)),
            host_has_gateway6: binding
                .gateway6
                .is_some_and(|gateway| addresses.is_some_and(|known| known.contains(&gateway))),
        })
    }
}

/// Whose guests may be served otherwise after an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Affected {
    /// The guest of the interface with this name.
    Interface(String),
    /// The guests of all ports of the bridge with this index.
    PortsOf(u32),
}

/// Whether nothing changed that guests depend on: most events tell of carrier and counters.
fn is_same(old: &Link, new: &Link) -> bool {
    old.name == new.name
        && old.mac == new.mac
        && old.master == new.master
        && old.port_kind == new.port_kind
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, master: Option<u32>) -> Link {
        Link {
            index,
            name: name.to_owned(),
            mac: Some(MacAddr::new([2, 0, 0, 0, 0, u8::try_from(index).unwrap()])),
            mtu: 1500,
            master,
            up: true,
            running: true,
            kind: None,
            port_kind: master.map(|_| "bridge".to_owned()),
            alias: None,
            vlan_filtering: false,
            default_vlan: None,
            port: None,
            no_linklocal_learn: None,
        }
    }

    fn binding() -> Binding {
        let mut binding = Binding::new(MacAddr::new([0xaa, 0, 0, 0, 0, 1]), "snf-1");
        binding.gateway6 = Some("fd66:1::1".parse().unwrap());
        binding
    }

    fn on(interface: u32, address: &str) -> (u32, Ipv6Addr) {
        (interface, address.parse().unwrap())
    }

    fn event(interface: u32, address: &str, present: bool) -> AddressEvent {
        AddressEvent {
            interface,
            address: address.parse().unwrap(),
            present,
        }
    }

    #[test]
    fn a_bridged_guest_reaches_the_host_by_the_bridge() {
        let mut host = Host::default();
        host.replace(
            vec![link(3, "br0", None), link(7, "tap0", Some(3))],
            vec![on(3, "fe80::3"), on(3, "fd66:1::1"), on(7, "fe80::7")],
        );
        let port = host.port("tap0", &binding()).unwrap();
        assert!(port.bridged && port.host_has_gateway6);
        assert_eq!(port.index, 7);
        assert_eq!(port.host_mac, MacAddr::new([2, 0, 0, 0, 0, 3]));
        assert_eq!(port.host_link_local, "fe80::3".parse::<Ipv6Addr>().unwrap());
    }

    #[test]
    fn a_routed_guest_reaches_the_host_by_its_own_interface() {
        let mut host = Host::default();
        host.replace(vec![link(7, "tap0", None)], Vec::new());
        let port = host.port("tap0", &binding()).unwrap();
        assert!(!port.bridged && !port.host_has_gateway6);
        // Until the kernel has given one, that which it will give.
        assert_eq!(
            port.host_link_local,
            "fe80::ff:fe00:7".parse::<Ipv6Addr>().unwrap()
        );
        assert_eq!(host.port("tap1", &binding()), None);
    }

    #[test]
    fn an_interface_that_comes_back_has_its_new_index() {
        let mut host = Host::default();
        host.replace(vec![link(7, "tap0", None)], vec![on(7, "fe80::7")]);
        let affected = host.link_event(LinkEvent::Gone(link(7, "tap0", None)));
        assert!(affected.contains(&Affected::Interface("tap0".to_owned())));
        assert_eq!(host.port("tap0", &binding()), None);
        host.link_event(LinkEvent::Present(link(8, "tap0", None)));
        assert_eq!(host.port("tap0", &binding()).unwrap().index, 8);
        // The event of the old one comes late: it does not hide the new one.
        host.link_event(LinkEvent::Gone(link(7, "tap0", None)));
        assert_eq!(host.port("tap0", &binding()).unwrap().index, 8);
    }

    #[test]
    fn a_renamed_interface_is_found_by_its_new_name_alone() {
        let mut host = Host::default();
        host.replace(vec![link(7, "tap0", None)], Vec::new());
        let affected = host.link_event(LinkEvent::Present(link(7, "tap1", None)));
        for name in ["tap0", "tap1"] {
            assert!(affected.contains(&Affected::Interface(name.to_owned())));
        }
        assert_eq!(host.port("tap0", &binding()), None);
        assert_eq!(host.port("tap1", &binding()).unwrap().index, 7);
    }

    #[test]
    fn an_event_that_changes_nothing_affects_nobody() {
        let mut host = Host::default();
        host.replace(vec![link(7, "tap0", None)], vec![on(7, "fe80::7")]);
        let mut down = link(7, "tap0", None);
        down.up = false;
        assert_eq!(host.link_event(LinkEvent::Present(down)), []);
        assert_eq!(host.address_event(event(7, "fe80::7", true)), []);
        assert_eq!(
            host.address_event(event(7, "fe80::7", false)),
            [Affected::Interface("tap0".to_owned()), Affected::PortsOf(7)]
        );
    }
}
