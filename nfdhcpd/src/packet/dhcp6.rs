//! DHCPv6 messages (RFC 8415): what a client sent, and options to write.

use std::net::Ipv6Addr;

use crate::omission::{Omission, Protocol};
use crate::reason::Reason;

/// Message types (RFC 8415, section 7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // the names are the RFC's
pub enum MessageType {
    Solicit = 1,
    Advertise = 2,
    Request = 3,
    Confirm = 4,
    Renew = 5,
    Rebind = 6,
    Reply = 7,
    Release = 8,
    Decline = 9,
    InformationRequest = 11,
}

impl MessageType {
    /// The type with this number, if a client sends it.
    const fn of_client(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Solicit,
            3 => Self::Request,
            4 => Self::Confirm,
            5 => Self::Renew,
            6 => Self::Rebind,
            8 => Self::Release,
            9 => Self::Decline,
            11 => Self::InformationRequest,
            _ => return None,
        })
    }

    /// The name, for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Solicit => "Solicit",
            Self::Advertise => "Advertise",
            Self::Request => "Request",
            Self::Confirm => "Confirm",
            Self::Renew => "Renew",
            Self::Rebind => "Rebind",
            Self::Reply => "Reply",
            Self::Release => "Release",
            Self::Decline => "Decline",
            Self::InformationRequest => "Information-request",
        }
    }
}

/// Option codes (RFC 8415 where no other is named).
#[allow(missing_docs)] // the names are IANA's
pub mod code {
    pub const CLIENTID: u16 = 1;
    pub const SERVERID: u16 = 2;
    pub const IA_NA: u16 = 3;
    pub const IA_TA: u16 = 4;
    pub const IAADDR: u16 = 5;
    pub const ORO: u16 = 6;
    pub const PREFERENCE: u16 = 7;
    pub const STATUS_CODE: u16 = 13;
    pub const RAPID_COMMIT: u16 = 14;
    /// RFC 3646
    pub const DNS_SERVERS: u16 = 23;
    /// RFC 3646
    pub const DOMAIN_LIST: u16 = 24;
    pub const IA_PD: u16 = 25;
    /// RFC 4075
    pub const SNTP_SERVERS: u16 = 31;
    pub const INFORMATION_REFRESH_TIME: u16 = 32;
    /// RFC 4704
    pub const CLIENT_FQDN: u16 = 39;
    /// RFC 5908
    pub const NTP_SERVER: u16 = 56;
    /// RFC 5970
    pub const BOOTFILE_URL: u16 = 59;
}

/// Status codes (RFC 8415, section 21.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
#[allow(missing_docs)] // the names are the RFC's
pub enum Status {
    Success = 0,
    NoAddrsAvail = 2,
    NoBinding = 3,
    NotOnLink = 4,
    NoPrefixAvail = 6,
}

/// RFC 8415, section 11.1: a DUID has at most 128 bytes besides its type.
const DUID_LIMIT: usize = 130;
/// More identity associations in one message are not looked at.
const IA_LIMIT: usize = 8;

/// The kinds of identity association.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IaKind {
    /// Addresses.
    NonTemporary,
    /// Temporary addresses.
    Temporary,
    /// Prefixes.
    Prefix,
}

/// An identity association of a client: what it wants an address or a prefix for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ia<'a> {
    /// Its kind.
    pub kind: IaKind,
    /// The client's number of it.
    pub id: [u8; 4],
    /// Its options.
    options: &'a [u8],
}

impl<'a> Ia<'a> {
    /// The addresses in it.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv6Addr> + use<'a> {
        Options(self.options).filter_map(|option| match option {
            Ok((code::IAADDR, value)) => value
                .first_chunk::<16>()
                .map(|octets| Ipv6Addr::from(*octets)),
            _ => None,
        })
    }
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// The type of the message.
    pub message_type: MessageType,
    /// The client's number of the exchange.
    pub transaction: [u8; 3],
    /// The client's DUID.
    pub client_id: Option<&'a [u8]>,
    /// The DUID of the server that is meant.
    pub server_id: Option<&'a [u8]>,
    /// The codes of the options that it wants; `None` if it does not say.
    wanted: Option<&'a [u8]>,
    /// It takes a Reply at once.
    pub rapid_commit: bool,
    /// Whether it tells its name.
    pub has_fqdn: bool,
    ias: [Option<Ia<'a>>; IA_LIMIT],
}

