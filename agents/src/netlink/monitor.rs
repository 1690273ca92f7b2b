//! Hearing of interfaces that appear, change and vanish.

use std::os::fd::{AsFd, BorrowedFd};

use super::link::read;
use super::socket::Socket;
use super::{Error, Link, Result};

const RTNLGRP_LINK: u32 = 1;

/// What happened to an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// It appeared, or something about it changed.
    Present(Link),
    /// It is gone. A bridge's port that leaves the bridge is not.
    Gone(Link),
}

/// A subscription to the interfaces of a network namespace, for `poll(2)`.
///
/// Subscribe first, then list the interfaces: what changes in between is heard.
#[derive(Debug)]
pub struct LinkMonitor {
    socket: Socket,
}

impl LinkMonitor {
    /// Subscribes, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel gives no socket or no subscription.
    pub fn open() -> Result<Self> {
        let mut socket = Socket::open(netlink_sys::protocols::NETLINK_ROUTE)?;
        socket.subscribe(RTNLGRP_LINK)?;
        Ok(Self { socket })
    }

    /// What was heard since the last call, in order; empty if nothing. Never waits.
    ///
    /// # Errors
    /// [`Error::is_lost`]: events were lost, list the interfaces anew. Else the socket is
    /// unusable.
    pub fn events(&mut self) -> Result<Vec<LinkEvent>> {
        let mut events = Vec::new();
        loop {
            let heard = self.socket.heard()?;
            if heard.is_empty() {
                return Ok(events);
            }
            events.extend(heard.iter().filter_map(|received| {
                let link = read(received)?;
                // AF_BRIDGE notices tell of ports; such a DELLINK is a port that left.
                let bridge = received.payload.first().copied() == Some(7);
                match received.kind {
                    libc::RTM_DELLINK if !bridge => Some(LinkEvent::Gone(link)),
                    libc::RTM_NEWLINK if !bridge => Some(LinkEvent::Present(link)),
                    _ => None,
                }
            }));
        }
    }
}

impl AsFd for LinkMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Error {
    /// A subscription's events came faster than they were read, and some are lost.
    pub fn is_lost(&self) -> bool {
        self.errno() == libc::ENOBUFS
    }
}
