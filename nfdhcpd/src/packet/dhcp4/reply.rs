//! The server's reply → bytes.

use std::net::Ipv4Addr;

use super::{COOKIE, FIXED, MessageType, Request, code};

/// Options in the order in which they are to be written, in a buffer that is used again.
#[derive(Debug, Default)]
pub struct OptionList {
    data: Vec<u8>,
    /// Code, and where the value ends in `data`.
    ends: Vec<(u8, usize)>,
}

impl OptionList {
    /// Forgets all options, keeps the memory.
    pub fn clear(&mut self) {
        self.data.clear();
        self.ends.clear();
    }

    /// Appends an option.
    pub fn push(&mut self, code: u8, value: &[u8]) {
        self.extend(code, value.iter().copied());
    }

    /// Appends an option whose value is the bytes of `value`; an empty one is left out.
    pub fn extend(&mut self, code: u8, value: impl IntoIterator<Item = u8>) {
        let start = self.data.len();
        self.data.extend(value);
        if self.data.len() > start {
            self.ends.push((code, self.data.len()));
        }
    }

    /// Appends an option of addresses; none are left out.
    pub fn addresses(&mut self, code: u8, addresses: impl IntoIterator<Item = Ipv4Addr>) {
        self.extend(
            code,
            addresses.into_iter().flat_map(|address| address.octets()),
        );
    }

    /// Whether there is such an option.
    pub fn contains(&self, code: u8) -> bool {
        self.ends.iter().any(|(known, _)| *known == code)
    }

    fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut start = 0;
        self.ends.iter().filter_map(move |&(code, end)| {
            let value = self.data.get(start..end);
            start = end;
            value.map(|value| (code, value))
        })
    }
}

/// A reply, but for its options.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// The type of the message.
    pub message_type: MessageType,
    /// The address given to the client.
    pub yiaddr: Ipv4Addr,
    /// The address of the boot server.
    pub siaddr: Ipv4Addr,
    /// The client's own address, repeated.
    pub ciaddr: Ipv4Addr,
    /// The boot server's name, at most 63 bytes.
    pub sname: &'a [u8],
    /// The boot file's name, at most 127 bytes.
    pub file: &'a [u8],
}

/// RFC 2131, section 2: what every client takes, with IP and UDP headers.
const SMALLEST_LIMIT: u16 = 576;
/// IP and UDP headers.
const HEADERS: usize = 28;
/// RFC 1542, section 2.1: some clients drop what is shorter.
const BOOTP_MINIMUM: usize = 300;
const SNAME: usize = 64;
const FILE: usize = 128;

impl Reply<'_> {
    /// Appends the reply to `request` to `out`.
    ///
    /// At most `mtu` bytes with IP and UDP headers, and no more than the client takes (option
    /// 57; 576 if it does not say). Options that do not fit go into `file` and `sname` where
    /// those are free (option 52); what does not fit there either is left out, and the number of
    /// such options is returned: the most important options are to be first in the list.
    pub fn write(
        &self,
        request: &Request<'_>,
        options: &OptionList,
        mtu: u16,
        out: &mut Vec<u8>,
    ) -> usize {
        let limit = request
            .max_message_size
            .unwrap_or(0)
            .max(SMALLEST_LIMIT)
            .min(mtu.max(SMALLEST_LIMIT));
        let start = out.len();
        let [f0, _] = request.flags;
        out.extend_from_slice(&[2, 1, 6, 0]);
        out.extend_from_slice(&request.xid);
        // RFC 2131, section 4.3.1, table 3: `secs` is 0, flags are those of the request; only the
        // broadcast bit is defined.
        out.extend_from_slice(&[0, 0, f0 & 0x80, 0]);
        for address in [self.ciaddr, self.yiaddr, self.siaddr, request.giaddr] {
            out.extend_from_slice(&address.octets());
        }
        out.extend_from_slice(&request.chaddr.octets());
        out.resize(start + 44, 0);
        padded(out, self.sname, SNAME);
        padded(out, self.file, FILE);
        out.extend_from_slice(&COOKIE);

        // One byte is for the end option, three for option 52.
        let room = usize::from(limit) - HEADERS - FIXED - COOKIE.len() - 1;
        let mut main = Field { left: room };
        let everything = options
            .iter()
            .map(|(_, value)| encoded_length(value.len()))
            .sum::<usize>();
        let omitted = if everything <= room {
            for (code, value) in options.iter() {
                main.append(out, code, value);
            }
            0
        } else {
            self.write_overloaded(options, main, start, out)
        };
        out.push(code::END);
        if out.len() - start < BOOTP_MINIMUM {
            out.resize(start + BOOTP_MINIMUM, code::PAD);
        }
        omitted
    }

    fn write_overloaded(
        &self,
        options: &OptionList,
        mut main: Field,
        start: usize,
        out: &mut Vec<u8>,
    ) -> usize {
        main.left = main.left.saturating_sub(3);
        let (mut file, mut sname) = (Vec::new(), Vec::new());
        // One byte of each is for its own end option.
        let mut in_file = Field {
            left: if self.file.is_empty() { FILE - 1 } else { 0 },
        };
        let mut in_sname = Field {
            left: if self.sname.is_empty() { SNAME - 1 } else { 0 },
        };
        let mut omitted = 0;
        for (code, value) in options.iter() {
            // What the client must see before it looks for option 52 stays in the main field.
            let done = main.append(out, code, value)
                || in_file.append(&mut file, code, value)
                || in_sname.append(&mut sname, code, value);
            omitted += usize::from(!done);
        }
        let mut overload = 0;
        for (bit, field, at, size) in [(1, &mut file, 108, FILE), (2, &mut sname, 44, SNAME)] {
            if field.is_empty() {
                continue;
            }
            field.push(code::END);
            field.resize(size, code::PAD);
            if let Some(place) = out.get_mut(start + at..start + at + size) {
                place.copy_from_slice(field);
                overload |= bit;
            }
        }
        if overload != 0 {
            out.extend_from_slice(&[code::OVERLOAD, 1, overload]);
        }
        omitted
    }
}

