//! The socket: a request is sent, its answers are read until the acknowledgement.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkSerializable,
    NlasIterator,
};
use netlink_sys::{Socket as RawSocket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};

use super::{Error, Result};

/// The kernel's dumps come in pieces of up to 32 KiB; a piece is never longer.
const RECEIVE_SIZE: usize = 64 * 1024;
const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;
/// The error message holds the header of the request alone, and then attributes.
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// How often a dump that changed under us is repeated.
const DUMP_ATTEMPTS: u32 = 5;

/// One message of the kernel: its type and what follows the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) kind: u16,
    pub(super) payload: Vec<u8>,
}

/// A failed message of a batch: its sequence number, error, the kernel's words.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) sequence: u32,
    pub(super) errno: i32,
    pub(super) explanation: Option<String>,
}

#[derive(Debug)]
pub(super) struct Socket {
    raw: RawSocket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}

impl Socket {
    pub(super) fn open(protocol: isize) -> Result<Self> {
        Self::open_raw(protocol).map_err(|error| Error::new("netlink socket", error))
    }

    fn open_raw(protocol: isize) -> io::Result<Self> {
        let mut raw = RawSocket::new(protocol)?;
        raw.bind_auto()?;
        raw.connect(&SocketAddr::new(0, 0))?;
        raw.set_ext_ack(true)?;
        raw.set_cap_ack(true)?;
        // Dumps filtered by the kernel instead of here. Older kernels have it not.
        let _ = raw.set_netlink_get_strict_chk(true);
        Ok(Self {
            raw,
            sequence: 0,
            buffer: Vec::new(),
        })
    }

    /// Hears a multicast group from now on; the socket no longer blocks.
    pub(super) fn subscribe(&mut self, group: u32) -> Result<()> {
        let subscribe = || -> io::Result<()> {
            self.raw.add_membership(group)?;
            self.raw.set_non_blocking(true)?;
            // A burst of interfaces is ordinary; without the privilege the default must do.
            let _ = setsockopt(&self.raw, sockopt::RcvBufForce, &(4 << 20));
            Ok(())
        };
        subscribe().map_err(|error| Error::new(format!("netlink group {group}"), error))
    }

    pub(super) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends one request and waits for its acknowledgement; what else the kernel answers is
    /// returned. `what` names the request in an error.
    pub(super) fn request<M: NetlinkSerializable>(
        &mut self,
        message: M,
        flags: u16,
        what: impl FnOnce() -> String,
    ) -> Result<Vec<Received>> {
        match self.exchange(message, flags | NLM_F_ACK) {
            Ok((answers, _)) => Ok(answers),
            Err(failure) => Err(failure.named(what())),
        }
    }

    /// Asks for all objects of a kind, again if they changed meanwhile.
    pub(super) fn dump<M: NetlinkSerializable + Clone>(
        &mut self,
        message: M,
        what: impl FnOnce() -> String,
    ) -> Result<Vec<Received>> {
        let mut attempt = 1;
        loop {
            match self.exchange(message.clone(), NLM_F_DUMP) {
                // The last attempt's answer is used: each object in it is true by itself.
                Ok((answers, interrupted)) if !interrupted || attempt >= DUMP_ATTEMPTS => {
                    return Ok(answers);
                }
                Ok(_) => attempt += 1,
                Err(failure) => return Err(failure.named(what())),
            }
        }
    }

    /// The first piece of a dump: for what comes first in it, however long it is. The rest is
    /// left unread, so the socket is of no further use.
    ///
    /// The kernel makes the next piece while it hands one out, unless a queue is half full: the
    /// queue is as small as can be here, and the piece is left in it.
    pub(super) fn dump_beginning<M: NetlinkSerializable>(
        mut self,
        message: M,
        what: impl FnOnce() -> String,
    ) -> Result<Vec<Received>> {
        let sequence = self.next_sequence();
        let bytes = serialize(message, NLM_F_REQUEST | NLM_F_DUMP, sequence);
        let _ = setsockopt(&self.raw, sockopt::RcvBuf, &0);
        let begun = self
            .send(&bytes)
            .and_then(|()| self.receive(libc::MSG_PEEK));
        if let Err(refusal) = begun {
            return Err(refusal.named(what()));
        }
        let mut answers = Vec::new();
        for message in Messages::new(&self.buffer) {
            let (errno, explanation) = match message.kind {
                NLMSG_ERROR => message.error(),
                NLMSG_DONE => message.done(),
                kind => {
                    answers.push(Received {
                        kind,
                        payload: message.payload.to_vec(),
                    });
                    continue;
                }
            };
            if errno != 0 {
                return Err(Refusal { errno, explanation }.named(what()));
            }
        }
        Ok(answers)
    }