impl<'a> Request<'a> {
    /// Reads the data of a datagram to the server's port.
    ///
    /// # Errors
    /// The reason for which it must be dropped.
    pub fn parse(data: &'a [u8]) -> Result<Self, Reason> {
        let malformed = Reason::MalformedDhcp6;
        let (&[kind, t0, t1, t2], options) = data.split_first_chunk().ok_or(malformed)?;
        if matches!(kind, 12 | 13) {
            return Err(Reason::Relayed);
        }
        let mut request = Self {
            message_type: MessageType::of_client(kind).ok_or(Reason::NotAClient)?,
            transaction: [t0, t1, t2],
            client_id: None,
            server_id: None,
            wanted: None,
            rapid_commit: false,
            has_fqdn: false,
            ias: [None; IA_LIMIT],
        };
        let mut ias = 0;
        for option in Options(options) {
            let (code, value) = option?;
            match code {
                code::CLIENTID => request.client_id = Some(duid(value)?),
                code::SERVERID => request.server_id = Some(duid(value)?),
                code::ORO if value.len() % 2 == 0 => request.wanted = Some(value),
                code::ORO => return Err(malformed),
                code::RAPID_COMMIT => request.rapid_commit = true,
                code::CLIENT_FQDN => request.has_fqdn = true,
                code::IA_NA | code::IA_TA | code::IA_PD => {
                    let ia = parse_ia(code, value)?;
                    if let Some(place) = request.ias.get_mut(ias) {
                        *place = Some(ia);
                        ias += 1;
                    }
                }
                _ => {}
            }
        }
        Ok(request)
    }

    /// Its identity associations.
    pub fn ias(&self) -> impl Iterator<Item = &Ia<'a>> {
        self.ias.iter().flatten()
    }

    /// Whether it asked for this option, or for none, so that it gets what everybody needs.
    pub fn wants(&self, code: u16) -> bool {
        match self.wanted {
            None => matches!(code, code::DNS_SERVERS | code::DOMAIN_LIST),
            Some(codes) => codes.chunks_exact(2).any(|pair| pair == code.to_be_bytes()),
        }
    }
}

fn duid(value: &[u8]) -> Result<&[u8], Reason> {
    if (3..=DUID_LIMIT).contains(&value.len()) {
        Ok(value)
    } else {
        Err(Reason::MalformedDhcp6)
    }
}

fn parse_ia(code: u16, value: &[u8]) -> Result<Ia<'_>, Reason> {
    let malformed = Reason::MalformedDhcp6;
    let (id, rest) = value.split_first_chunk::<4>().ok_or(malformed)?;
    let (kind, options) = match code {
        code::IA_TA => (IaKind::Temporary, rest),
        // T1 and T2 are the client's wish, and of no weight.
        code => (
            if code == code::IA_PD {
                IaKind::Prefix
            } else {
                IaKind::NonTemporary
            },
            rest.get(8..).ok_or(malformed)?,
        ),
    };
    for option in Options(options) {
        option?;
    }
    Ok(Ia {
        kind,
        id: *id,
        options,
    })
}

/// Options in a field, one after the other. No option inside an option is looked at unasked.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Result<(u16, &'a [u8]), Reason>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let option = self
            .0
            .split_first_chunk::<4>()
            .and_then(|(&[c0, c1, l0, l1], rest)| {
                let length = usize::from(u16::from_be_bytes([l0, l1]));
                let (value, rest) = rest.split_at_checked(length)?;
                Some((u16::from_be_bytes([c0, c1]), value, rest))
            });
        match option {
            Some((code, value, rest)) => {
                self.0 = rest;
                Some(Ok((code, value)))
            }
            None => {
                self.0 = &[];
                Some(Err(Reason::MalformedDhcp6))
            }
        }
    }
}

/// Appends an option whose value is what `body` appends.
pub fn option(code: u16, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&code.to_be_bytes());
    let start = out.len();
    out.extend_from_slice(&[0, 0]);
    body(out);
    let length = out.len() - start - 2;
    match (u16::try_from(length), out.get_mut(start..start + 2)) {
        (Ok(length), Some(field)) => field.copy_from_slice(&length.to_be_bytes()),
        // Nothing that we write is so long; what is, is left out.
        _ => out.truncate(start - 2),
    }
}

/// An option whose value is a list of items, or a single one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedOption {
    /// Its code.
    pub code: u16,
    /// Its items.
    pub items: Vec<Vec<u8>>,
}

impl ListedOption {
    /// Returns its length with its header and the first so many items.
    fn length(&self, items: usize) -> usize {
        4 + self.items.iter().take(items).map(Vec::len).sum::<usize>()
    }
}