/// A field for options and the room left in it.
struct Field {
    left: usize,
}

impl Field {
    /// Appends an option if it fits as a whole; one of more than 255 bytes in pieces (RFC 3396).
    fn append(&mut self, out: &mut Vec<u8>, code: u8, value: &[u8]) -> bool {
        let length = encoded_length(value.len());
        if length > self.left {
            return false;
        }
        for piece in value.chunks(255) {
            out.push(code);
            out.push(u8::try_from(piece.len()).unwrap_or(255));
            out.extend_from_slice(piece);
        }
        self.left -= length;
        true
    }
}

fn encoded_length(value: usize) -> usize {
    value + 2 * value.div_ceil(255)
}

/// Text in a field of `size` bytes with at least one zero behind it.
fn padded(out: &mut Vec<u8>, text: &[u8], size: usize) {
    let end = out.len() + size;
    out.extend(text.iter().take(size - 1));
    out.resize(end, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(max_message_size: Option<u16>) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
        bytes[28..34].copy_from_slice(&[0xaa, 0, 0, 0, 0, 1]);
        bytes.extend_from_slice(&COOKIE);
        bytes.extend_from_slice(&[53, 1, 1]);
        if let Some(size) = max_message_size {
            bytes.extend_from_slice(&[57, 2]);
            bytes.extend_from_slice(&size.to_be_bytes());
        }
        bytes
    }

    const OFFER: Reply<'_> = Reply {
        message_type: MessageType::Offer,
        yiaddr: Ipv4Addr::new(10, 0, 0, 5),
        siaddr: Ipv4Addr::UNSPECIFIED,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        sname: b"",
        file: b"",
    };

    fn write(size: Option<u16>, reply: Reply<'_>, options: &OptionList) -> (Vec<u8>, usize) {
        let bytes = request(size);
        let request = Request::parse(&bytes).unwrap();
        let mut out = Vec::new();
        let omitted = reply.write(&request, options, 1500, &mut out);
        (out, omitted)
    }

    #[test]
    fn a_short_reply_is_padded_to_the_bootp_minimum() {
        let mut options = OptionList::default();
        options.push(53, &[2]);
        let (out, omitted) = write(None, OFFER, &options);
        assert_eq!(out.len(), 300);
        assert_eq!(omitted, 0);
        assert_eq!(out[..4], [2, 1, 6, 0]);
        assert_eq!(out[16..20], [10, 0, 0, 5]);
        assert_eq!(out[236..244], [99, 130, 83, 99, 53, 1, 2, 255]);
    }

    #[test]
    fn what_does_not_fit_goes_into_file_and_sname_and_no_further() {
        let mut options = OptionList::default();
        options.push(53, &[2]);
        options.push(15, &[b'a'; 250]);
        options.push(43, &[b'b'; 100]);
        options.push(6, &[1; 40]);
        options.push(42, &[2; 60]);
        let (out, omitted) = write(None, OFFER, &options);
        // 53, 15 and one of the last two fill the main field's 307 bytes; 43 is in `file`.
        assert!(out.len() + 28 <= 576, "{}", out.len());
        assert_eq!(omitted, 0);
        assert_eq!(out[108..110], [43, 100]);
        assert_eq!(out[44..46], [42, 60]);
        assert!(out.windows(3).any(|window| window == [52, 1, 3]));
        // A boot file takes the place: then there is less room.
        let (out, omitted) = write(
            None,
            Reply {
                file: b"pxelinux.0",
                ..OFFER
            },
            &options,
        );
        assert_eq!(omitted, 1);
        assert_eq!(&out[108..119], b"pxelinux.0\0");
        // A client that takes more gets all of it in one field.
        let (out, omitted) = write(Some(1500), OFFER, &options);
        assert_eq!(omitted, 0);
        assert!(out[44..236].iter().all(|byte| *byte == 0));
        assert!(!out.windows(2).any(|window| window == [52, 1]));
    }

    #[test]
    fn a_long_option_goes_out_in_pieces() {
        let mut options = OptionList::default();
        options.push(119, &[7; 300]);
        let (out, omitted) = write(Some(1400), OFFER, &options);
        assert_eq!(omitted, 0);
        assert_eq!(out[240..242], [119, 255]);
        assert_eq!(out[497..499], [119, 45]);
    }

    #[test]
    fn a_clients_limit_below_the_minimum_is_not_believed() {
        let mut options = OptionList::default();
        options.push(15, &[b'a'; 250]);
        assert_eq!(write(Some(10), OFFER, &options).1, 0);
    }

    #[test]
    fn names_are_cut_to_their_fields() {
        let reply = Reply {
            sname: &[b's'; 100],
            file: &[b'f'; 200],
            ..OFFER
        };
        let (out, _) = write(None, reply, &OptionList::default());
        assert_eq!(out[44..108], [&[b's'; 63][..], &[0]].concat());
        assert_eq!(out[108..236], [&[b'f'; 127][..], &[0]].concat());
        assert_eq!(out.len(), 300);
    }
}
