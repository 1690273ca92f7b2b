//! Frames that come in by a port and say where an address is: RARP (RFC 903), with which
//! hypervisors announce a guest that has moved, ARP, and neighbour discovery (RFC 4861).

#![allow(unsafe_code)] // no safe wrapper binds to an interface or attaches a filter

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use agents::addr::MacAddr;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socket};

/// At most so many frames are read at once: the others wait, and are lost if there are too many.
const MOST: usize = 256;
/// Destination and source.
const KEPT: u32 = 12;

/// A socket that hears such frames on one port (`packet(7)`).
#[derive(Debug)]
pub struct ClaimSocket(OwnedFd);

const fn statement(code: u32, k: u32) -> libc::sock_filter {
    jump(code, k, 0, 0)
}

#[allow(clippy::cast_possible_truncation)] // the codes of linux/filter.h are below 256
const fn jump(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

/// The frames that are heard, in the kernel's classic filter language (linux/filter.h).
const FILTER: [libc::sock_filter; 10] = {
    use libc::{BPF_ABS, BPF_B, BPF_H, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET};
    let equal = BPF_JMP | BPF_JEQ | BPF_K;
    [
        statement(BPF_LD | BPF_H | BPF_ABS, 12),
        jump(equal, 0x8035, 8, 0),
        jump(equal, 0x0806, 7, 0),
        jump(equal, 0x86dd, 0, 5),
        // ICMPv6 135 and 136, neighbour solicitation and advertisement
        statement(BPF_LD | BPF_B | BPF_ABS, 20),
        jump(equal, 58, 0, 3),
        statement(BPF_LD | BPF_B | BPF_ABS, 54),
        jump(BPF_JMP | BPF_JGE | BPF_K, 137, 1, 0),
        jump(BPF_JMP | BPF_JGE | BPF_K, 135, 1, 0),
        statement(BPF_RET | BPF_K, 0),
    ]
};

impl ClaimSocket {
    /// Hears what comes in by an interface.
    ///
    /// # Errors
    /// The kernel refuses: the interface is gone, the capability CAP_NET_RAW is not there, or
    /// the kernel is older than 4.20.
    pub fn open(interface: u32) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // Protocol 0: it hears nothing before it is bound.
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        let mut filter: Vec<libc::sock_filter> = FILTER.to_vec();
        filter.push(statement(libc::BPF_RET | libc::BPF_K, KEPT));
        let program = libc::sock_fprog {
            len: u16::try_from(filter.len()).unwrap_or(0),
            filter: filter.as_mut_ptr(),
        };
        set(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
        let on: libc::c_int = 1;
        // Not what goes out there: that is what the guests of this host say.
        set(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &on)?;
        let address = libc::sockaddr_ll {
            sll_family: u16::try_from(libc::AF_PACKET).unwrap_or_default(),
            // Else only what the host itself takes would be heard, which is not what a bridge does.
            sll_protocol: u16::try_from(libc::ETH_P_ALL).unwrap_or(0).to_be(),
            sll_ifindex: i32::try_from(interface).unwrap_or(-1),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let size = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or(0);
        // SAFETY: the address lives until the call returns, and its length is given.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) };
        if bound < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(socket))
    }

    /// For `poll(2)`.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The source addresses of what was heard since the last call. Never waits.
    pub fn sources(&self) -> Vec<MacAddr> {
        let mut sources = Vec::new();
        let mut frame = [0; 64];
        for _ in 0..MOST {
            // An interface that went down makes an error, once.
            let Ok(length) = recv(self.0.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT) else {
                break;
            };
            let source = frame.get(6..12).filter(|_| length >= 12);
            let Some(source) = source.and_then(|source| <[u8; 6]>::try_from(source).ok()) else {
                continue;
            };
            let source = MacAddr::new(source);
            if !sources.contains(&source) {
                sources.push(source);
            }
        }
        sources
    }
}

fn set<T>(socket: &OwnedFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: the value lives until the call returns, and its length is given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
