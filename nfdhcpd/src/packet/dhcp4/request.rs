//! Bytes → what a client asks.

use std::net::Ipv4Addr;

use agents::addr::MacAddr;

use super::{COOKIE, FIXED, MessageType, code};
use crate::reason::Reason;

/// More pieces of one option are not kept.
const PIECES: usize = 4;

/// An option's value, in as many pieces as it came (RFC 3396).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Joined<'a> {
    pieces: [&'a [u8]; PIECES],
    count: usize,
}

impl<'a> Joined<'a> {
    fn push(&mut self, piece: &'a [u8]) {
        if let Some(place) = self.pieces.get_mut(self.count) {
            *place = piece;
            self.count += 1;
        }
    }

    /// Whether the option was there, if only empty.
    pub fn is_present(&self) -> bool {
        self.count > 0
    }

    /// The bytes of the value.
    pub fn bytes(&self) -> impl Iterator<Item = u8> + use<'a> {
        let pieces = self.pieces;
        pieces.into_iter().take(self.count).flatten().copied()
    }

    /// The length of the value in bytes.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len()).sum()
    }

    /// Whether the value has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the value starts with `prefix`.
    pub fn starts_with(&self, prefix: &[u8]) -> bool {
        self.bytes().take(prefix.len()).eq(prefix.iter().copied())
    }

    /// The value, if it has exactly `N` bytes.
    pub fn array<const N: usize>(&self) -> Option<[u8; N]> {
        if self.len() != N {
            return None;
        }
        let mut array = [0; N];
        for (place, byte) in array.iter_mut().zip(self.bytes()) {
            *place = byte;
        }
        Some(array)
    }
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// The type of the message; none for BOOTP.
    pub message_type: Option<MessageType>,
    /// The client's number of the exchange.
    pub xid: [u8; 4],
    /// Seconds since it began, by its own account.
    pub secs: u16,
    /// It cannot receive unicast before it has an address.
    pub broadcast: bool,
    /// The flags as they came.
    pub flags: [u8; 2],
    /// The address that it has and can answer for.
    pub ciaddr: Ipv4Addr,
    /// The relay agent's address.
    pub giaddr: Ipv4Addr,
    /// The client's MAC address.
    pub chaddr: MacAddr,
    /// Option 50.
    pub requested_address: Option<Ipv4Addr>,
    /// Option 54.
    pub server_id: Option<Ipv4Addr>,
    /// Option 55: what it wants to know, in the order of its preference.
    pub parameters: Joined<'a>,
    /// Option 57: the longest message it takes, with IP and UDP headers.
    pub max_message_size: Option<u16>,
    /// Option 60.
    pub vendor_class: Joined<'a>,
    /// Option 61.
    pub client_id: Joined<'a>,
    /// Option 77 (RFC 3004), as programs write it: without the lengths that the RFC wants.
    pub user_class: Joined<'a>,
    /// Option 82.
    pub relay_agent: Joined<'a>,
    /// Option 93: the first of its architectures.
    pub architecture: Option<u16>,
}

impl<'a> Request<'a> {
    /// Reads the data of a datagram to the server's port.
    ///
    /// # Errors
    /// The reason for which it must be dropped. That it has no message type is for the caller
    /// to judge.
    pub fn parse(data: &'a [u8]) -> Result<Self, Reason> {
        let malformed = Reason::MalformedDhcp4;
        let (fixed, rest) = data.split_first_chunk::<FIXED>().ok_or(malformed)?;
        let [op, htype, hlen, _hops, x0, x1, x2, x3, s0, s1, f0, f1, ..] = *fixed;
        if op != 1 {
            return Err(Reason::NotAClient);
        }
        // The cookie of RFC 2131; what has none is BOOTP of before 1993.
        let options = rest.strip_prefix(&COOKIE[..]).ok_or(Reason::Bootp)?;
        // Ethernet; a guest can write anything here.
        if htype != 1 || hlen != 6 {
            return Err(malformed);
        }
        let address = |at: usize| -> Ipv4Addr {
            fixed
                .get(at..at + 4)
                .and_then(|octets| <[u8; 4]>::try_from(octets).ok())
                .map_or(Ipv4Addr::UNSPECIFIED, Ipv4Addr::from)
        };
        let chaddr = fixed
            .get(28..34)
            .and_then(|octets| MacAddr::try_from(octets).ok());
        let mut request = Self {
            message_type: None,
            xid: [x0, x1, x2, x3],
            secs: u16::from_be_bytes([s0, s1]),
            broadcast: f0 & 0x80 != 0,
            flags: [f0, f1],
            ciaddr: address(12),
            giaddr: address(24),
            chaddr: chaddr.ok_or(malformed)?,
            requested_address: None,
            server_id: None,
            parameters: Joined::default(),
            max_message_size: None,
            vendor_class: Joined::default(),
            client_id: Joined::default(),
            user_class: Joined::default(),
            relay_agent: Joined::default(),
            architecture: None,
        };
        let mut found = Found::default();
        found.read(options)?;
        // Option 52: 1 = `file` holds options too, 2 = `sname`, 3 = both, in this order.
        let overload = found.overload.array::<1>().map_or(0, |[value]| value);
        if overload & 1 != 0 {
            found.read(fixed.get(108..236).unwrap_or_default())?;
        }
        if overload & 2 != 0 {
            found.read(fixed.get(44..108).unwrap_or_default())?;
        }
        found.store(&mut request)?;
        Ok(request)
    }