    fn exchange<M: NetlinkSerializable>(
        &mut self,
        message: M,
        flags: u16,
    ) -> std::result::Result<(Vec<Received>, bool), Refusal> {
        let sequence = self.next_sequence();
        let bytes = serialize(message, flags | NLM_F_REQUEST, sequence);
        self.send(&bytes)?;
        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            self.receive(0)?;
            for message in Messages::new(&self.buffer) {
                if message.sequence != sequence {
                    continue; // the answer to a request that was given up
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_ERROR => {
                        return match message.error() {
                            (0, _) => Ok((answers, interrupted)),
                            (errno, explanation) => Err(Refusal { errno, explanation }),
                        };
                    }
                    NLMSG_DONE => {
                        return match message.done() {
                            (0, _) => Ok((answers, interrupted)),
                            (errno, explanation) => Err(Refusal { errno, explanation }),
                        };
                    }
                    kind => answers.push(Received {
                        kind,
                        payload: message.payload.to_vec(),
                    }),
                }
            }
        }
    }

    /// Sends messages made by [`serialize`] in one datagram and returns what of them failed.
    ///
    /// nfnetlink has put its errors into our receive queue when `send` returns, and
    /// acknowledges nothing else: an empty queue is success.
    pub(super) fn batch(&mut self, bytes: &[u8], what: &str) -> Result<Vec<Failure>> {
        let name = |refusal: Refusal| refusal.named(what.to_owned());
        self.drain();
        if bytes.len() > 200_000 {
            // The kernel takes no datagram longer than the send buffer.
            let size = bytes.len().saturating_mul(2);
            let _ = setsockopt(&self.raw, sockopt::SndBufForce, &size);
        }
        self.send(bytes).map_err(name)?;
        let mut failures = Vec::new();
        loop {
            match self.receive(libc::MSG_DONTWAIT) {
                Ok(()) => {}
                Err(refusal) if refusal.errno == libc::EAGAIN => return Ok(failures),
                Err(refusal) => return Err(name(refusal)),
            }
            for message in Messages::new(&self.buffer) {
                if message.kind == NLMSG_ERROR
                    && let (errno, explanation) = message.error()
                    && errno != 0
                {
                    failures.push(Failure {
                        sequence: message.sequence,
                        errno,
                        explanation,
                    });
                }
            }
        }
    }

    /// The next messages of a subscription; none if there are none now.
    ///
    /// # Errors
    /// ENOBUFS: messages were lost, all must be asked for anew.
    pub(super) fn heard(&mut self) -> Result<Vec<Received>> {
        match self.receive(libc::MSG_DONTWAIT) {
            Ok(()) => {}
            Err(refusal) if refusal.errno == libc::EAGAIN => return Ok(Vec::new()),
            Err(refusal) => return Err(refusal.named("netlink events".to_owned())),
        }
        Ok(Messages::new(&self.buffer)
            .map(|message| Received {
                kind: message.kind,
                payload: message.payload.to_vec(),
            })
            .collect())
    }

    /// Throws away what an abandoned request left in the queue.
    fn drain(&mut self) {
        while self.receive(libc::MSG_DONTWAIT).is_ok() {}
    }

    fn send(&self, bytes: &[u8]) -> std::result::Result<(), Refusal> {
        loop {
            match self.raw.send(bytes, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn receive(&mut self, flags: i32) -> std::result::Result<(), Refusal> {
        loop {
            self.buffer.clear();
            self.buffer.reserve(RECEIVE_SIZE);
            match self.raw.recv(&mut self.buffer, flags) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.raw.as_raw_fd()
    }
}

/// An error number with the kernel's words, not yet named after the request.
#[derive(Debug)]
struct Refusal {
    errno: i32,
    explanation: Option<String>,
}

impl Refusal {
    fn named(self, what: String) -> Error {
        Error::new(what, io::Error::from_raw_os_error(self.errno)).explained(self.explanation)
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self {
            errno: error.raw_os_error().unwrap_or(libc::EIO),
            explanation: None,
        }
    }
}

/// The bytes of one message, padded to the next.
pub(super) fn serialize<M: NetlinkSerializable>(message: M, flags: u16, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(
        header,
        netlink_packet_core::NetlinkPayload::InnerMessage(message),
    );
    message.finalize();
    let length = message.buffer_len();
    let mut bytes = vec![0; length.next_multiple_of(4)];
    if let Some(exact) = bytes.get_mut(..length) {
        message.serialize(exact);
    }
    bytes
}

/// One message within a received datagram.
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl Message<'_> {
    /// Of an NLMSG_ERROR: its (positive) error number and explanation.
    fn error(&self) -> (i32, Option<String>) {
        let errno = i32_at(self.payload, 0).map_or(libc::EBADMSG, i32::wrapping_neg);
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return (errno, None);
        }
        // After the number comes the request: its header alone if capped, else all of it.
        let request = if self.flags & NLM_F_CAPPED != 0 || errno == 0 {
            HEADER
        } else {
            u32_at(self.payload, 4)
                .and_then(|length| usize::try_from(length).ok())
                .map_or(HEADER, |length| length.next_multiple_of(4))
        };
        let attributes = self.payload.get(4 + request..).unwrap_or_default();
        (errno, explanation(attributes))
    }

    /// Of an NLMSG_DONE: the same.
    fn done(&self) -> (i32, Option<String>) {
        let errno = i32_at(self.payload, 0).map_or(0, i32::wrapping_neg);
        let attributes = match self.flags & NLM_F_ACK_TLVS {
            0 => &[],
            _ => self.payload.get(4..).unwrap_or_default(),
        };
        (errno, explanation(attributes))
    }
}

fn explanation(attributes: &[u8]) -> Option<String> {
    NlasIterator::new(attributes)
        .flatten()
        .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)
        .map(|attribute| {
            let text = String::from_utf8_lossy(attribute.value());
            text.trim_end_matches(['\0', '.']).to_owned()
        })
        .filter(|text| !text.is_empty())
}

