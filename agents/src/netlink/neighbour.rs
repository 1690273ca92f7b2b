//! Neighbours: proxies that the host answers for, static entries, and a bridge's forwarding
//! table.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE, NlasIterator};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::addr::MacAddr;

use super::route::read_address;
use super::socket::{Received, u16_at, u32_at};
use super::{Result, Rtnetlink, absent_is_done};

const RTM_NEWNEIGH: u16 = libc::RTM_NEWNEIGH;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_VLAN: u16 = 5;
const NDA_MASTER: u16 = 9;
const NTF_PROXY: u8 = 8;
const NTF_STICKY: u8 = 0x40;

/// An entry of a neighbour or forwarding table as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of the interface.
    pub interface: u32,
    /// The address; none in a forwarding table.
    pub address: Option<IpAddr>,
    /// Hardware address, if known.
    pub mac: Option<MacAddr>,
    /// The host answers for it.
    pub proxy: bool,
    /// State bits (`NUD_*`).
    pub state: u16,
    /// Of an entry of a forwarding table: no frame that comes in elsewhere moves it.
    pub sticky: bool,
    /// Of an entry of a forwarding table: its VLAN, if the bridge knows VLANs.
    pub vlan: Option<u16>,
    /// Of an entry of a bridge's forwarding table: the bridge.
    pub bridge: Option<u32>,
}

/// A static entry of a forwarding table (`linux/neighbour.h`): it does not age.
const NUD_NOARP: u16 = 0x40;
/// An address of the host's own.
const NUD_PERMANENT: u16 = 0x80;

impl Neighbour {
    /// An entry of a forwarding table that does not age.
    pub fn is_static(&self) -> bool {
        self.state & NUD_NOARP != 0
    }

    /// An entry of a forwarding table that is for the host itself: a port's own address.
    pub fn is_local(&self) -> bool {
        self.state & NUD_PERMANENT != 0
    }
}

