//! Hearing that somebody changed nftables.

use std::os::fd::{AsFd, BorrowedFd};

use crate::netlink::Result;
use crate::netlink::socket::Socket;

const NFNLGRP_NFTABLES: u32 = 7;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_DELCHAIN: u16 = 5;
const NFT_MSG_DELRULE: u16 = 8;
const NFT_MSG_DELSET: u16 = 11;

/// A subscription to changes of nftables in a network namespace, for `poll(2)`.
#[derive(Debug)]
pub struct NftablesMonitor {
    socket: Socket,
}

impl NftablesMonitor {
    /// Subscribes, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel gives no socket or no subscription.
    pub fn open() -> Result<Self> {
        let mut socket = Socket::open(netlink_sys::protocols::NETLINK_NETFILTER)?;
        socket.subscribe(NFNLGRP_NFTABLES)?;
        Ok(Self { socket })
    }

    /// Whether a table, chain, rule or set was deleted since the last call, or events were
    /// lost. Elements that come and go do not count. Never waits.
    ///
    /// # Errors
    /// The socket is unusable.
    pub fn deleted(&mut self) -> Result<bool> {
        let mut deleted = false;
        loop {
            match self.socket.heard() {
                Ok(heard) if heard.is_empty() => return Ok(deleted),
                Ok(heard) => {
                    deleted |= heard.iter().any(|message| {
                        message.kind >> 8 == NFNL_SUBSYS_NFTABLES
                            && matches!(
                                message.kind & 0xff,
                                NFT_MSG_DELTABLE
                                    | NFT_MSG_DELCHAIN
                                    | NFT_MSG_DELRULE
                                    | NFT_MSG_DELSET
                            )
                    });
                }
                Err(error) if error.is_lost() => deleted = true,
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for NftablesMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
