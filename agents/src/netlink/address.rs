//! Addresses of interfaces.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE, NlasIterator};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::route::read_address;
use super::socket::u32_at;
use super::{Result, Rtnetlink, absent_is_done};

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// linux/if_addr.h: do not test for duplicates.
const IFA_F_NODAD: u32 = 2;
/// linux/if_addr.h: make no route to the prefix.
const IFA_F_NOPREFIXROUTE: u32 = 0x200;

impl Rtnetlink {
    /// Gives an interface an address of its own: without a route to a prefix, and usable at
    /// once (an IPv6 address is not tested for duplicates). One that is there is a success.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_address(&mut self, interface: u32, address: IpAddr) -> Result<()> {
        let mut message = message(interface, address);
        let flags = match address {
            IpAddr::V4(_) => IFA_F_NOPREFIXROUTE,
            IpAddr::V6(_) => IFA_F_NOPREFIXROUTE | IFA_F_NODAD,
        };
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::from_bits_retain(
                flags,
            )));
        self.socket
            .request(
                RouteNetlinkMessage::NewAddress(message),
                NLM_F_CREATE | NLM_F_REPLACE,
                || format!("address {address} on link {interface}"),
            )
            .map(drop)
    }

    /// Takes an address from an interface. One that is not there is a success.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn delete_address(&mut self, interface: u32, address: IpAddr) -> Result<()> {
        let deleted = self.socket.request(
            RouteNetlinkMessage::DelAddress(message(interface, address)),
            0,
            || format!("delete address {address} on link {interface}"),
        );
        absent_is_done(deleted)
    }

    /// The addresses of all interfaces: index and address.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn addresses(&mut self) -> Result<Vec<(u32, IpAddr)>> {
        let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.socket.dump(message, || "addresses".to_owned())?;
        Ok(answers
            .iter()
            .filter(|received| received.kind == libc::RTM_NEWADDR)
            .filter_map(|received| {
                let payload = received.payload.as_slice();
                let interface = u32_at(payload, 4)?;
                let mut found = None;
                for attribute in NlasIterator::new(payload.get(8..)?).flatten() {
                    match attribute.kind() {
                        IFA_LOCAL => found = read_address(attribute.value()),
                        IFA_ADDRESS if found.is_none() => found = read_address(attribute.value()),
                        _ => {}
                    }
                }
                Some((interface, found?))
            })
            .collect())
    }
}

fn message(interface: u32, address: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    message.header.prefix_len = if address.is_ipv4() { 32 } else { 128 };
    message.header.scope = AddressScope::Universe;
    message.header.index = interface;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    message
}