impl Rtnetlink {
    /// Answers ARP requests and neighbour solicitations for `address` on an interface.
    /// IPv6 also needs the interface's `proxy_ndp`; IPv4 a route to the address elsewhere.
    ///
    /// # Errors
    /// What the kernel says; one that is there already is a success.
    pub fn add_proxy(&mut self, interface: u32, address: IpAddr) -> Result<()> {
        let added = self.socket.request(
            RouteNetlinkMessage::NewNeighbour(proxy(interface, address)),
            NLM_F_CREATE | NLM_F_REPLACE,
            || format!("neighbour proxy {address} on link {interface}"),
        );
        match added {
            Err(error) if error.is_exists() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Ends [`Rtnetlink::add_proxy`]. One that is not there is a success.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn delete_proxy(&mut self, interface: u32, address: IpAddr) -> Result<()> {
        let deleted = self.socket.request(
            RouteNetlinkMessage::DelNeighbour(proxy(interface, address)),
            0,
            || format!("delete neighbour proxy {address} on link {interface}"),
        );
        absent_is_done(deleted)
    }

    /// Fixes the hardware address of a neighbour, so that it is never asked for or changed.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_neighbour(&mut self, interface: u32, address: IpAddr, mac: MacAddr) -> Result<()> {
        let mut message = neighbour(interface, address);
        message.header.state = NeighbourState::Permanent;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()));
        self.socket
            .request(
                RouteNetlinkMessage::NewNeighbour(message),
                NLM_F_CREATE | NLM_F_REPLACE,
                || format!("neighbour {address} on link {interface}"),
            )
            .map(drop)
    }

    /// Deletes a neighbour. One that is not there is a success.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn delete_neighbour(&mut self, interface: u32, address: IpAddr) -> Result<()> {
        let deleted = self.socket.request(
            RouteNetlinkMessage::DelNeighbour(neighbour(interface, address)),
            0,
            || format!("delete neighbour {address} on link {interface}"),
        );
        absent_is_done(deleted)
    }

    /// The neighbours or, with `proxies`, the addresses answered for, of one family.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn neighbours(&mut self, ipv4: bool, proxies: bool) -> Result<Vec<Neighbour>> {
        let mut message = NeighbourMessage::default();
        message.header.family = if ipv4 {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        if proxies {
            message.header.flags = NeighbourFlags::Proxy;
        }
        let answers = self
            .socket
            .dump(RouteNetlinkMessage::GetNeighbour(message), || {
                "neighbours".to_owned()
            })?;
        Ok(answers
            .iter()
            .filter_map(read)
            .filter(|neighbour| neighbour.proxy == proxies)
            .collect())
    }

    /// Puts `mac` into the forwarding table of the bridge that `port` belongs to, as a static
    /// entry: it does not age. A `sticky` one is moved by no frame that comes in at another
    /// port either (`bridge(8)`, `sticky`). Without `vlan` it is for frames in no VLAN and in
    /// each of the port's.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_forwarding(
        &mut self,
        port: u32,
        mac: MacAddr,
        vlan: Option<u16>,
        sticky: bool,
    ) -> Result<()> {
        let mut message = forwarding(port, mac, vlan);
        if sticky {
            message.header.flags |= NeighbourFlags::Sticky;
        }
        self.socket
            .request(
                RouteNetlinkMessage::NewNeighbour(message),
                NLM_F_CREATE | NLM_F_REPLACE,
                || format!("forwarding entry on link {port}"),
            )
            .map(drop)
    }

    /// Ends [`Rtnetlink::set_forwarding`]. One that is not there is a success.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn delete_forwarding(&mut self, port: u32, mac: MacAddr, vlan: Option<u16>) -> Result<()> {
        let deleted = self.socket.request(
            RouteNetlinkMessage::DelNeighbour(forwarding(port, mac, vlan)),
            0,
            || format!("delete forwarding entry on link {port}"),
        );
        absent_is_done(deleted)
    }

    /// Where a bridge has `mac`, if it knows: the entry's interface is the port. A bridge that
    /// knows VLANs has a place for each `vlan`, besides that of frames in none. None too where
    /// the kernel (before 5.0) cannot say of one address.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn forwarding_of(
        &mut self,
        bridge: u32,
        mac: MacAddr,
        vlan: Option<u16>,
    ) -> Result<Option<Neighbour>> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.flags = NeighbourFlags::Controller;
        message.attributes = vec![
            NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()),
            NeighbourAttribute::Controller(bridge),
        ];
        message
            .attributes
            .extend(vlan.map(NeighbourAttribute::Vlan));
        match self
            .socket
            .request(RouteNetlinkMessage::GetNeighbour(message), 0, || {
                format!("forwarding entry of {mac}")
            }) {
            Ok(answers) => Ok(answers.iter().find_map(read)),
            Err(error) if error.is_not_found() || error.is_unsupported() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The forwarding entries of all bridges.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn forwarding(&mut self) -> Result<Vec<Neighbour>> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        let answers = self
            .socket
            .dump(RouteNetlinkMessage::GetNeighbour(message), || {
                "forwarding tables".to_owned()
            })?;
        Ok(answers.iter().filter_map(read).collect())
    }
}

fn neighbour(interface: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    message.header.ifindex = interface;
    message
        .attributes
        .push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(address) => NeighbourAddress::Inet(address),
            IpAddr::V6(address) => NeighbourAddress::Inet6(address),
        }));
    message
}

fn proxy(interface: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = neighbour(interface, address);
    message.header.flags = NeighbourFlags::Proxy;
    message.header.state = NeighbourState::Permanent;
    message
}

fn forwarding(port: u32, mac: MacAddr, vlan: Option<u16>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = port;
    message.header.flags = NeighbourFlags::Controller;
    // NUD_NOARP is what `bridge fdb` calls static; NUD_PERMANENT would be the host's own.
    message.header.state = NeighbourState::Noarp;
    message
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()));
    if let Some(vlan) = vlan {
        message.attributes.push(NeighbourAttribute::Vlan(vlan));
    }
    message
}

pub(super) fn read(received: &Received) -> Option<Neighbour> {
    if received.kind != RTM_NEWNEIGH {
        return None;
    }
    let payload = received.payload.as_slice();
    let mut neighbour = Neighbour {
        interface: u32_at(payload, 4)?,
        address: None,
        mac: None,
        proxy: payload.get(10)? & NTF_PROXY != 0,
        state: u16_at(payload, 8)?,
        sticky: payload.get(10)? & NTF_STICKY != 0,
        vlan: None,
        bridge: None,
    };
    for attribute in NlasIterator::new(payload.get(12..)?).flatten() {
        match attribute.kind() {
            NDA_DST => neighbour.address = read_address(attribute.value()),
            NDA_LLADDR => neighbour.mac = attribute.value().try_into().ok(),
            NDA_VLAN => neighbour.vlan = u16_at(attribute.value(), 0),
            NDA_MASTER => neighbour.bridge = u32_at(attribute.value(), 0),
            _ => {}
        }
    }
    Some(neighbour)
}
