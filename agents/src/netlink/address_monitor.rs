//! Hearing of IPv6 addresses that interfaces get and lose.

use std::net::Ipv6Addr;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::NlasIterator;

use super::Result;
use super::socket::{Received, Socket, u32_at};

const RTNLGRP_IPV6_IFADDR: u32 = 9;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// What happened to an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressEvent {
    /// The index of the interface.
    pub interface: u32,
    /// The address.
    pub address: Ipv6Addr,
    /// Whether the interface has it now, or has it no more.
    pub present: bool,
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
    let present = match received.kind {
        libc::RTM_NEWADDR => true,
        libc::RTM_DELADDR => false,
        _ => return None,
    };
    let payload = received.payload.as_slice();
    let interface = u32_at(payload, 4)?;
    let (mut peer, mut local) = (None, None);
    for attribute in NlasIterator::new(payload.get(8..)?).flatten() {
        let octets = <[u8; 16]>::try_from(attribute.value());
        match attribute.kind() {
            IFA_ADDRESS => peer = octets.ok(),
            // Only there on a point-to-point link, where IFA_ADDRESS is the other end's.
            IFA_LOCAL => local = octets.ok(),
            _ => {}
        }
    }
    let address = local.or(peer)?.into();
    Some(AddressEvent {
        interface,
        address,
        present,
    })
}
