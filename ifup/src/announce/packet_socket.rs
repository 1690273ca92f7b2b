//! A frame out of an interface, as it is (`packet(7)`).

#![allow(unsafe_code)] // no safe wrapper makes the address of an interface

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// A socket that only sends.
///
/// # Errors
/// What the kernel says.
pub fn open() -> io::Result<OwnedFd> {
    // Protocol 0: it hears nothing.
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Packet, SockType::Raw, flags, None)?)
}

/// Sends a frame. Never waits.
///
/// # Errors
/// What the kernel says: the interface is down or gone, or its queue is full.
pub fn send(socket: &OwnedFd, interface: u32, frame: &[u8]) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).unwrap_or_default(),
        sll_protocol: 0,
        sll_ifindex: i32::try_from(interface).unwrap_or(0),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let size = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or(0);
    // SAFETY: the frame and the address live until the call returns, and their lengths are given.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const address).cast(),
            size,
        )
    };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
