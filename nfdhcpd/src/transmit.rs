//! Frames to guests, through one packet socket for all interfaces.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};

use crate::mmsg::Sender;

/// Frames to guests. They go past the host's bridges, routes and packet filters, straight into
/// the interface.
pub struct Transmitter {
    socket: OwnedFd,
    sender: Sender,
}

impl Transmitter {
    /// Opens the socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// `EPERM`: we have no CAP_NET_RAW.
    pub fn open() -> io::Result<Self> {
        // Without a protocol it receives nothing.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        // One guest that does not take its frames must not use up the memory for the others'.
        if setsockopt(&socket, sockopt::SndBufForce, &(8 << 20)).is_err() {
            setsockopt(&socket, sockopt::SndBuf, &(8 << 20))?;
        }
        Ok(Self {
            socket,
            sender: Sender::default(),
        })
    }

    /// Puts a frame for the interface with this index on the list.
    pub fn push(&mut self, interface: u32, frame: &[u8]) {
        self.sender.push(interface, frame);
    }

    /// Sends what is on the list. `failed` hears the number of each frame that was not sent, from
    /// 0 in the order of the list, and why.
    pub fn flush(&mut self, failed: impl FnMut(usize, io::Error)) {
        if !self.sender.is_empty() {
            self.sender.send(self.socket.as_fd(), failed);
        }
    }
}
