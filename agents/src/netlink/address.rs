//! IPv6 addresses of the host's interfaces, and hearing of their changes.

use std::net::Ipv6Addr;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::NlasIterator;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::socket::{Received, Socket, u32_at};
use super::{Result, Rtnetlink};

const RTNLGRP_IPV6_IFADDR: u32 = 9;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// An IPv6 address that an interface has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address6 {
    /// The interface's index.
    pub interface: u32,
    /// The address.
    pub address: Ipv6Addr,
}

/// What happened to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressEvent {
    /// The interface has it.
    Present(Address6),
    /// The interface has it no more.
    Gone(Address6),
}

impl Rtnetlink {
    /// The IPv6 addresses of all interfaces.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn addresses6(&mut self) -> Result<Vec<Address6>> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet6;
        let message = RouteNetlinkMessage::GetAddress(message);
        let answers = self.socket.dump(message, || "IPv6 addresses".to_owned())?;
        Ok(answers
            .iter()
            .filter_map(read)
            .filter_map(|event| match event {
                AddressEvent::Present(address) => Some(address),
                AddressEvent::Gone(_) => None,
            })
            .collect())
    }
}

/// A subscription to the IPv6 addresses of a network namespace, for `poll(2)`.
///
/// Subscribe first, then list the addresses: what changes in between is heard.
#[derive(Debug)]
pub struct AddressMonitor {
    socket: Socket,
}

impl AddressMonitor {
    /// Subscribes, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel gives no socket or no subscription.
    pub fn open() -> Result<Self> {
        let mut socket = Socket::open(netlink_sys::protocols::NETLINK_ROUTE)?;
        socket.subscribe(RTNLGRP_IPV6_IFADDR)?;
        Ok(Self { socket })
    }

    /// What was heard since the last call, in order; empty if nothing. Never waits.
    ///
    /// # Errors
    /// [`super::Error::is_lost`]: events were lost, list the addresses anew. Else the socket is
    /// unusable.
    pub fn events(&mut self) -> Result<Vec<AddressEvent>> {
        let mut events = Vec::new();
        loop {
            let heard = self.socket.heard()?;
            if heard.is_empty() {
                return Ok(events);
            }
            events.extend(heard.iter().filter_map(read));
        }
    }
}

impl AsFd for AddressMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Reads RTM_NEWADDR and RTM_DELADDR (`struct ifaddrmsg`, then attributes).
fn read(received: &Received) -> Option<AddressEvent> {
    let payload = received.payload.as_slice();
    if payload.first().copied() != u8::try_from(libc::AF_INET6).ok() {
        return None;
    }
    let interface = u32_at(payload, 4)?;
    let (mut peer, mut local) = (None, None);
    for attribute in NlasIterator::new(payload.get(8..)?).flatten() {
        let address = || {
            <[u8; 16]>::try_from(attribute.value())
                .ok()
                .map(Ipv6Addr::from)
        };
        match attribute.kind() {
            IFA_ADDRESS => peer = address(),
            // Only there on a point-to-point link, where IFA_ADDRESS is the other end's.
            IFA_LOCAL => local = address(),
            _ => {}
        }
    }
    let address = Address6 {
        interface,
        address: local.or(peer)?,
    };
    match received.kind {
        libc::RTM_NEWADDR => Some(AddressEvent::Present(address)),
        libc::RTM_DELADDR => Some(AddressEvent::Gone(address)),
        _ => None,
    }
}