/// The messages of a datagram; ends at the first that is cut off.
struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = usize::try_from(u32_at(self.rest, 0)?).ok()?;
        let payload = self.rest.get(HEADER..length)?;
        let message = Message {
            kind: u16_at(self.rest, 4)?,
            flags: u16_at(self.rest, 6)?,
            sequence: u32_at(self.rest, 8)?,
            payload,
        };
        let next = length.checked_next_multiple_of(4)?;
        self.rest = self.rest.get(next..).unwrap_or_default();
        Some(message)
    }
}

/// Four bytes at `offset`, in host order.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let end = offset.checked_add(4)?;
    Some(u32::from_ne_bytes(bytes.get(offset..end)?.try_into().ok()?))
}

pub(super) fn i32_at(bytes: &[u8], offset: usize) -> Option<i32> {
    u32_at(bytes, offset).map(u32::cast_signed)
}

pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let end = offset.checked_add(2)?;
    Some(u16::from_ne_bytes(bytes.get(offset..end)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn the_kernels_words_are_found_after_a_capped_and_after_a_whole_request() {
        let mut text = Vec::from(9u16.to_ne_bytes());
        text.extend(NLMSGERR_ATTR_MSG.to_ne_bytes());
        text.extend(b"Why.\0");
        for (flags, request) in [(NLM_F_CAPPED, HEADER), (0, HEADER + 8)] {
            let mut payload = (-22i32).to_ne_bytes().to_vec();
            payload.extend(u32::try_from(request).unwrap().to_ne_bytes());
            payload.extend(vec![0; request - 4]);
            payload.extend(&text);
            let bytes = message(NLMSG_ERROR, flags | NLM_F_ACK_TLVS, &payload);
            let found = Messages::new(&bytes).next().unwrap().error();
            assert_eq!(found, (22, Some("Why".to_owned())));
        }
    }

    #[test]
    fn a_message_cut_off_anywhere_is_no_message() {
        let bytes = message(NLMSG_ERROR, NLM_F_ACK_TLVS, &[0; 20]);
        for end in 0..bytes.len() {
            assert!(Messages::new(&bytes[..end]).next().is_none(), "{end}");
        }
        assert_eq!(Messages::new(&bytes).count(), 1);
    }

    #[test]
    fn a_length_that_leads_nowhere_ends_the_iteration() {
        for length in [0u32, 1, 15, 17, u32::MAX] {
            let mut bytes = message(3, 0, &[]);
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(Messages::new(&bytes).count() <= 1, "{length}");
        }
    }
}
