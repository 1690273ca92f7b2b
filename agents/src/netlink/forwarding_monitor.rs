//! Hearing of addresses that bridges learn.

use std::os::fd::{AsFd, BorrowedFd};

use super::neighbour::read;
use super::socket::Socket;
use super::{Neighbour, Result};

const RTNLGRP_NEIGH: u32 = 3;
/// `AF_BRIDGE` (`linux/socket.h`), as a message's family.
const FAMILY_BRIDGE: u8 = 7;

/// A subscription to the forwarding tables of all bridges of a network namespace, for `poll(2)`.
///
/// Subscribe first, then list the entries: what is learned in between is heard.
#[derive(Debug)]
pub struct ForwardingMonitor {
    socket: Socket,
}

impl ForwardingMonitor {
    /// Subscribes, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel gives no socket or no subscription.
    pub fn open() -> Result<Self> {
        let mut socket = Socket::open(netlink_sys::protocols::NETLINK_ROUTE)?;
        socket.subscribe(RTNLGRP_NEIGH)?;
        Ok(Self { socket })
    }

    /// The entries that appeared or moved since the last call, in order; empty if none. Never
    /// waits.
    ///
    /// # Errors
    /// [`super::Error::is_lost`]: events were lost, list the entries anew. Else the socket is
    /// unusable.
    pub fn events(&mut self) -> Result<Vec<Neighbour>> {
        let mut events = Vec::new();
        loop {
            let heard = self.socket.heard()?;
            if heard.is_empty() {
                return Ok(events);
            }
            let of_bridges = heard
                .iter()
                .filter(|received| received.payload.first() == Some(&FAMILY_BRIDGE));
            events.extend(of_bridges.filter_map(read));
        }
    }
}

impl AsFd for ForwardingMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
