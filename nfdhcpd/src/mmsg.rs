//! Many datagrams in one system call: `recvmmsg(2)` and `sendmmsg(2)`.
//!
//! At the rate that one guest can send, a system call per packet is half of the work.

#![allow(unsafe_code)] // the two system calls take arrays of pointers, which no safe wrapper keeps

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// [`libc::AF_PACKET`] in the type of the address.
const AF_PACKET: u16 = 17;

/// Buffers for datagrams to receive.
pub struct Receiver {
    size: usize,
    buffers: Box<[u8]>,
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
    received: usize,
}

impl Receiver {
    /// Room for `count` datagrams of `size` bytes; what is longer is cut off.
    pub fn new(count: usize, size: usize) -> Self {
        Self {
            size,
            buffers: vec![0; count.saturating_mul(size)].into_boxed_slice(),
            headers: Vec::with_capacity(count),
            vectors: Vec::with_capacity(count),
            received: 0,
        }
    }

    /// Receives what is there, at most the number of buffers; returns how many. Never waits:
    /// `WouldBlock` if there is nothing.
    ///
    /// # Errors
    /// What the kernel says; nothing was received then.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.received = 0;
        self.vectors.clear();
        self.headers.clear();
        // The pointers are made anew each time, so that none outlives the buffers it points to.
        for buffer in self.buffers.chunks_exact_mut(self.size) {
            self.vectors.push(libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: buffer.len(),
            });
        }
        for vector in &mut self.vectors {
            self.headers.push(header(vector, ptr::null_mut(), 0));
        }
        let count = libc::c_uint::try_from(self.headers.len()).unwrap_or(libc::c_uint::MAX);
        // SAFETY: `headers` holds `count` headers, each with one vector that describes a separate
        // part of `buffers`; all of them live, and are not touched, until the call returns.
        let result = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        self.received = usize::try_from(result).map_err(|_| io::Error::last_os_error())?;
        Ok(self.received)
    }

    /// The datagram with this number of the last [`receive`](Self::receive).
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let length = self
            .headers
            .get(index)
            .filter(|_| index < self.received)?
            .msg_len as usize;
        let start = index * self.size;
        self.buffers.get(start..start + length.min(self.size))
    }
}

/// Frames to send, each through an interface of its own.
#[derive(Default)]
pub struct Sender {
    frames: Vec<u8>,
    messages: Vec<Outgoing>,
    addresses: Vec<libc::sockaddr_ll>,
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

struct Outgoing {
    interface: u32,
    end: usize,
}

impl Sender {
    /// Appends a frame to be sent through the interface with this index.
    pub fn push(&mut self, interface: u32, frame: &[u8]) {
        self.frames.extend_from_slice(frame);
        self.messages.push(Outgoing {
            interface,
            end: self.frames.len(),
        });
    }

    /// How many frames wait.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether no frame waits.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Sends all frames through `socket`, of AF_PACKET, and empties the list. `failed` hears the
    /// number of each frame that was not sent, and why; the others are sent all the same.
    pub fn send(&mut self, socket: BorrowedFd<'_>, mut failed: impl FnMut(usize, io::Error)) {
        self.addresses.clear();
        self.vectors.clear();
        self.headers.clear();
        let mut start = 0;
        for message in &self.messages {
            let frame = self.frames.get_mut(start..message.end).unwrap_or_default();
            start = message.end;
            self.addresses.push(address(message.interface, frame));
            self.vectors.push(libc::iovec {
                iov_base: frame.as_mut_ptr().cast(),
                iov_len: frame.len(),
            });
        }
        const LENGTH: libc::socklen_t = 20;
        const { assert!(size_of::<libc::sockaddr_ll>() == 20) };
        for (vector, address) in self.vectors.iter_mut().zip(&mut self.addresses) {
            self.headers
                .push(header(vector, ptr::from_mut(address).cast(), LENGTH));
        }
        let mut next = 0;
        while let Some(headers @ [_, ..]) = self.headers.get_mut(next..) {
            let count = libc::c_uint::try_from(headers.len()).unwrap_or(libc::c_uint::MAX);
            // SAFETY: `headers` are `count` headers, each with one vector that describes a frame,
            // and one address; all of them live, and are not touched, until the call returns.
            let result = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    headers.as_mut_ptr(),
                    count,
                    libc::MSG_DONTWAIT,
                )
            };
            match usize::try_from(result) {
                Ok(sent) => next += sent.max(1),
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    // The error is of the first frame: skip it, and go on with the next.
                    error => {
                        failed(next, error);
                        next += 1;
                    }
                },
            }
        }
        self.frames.clear();
        self.messages.clear();
    }
}

fn header(
    vector: &mut libc::iovec,
    name: *mut libc::c_void,
    name_length: libc::socklen_t,
) -> libc::mmsghdr {
    libc::mmsghdr {
        msg_hdr: libc::msghdr {
            msg_name: name,
            msg_namelen: name_length,
            msg_iov: vector,
            msg_iovlen: 1,
            msg_control: ptr::null_mut(),
            msg_controllen: 0,
            msg_flags: 0,
        },
        msg_len: 0,
    }
}

fn address(interface: u32, frame: &[u8]) -> libc::sockaddr_ll {
    let mut destination = [0; 8];
    let protocol = match *frame {
        [a, b, c, d, e, f, _, _, _, _, _, _, high, low, ..] => {
            destination = [a, b, c, d, e, f, 0, 0];
            [high, low]
        }
        _ => [0, 0],
    };
    libc::sockaddr_ll {
        sll_family: AF_PACKET,
        // In the order of the network, as the frame has it.
        sll_protocol: u16::from_ne_bytes(protocol),
        // The kernel's type is signed, its indices are positive; 0 is refused as no interface.
        sll_ifindex: i32::try_from(interface).unwrap_or(0),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: destination,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn datagrams_are_received_in_order_and_cut_to_their_buffers() {
        let (near, far) = UnixDatagram::pair().unwrap();
        let mut receiver = Receiver::new(4, 8);
        assert_eq!(
            receiver.receive(near.as_fd()).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        for text in ["one", "two", "a long one", "four", "five"] {
            far.send(text.as_bytes()).unwrap();
        }
        assert_eq!(receiver.receive(near.as_fd()).unwrap(), 4);
        assert_eq!(receiver.get(0), Some(&b"one"[..]));
        assert_eq!(receiver.get(2), Some(&b"a long o"[..]));
        assert_eq!(receiver.get(4), None);
        assert_eq!(receiver.receive(near.as_fd()).unwrap(), 1);
        assert_eq!(receiver.get(0), Some(&b"five"[..]));
        assert_eq!(receiver.get(1), None);
    }

    #[test]
    fn a_frame_that_cannot_be_sent_does_not_keep_back_the_others() {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
        let socket = match socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::empty(),
            None,
        ) {
            Ok(socket) => socket,
            Err(nix::errno::Errno::EPERM) => {
                return harness::skip("a_frame_that_cannot_be_sent…", "needs CAP_NET_RAW");
            }
            Err(error) => panic!("{error}"),
        };
        let mut sender = Sender::default();
        let no_interface = 0x7fff_fff0;
        for interface in [no_interface, no_interface, no_interface] {
            sender.push(interface, &[0; 60]);
        }
        assert_eq!(sender.len(), 3);
        let mut errors = Vec::new();
        sender.send(socket.as_fd(), |index, error| {
            errors.push((index, error.raw_os_error()))
        });
        let enxio = Some(libc::ENXIO);
        assert_eq!(errors, [(0, enxio), (1, enxio), (2, enxio)]);
        assert!(sender.is_empty());
    }
}