    /// Whether the client asked for this option.
    pub fn asks_for(&self, code: u8) -> bool {
        self.parameters.bytes().any(|wanted| wanted == code)
    }
}

/// The options that we look at, as they are found.
#[derive(Default)]
struct Found<'a> {
    requested_address: Joined<'a>,
    overload: Joined<'a>,
    message_type: Joined<'a>,
    server_id: Joined<'a>,
    parameters: Joined<'a>,
    max_message_size: Joined<'a>,
    vendor_class: Joined<'a>,
    client_id: Joined<'a>,
    user_class: Joined<'a>,
    relay_agent: Joined<'a>,
    architecture: Joined<'a>,
}

impl<'a> Found<'a> {
    /// Walks one field of options. The end option may be missing where the field ends.
    fn read(&mut self, mut options: &'a [u8]) -> Result<(), Reason> {
        loop {
            options = match *options {
                [] | [code::END, ..] => return Ok(()),
                [code::PAD, ref rest @ ..] => rest,
                [code, length, ref rest @ ..] => {
                    let (value, rest) = rest
                        .split_at_checked(length.into())
                        .ok_or(Reason::MalformedDhcp4)?;
                    if let Some(option) = self.place(code) {
                        option.push(value);
                    }
                    rest
                }
                [_] => return Err(Reason::MalformedDhcp4),
            };
        }
    }

    fn place(&mut self, code: u8) -> Option<&mut Joined<'a>> {
        Some(match code {
            code::ADDRESS_REQUEST => &mut self.requested_address,
            code::OVERLOAD => &mut self.overload,
            code::MESSAGE_TYPE => &mut self.message_type,
            code::SERVER_ID => &mut self.server_id,
            code::PARAMETER_LIST => &mut self.parameters,
            code::MAX_MESSAGE_SIZE => &mut self.max_message_size,
            code::CLASS_ID => &mut self.vendor_class,
            code::CLIENT_ID => &mut self.client_id,
            code::USER_CLASS => &mut self.user_class,
            code::RELAY_AGENT => &mut self.relay_agent,
            code::CLIENT_SYSTEM => &mut self.architecture,
            _ => return None,
        })
    }

    /// Gives the values their types; one of a wrong length makes the message malformed.
    fn store(self, request: &mut Request<'a>) -> Result<(), Reason> {
        request.message_type = match exactly(self.message_type)? {
            None => None,
            Some([number]) => Some(MessageType::from_number(number).ok_or(Reason::NotAClient)?),
        };
        request.requested_address = exactly(self.requested_address)?.map(Ipv4Addr::from);
        request.server_id = exactly(self.server_id)?.map(Ipv4Addr::from);
        request.max_message_size = exactly(self.max_message_size)?.map(u16::from_be_bytes);
        request.architecture = match self.architecture.bytes().next_chunk_of_two() {
            Some(pair) => Some(u16::from_be_bytes(pair)),
            None if self.architecture.is_present() => return Err(Reason::MalformedDhcp4),
            None => None,
        };
        request.parameters = self.parameters;
        request.vendor_class = self.vendor_class;
        request.client_id = self.client_id;
        request.user_class = self.user_class;
        request.relay_agent = self.relay_agent;
        Ok(())
    }
}

fn exactly<const N: usize>(value: Joined<'_>) -> Result<Option<[u8; N]>, Reason> {
    match value.array() {
        _ if !value.is_present() => Ok(None),
        None => Err(Reason::MalformedDhcp4),
        some => Ok(some),
    }
}