/// Appends options, so many bytes at most. Items are never cut: of a list that has no room the
/// first items are written, as many as fit when each of the other options has room for one. What
/// is left out is told in `omitted`.
pub fn listed_options(
    options: &[ListedOption],
    room: usize,
    out: &mut Vec<u8>,
    omitted: &mut Vec<Omission>,
) {
    let least: usize = options.iter().map(|option| option.length(1)).sum();
    let mut spare = room.saturating_sub(least);
    let mut left = room;
    for one in options {
        let least = one.length(1);
        let count = if least > left {
            0
        } else {
            let fits = |count: &usize| one.length(*count) - least <= spare;
            (1..=one.items.len()).take_while(fits).last().unwrap_or(0)
        };
        if count > 0 {
            let length = one.length(count);
            spare = spare.saturating_sub(length - least);
            left = left.saturating_sub(length);
            option(one.code, out, |out| {
                out.extend(one.items.iter().take(count).flatten());
            });
        }
        if count < one.items.len() {
            omitted.push(Omission {
                protocol: Protocol::Dhcp6,
                option: one.code,
                left_out: one.items.len() - count,
                of: one.items.len(),
            });
        }
    }
}

/// Appends a status code, with a text for people.
pub fn status(status: Status, text: &str, out: &mut Vec<u8>) {
    option(code::STATUS_CODE, out, |out| {
        out.extend_from_slice(&(status as u16).to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT_ID: [u8; 14] = [0, 1, 0, 10, 0, 3, 0, 1, 0xaa, 0, 0, 0, 0, 1];

    fn ia_na(inner: &[u8]) -> Vec<u8> {
        let length = u8::try_from(12 + inner.len()).unwrap();
        [
            &[0, 3, 0, length, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0],
            inner,
        ]
        .concat()
    }

    #[test]
    fn a_solicit_is_read() {
        let address: Ipv6Addr = "fd66:1::5".parse().unwrap();
        let inner = [&[0, 5, 0, 24][..], &address.octets(), &[0; 8]].concat();
        let bytes = [
            &[1, 7, 8, 9][..],
            &CLIENT_ID,
            &[0, 6, 0, 4, 0, 23, 0, 39, 0, 14, 0, 0],
            &ia_na(&inner),
        ]
        .concat();
        let request = Request::parse(&bytes).unwrap();
        assert_eq!(request.message_type, MessageType::Solicit);
        assert_eq!(request.transaction, [7, 8, 9]);
        assert_eq!(request.client_id, Some(&CLIENT_ID[4..]));
        assert!(request.rapid_commit);
        assert!(request.wants(23) && !request.wants(24));
        let ia = request.ias().next().unwrap();
        assert_eq!((ia.kind, ia.id), (IaKind::NonTemporary, [0, 0, 0, 9]));
        assert_eq!(ia.addresses().collect::<Vec<_>>(), [address]);
    }

    #[test]
    fn what_does_not_fit_is_refused_at_every_length() {
        let good = [&[1, 7, 8, 9][..], &CLIENT_ID, &ia_na(&[0, 13, 0, 2, 0, 0])].concat();
        assert!(Request::parse(&good).is_ok());
        for cut in 0..good.len() {
            let whole = cut == 4 || cut == 4 + CLIENT_ID.len();
            assert_eq!(Request::parse(&good[..cut]).is_ok(), whole, "{cut}");
        }
        for (bytes, reason) in [
            (&[2, 0, 0, 0][..], Reason::NotAClient),
            (&[12, 0, 0, 0], Reason::Relayed),
            (&[13, 0, 0, 0], Reason::Relayed),
            (&[1, 0, 0, 0, 0, 1, 0, 2, 0, 1], Reason::MalformedDhcp6),
            (&[1, 0, 0, 0, 0, 6, 0, 1, 0], Reason::MalformedDhcp6),
            (
                &[1, 0, 0, 0, 0, 3, 0, 4, 0, 0, 0, 1],
                Reason::MalformedDhcp6,
            ),
        ] {
            assert_eq!(Request::parse(bytes), Err(reason), "{bytes:?}");
        }
        let inner_cut = [&[1, 0, 0, 0][..], &ia_na(&[0, 5, 0, 24])].concat();
        assert_eq!(Request::parse(&inner_cut), Err(Reason::MalformedDhcp6));
    }

    #[test]
    fn options_in_options_are_no_deeper_than_one_looks() {
        // An IA in an IA in an IA … as deep as a packet allows: fatal to a recursive decoder.
        let mut nested = Vec::new();
        while nested.len() < 2000 {
            let mut outer = vec![0, 3];
            outer.extend(u16::try_from(12 + nested.len()).unwrap().to_be_bytes());
            outer.extend([0; 12]);
            outer.append(&mut nested);
            nested = outer;
        }
        let request = [&[1, 0, 0, 0][..], &nested].concat();
        assert_eq!(Request::parse(&request).unwrap().ias().count(), 1);
    }

    #[test]
    fn further_identity_associations_are_left_out() {
        let bytes = [&[1, 0, 0, 0][..], &ia_na(&[]).repeat(20)].concat();
        assert_eq!(Request::parse(&bytes).unwrap().ias().count(), IA_LIMIT);
    }
}
