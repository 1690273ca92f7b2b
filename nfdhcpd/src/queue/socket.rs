//! Our own client of the kernel's queue, over one netlink socket a queue.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};

use super::message::{self, Message, Verdict};
use super::{PacketQueue, QueuedPacket};
use crate::mmsg::Receiver;
use crate::packet::ip::SIZE_LIMIT;

/// Packets in one batch. More gain nothing, and make the first of them wait.
const BATCH: usize = 64;
/// The message's headers and attributes around the packet, at most.
const OVERHEAD: usize = 256;
/// How long the kernel may take to answer our one request.
const ANSWER_MS: u16 = 2000;

/// A queue of the kernel.
pub struct NetfilterQueue {
    number: u16,
    socket: OwnedFd,
    receiver: Receiver,
    received: usize,
    /// The highest id of the batch.
    last: Option<u32>,
    verdicts: Vec<u8>,
    /// Whether the verdicts on a batch before could not be sent: its packets still wait.
    owes: bool,
}

impl NetfilterQueue {
    /// Binds the queue `number` in the network namespace of the calling thread. The kernel keeps
    /// at most `length` packets waiting, and drops further ones.
    ///
    /// # Errors
    /// `EBUSY`: another program has this queue; `EPERM`: we have no CAP_NET_ADMIN.
    pub fn bind(number: u16, length: u32) -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkNetFilter,
        )?;
        bind(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            &NetlinkAddr::new(0, 0),
        )?;
        // A stall of 10 ms at full rate is a thousand packets of about 1 KiB of memory each.
        if setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20)).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &(8 << 20))?;
        }
        let mut request = Vec::new();
        let range = u32::try_from(SIZE_LIMIT + 1).unwrap_or(u32::MAX);
        message::bind(number, range, length, &mut request);
        let queue = Self {
            number,
            socket,
            receiver: Receiver::new(BATCH, SIZE_LIMIT + 1 + OVERHEAD),
            received: 0,
            last: None,
            verdicts: Vec::with_capacity(32 * (BATCH + 1)),
            owes: false,
        };
        queue.send(&request)?;
        queue.await_answer()?;
        Ok(queue)
    }

    /// The queue's number.
    pub fn number(&self) -> u16 {
        self.number
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        loop {
            match send(self.socket.as_raw_fd(), bytes, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for the answer to [`message::bind`]. The rule that queues is not there yet when we
    /// bind, but another's may be: a packet that comes before the answer is let go on.
    fn await_answer(&self) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        let mut buffer = [0; SIZE_LIMIT + 1 + OVERHEAD];
        loop {
            let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, PollTimeout::from(ANSWER_MS))? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the kernel does not answer",
                ));
            }
            let length = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EINTR | Errno::EAGAIN | Errno::ENOBUFS) => continue,
                Err(error) => return Err(error.into()),
            };
            match message::parse(buffer.get(..length).unwrap_or_default()) {
                Message::Result(0) => return Ok(()),
                Message::Result(errno) => return Err(io::Error::from_raw_os_error(errno)),
                Message::Packet(packet) => {
                    let mut verdict = Vec::new();
                    message::verdict(self.number, packet.id, Verdict::Accept, &mut verdict);
                    self.send(&verdict)?;
                }
                Message::Unknown => {}
            }
        }
    }
}

impl AsFd for NetfilterQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl PacketQueue for NetfilterQueue {
    fn is_drained(&self) -> bool {
        self.received < BATCH
    }

    fn receive(&mut self) -> io::Result<usize> {
        self.last = None;
        self.received = match self.receiver.receive(self.socket.as_fd()) {
            Ok(count) => count,
            Err(error) => {
                self.received = 0;
                return match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                    _ => Err(error),
                };
            }
        };
        // Ids count up; the difference is taken so that their wrapping at 2^32 does no harm.
        let ids =
            (0..self.received).filter_map(|index| message::packet_id(self.receiver.get(index)?));
        self.last = ids.reduce(|last, id| {
            if id.wrapping_sub(last) < 1 << 31 {
                id
            } else {
                last
            }
        });
        Ok(self.received)
    }

    fn packet(&self, index: usize) -> Option<QueuedPacket<'_>> {
        match message::parse(self.receiver.get(index)?) {
            Message::Packet(packet) => Some(packet),
            Message::Result(_) | Message::Unknown => None,
        }
    }

    fn settle(&mut self, pass: &[u32]) -> io::Result<()> {
        self.verdicts.clear();
        for id in pass {
            message::verdict(self.number, *id, Verdict::Accept, &mut self.verdicts);
        }
        // What is left of the batch, and nothing newer.
        if let Some(last) = self.last
            && (pass.len() < self.received || self.owes)
        {
            message::verdict_up_to(self.number, last, Verdict::Drop, &mut self.verdicts);
        }
        if self.verdicts.is_empty() {
            return Ok(());
        }
        let sent = self.send(&self.verdicts);
        self.owes = sent.is_err();
        sent
    }
}