trait FirstTwo {
    fn next_chunk_of_two(self) -> Option<[u8; 2]>;
}

impl<I: Iterator<Item = u8>> FirstTwo for I {
    fn next_chunk_of_two(mut self) -> Option<[u8; 2]> {
        Some([self.next()?, self.next()?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
        bytes[4..8].copy_from_slice(&[1, 2, 3, 4]);
        bytes[10] = 0x80;
        bytes[12..16].copy_from_slice(&[10, 0, 0, 5]);
        bytes[28..34].copy_from_slice(&[0xaa, 0, 0, 0, 0, 1]);
        bytes.extend_from_slice(&COOKIE);
        bytes.extend_from_slice(options);
        bytes
    }

    #[test]
    fn fields_and_options_are_read() {
        let bytes = message(&[
            0, 53, 1, 3, 50, 4, 10, 0, 0, 6, 54, 4, 10, 0, 0, 1, 55, 3, 1, 3, 6, 57, 2, 5, 0xdc,
            61, 3, 1, 2, 3, 60, 4, b'M', b'S', b'F', b'T', 82, 2, 1, 0, 93, 4, 0, 7, 0, 9, 255, 7,
            7,
        ]);
        let request = Request::parse(&bytes).unwrap();
        assert_eq!(request.message_type, Some(MessageType::Request));
        assert_eq!(request.xid, [1, 2, 3, 4]);
        assert!(request.broadcast);
        assert_eq!(request.ciaddr, Ipv4Addr::new(10, 0, 0, 5));
        assert_eq!(request.chaddr, MacAddr::new([0xaa, 0, 0, 0, 0, 1]));
        assert_eq!(request.requested_address, Some(Ipv4Addr::new(10, 0, 0, 6)));
        assert_eq!(request.server_id, Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(request.max_message_size, Some(1500));
        assert_eq!(request.architecture, Some(7));
        assert!(request.asks_for(6) && !request.asks_for(12));
        assert!(request.vendor_class.starts_with(b"MSF"));
        assert_eq!(request.client_id.len(), 3);
        assert_eq!(request.relay_agent.bytes().collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn options_in_pieces_are_joined_across_file_and_sname() {
        let mut bytes = message(&[53, 1, 1, 52, 1, 3, 55, 1, 1, 55, 2, 3, 6, 255]);
        bytes[108..113].copy_from_slice(&[55, 1, 15, 255, 0]);
        bytes[44..48].copy_from_slice(&[55, 1, 26, 255]);
        let request = Request::parse(&bytes).unwrap();
        assert_eq!(
            request.parameters.bytes().collect::<Vec<_>>(),
            [1, 3, 6, 15, 26]
        );
    }

    #[test]
    fn without_overload_file_and_sname_are_not_options() {
        let mut bytes = message(&[53, 1, 1]);
        bytes[108..111].copy_from_slice(&[55, 200, 15]);
        assert!(!Request::parse(&bytes).unwrap().parameters.is_present());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let good = message(&[53, 1, 1, 255]);
        for cut in 0..FIXED {
            assert_eq!(Request::parse(&good[..cut]), Err(Reason::MalformedDhcp4));
        }
        // A hardware address longer than its field: fatal to some decoders.
        for hlen in [0, 5, 7, 16, 17, 255] {
            let mut bytes = good.clone();
            bytes[2] = hlen;
            assert_eq!(
                Request::parse(&bytes),
                Err(Reason::MalformedDhcp4),
                "hlen {hlen}"
            );
        }
        for options in [
            &[53][..],
            &[53, 1],
            &[53, 2, 1, 1],
            &[50, 3, 1, 2, 3],
            &[93, 1, 0],
            &[57, 0],
        ] {
            assert_eq!(
                Request::parse(&message(options)),
                Err(Reason::MalformedDhcp4),
                "{options:?}"
            );
        }
        assert_eq!(
            Request::parse(&message(&[53, 1, 99])),
            Err(Reason::NotAClient)
        );
        let mut reply = good.clone();
        reply[0] = 2;
        assert_eq!(Request::parse(&reply), Err(Reason::NotAClient));
        let mut bootp = good;
        bootp[FIXED] = 0;
        assert_eq!(Request::parse(&bootp), Err(Reason::Bootp));
        assert_eq!(Request::parse(&message(&[])).unwrap().message_type, None);
    }
}
