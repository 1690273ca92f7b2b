//! The server's reply → bytes.

use std::net::Ipv4Addr;

use super::{COOKIE, FIXED, MessageType, Request, code};
use crate::omission::{Omission, Protocol};

/// The longest value of an option, or of a piece of one, in bytes.
const PIECE: usize = 255;

/// Options in the order in which they are to be written, in a buffer that is used again.
///
/// The value of an option is one item, or a list of items of which a reply may have the first ones
/// only: an item is never cut.
#[derive(Debug, Default)]
pub struct OptionList {
    data: Vec<u8>,
    /// The ends of the items in `data`.
    items: Vec<usize>,
    /// Code, and where the option's items end in `items`.
    ends: Vec<(u8, usize)>,
}

/// One option of a list.
#[derive(Clone, Copy)]
struct ListedOption<'a> {
    code: u8,
    data: &'a [u8],
    /// The beginning of the first item in `data`.
    start: usize,
    /// The ends of the items in `data`; never empty.
    items: &'a [usize],
}

impl<'a> ListedOption<'a> {
    /// The items from the one with this number on.
    fn from(self, item: usize) -> impl Iterator<Item = &'a [u8]> {
        let mut start = match item.checked_sub(1) {
            Some(before) => self.items.get(before).copied().unwrap_or(usize::MAX),
            None => self.start,
        };
        self.items.iter().skip(item).filter_map(move |&end| {
            let value = self.data.get(start..end);
            start = end;
            value
        })
    }

    /// Returns the length of the first so many items with their headers.
    fn encoded_length(self, items: usize) -> usize {
        let mut pieces = Pieces::default();
        for item in self.from(0).take(items) {
            pieces.push(item.len());
        }
        pieces.length
    }
}

impl OptionList {
    /// Forgets all options, keeps the memory.
    pub fn clear(&mut self) {
        self.data.clear();
        self.items.clear();
        self.ends.clear();
    }

    /// Appends an option.
    pub fn push(&mut self, code: u8, value: &[u8]) {
        self.extend(code, value.iter().copied());
    }

    /// Appends an option whose value is the bytes of `value`; an empty one is left out.
    pub fn extend(&mut self, code: u8, value: impl IntoIterator<Item = u8>) {
        self.list(code, std::iter::once(value));
    }

    /// Appends an option whose value is a list of items; empty ones are left out.
    pub fn list<I: IntoIterator<Item = u8>>(
        &mut self,
        code: u8,
        items: impl IntoIterator<Item = I>,
    ) {
        let before = self.items.len();
        for item in items {
            let start = self.data.len();
            self.data.extend(item);
            if self.data.len() > start {
                self.items.push(self.data.len());
            }
        }
        if self.items.len() > before {
            self.ends.push((code, self.items.len()));
        }
    }

    /// Appends an option of addresses; none are left out.
    pub fn addresses(&mut self, code: u8, addresses: impl IntoIterator<Item = Ipv4Addr>) {
        self.list(code, addresses.into_iter().map(|address| address.octets()));
    }

    /// Whether there is such an option.
    pub fn contains(&self, code: u8) -> bool {
        self.ends.iter().any(|(known, _)| *known == code)
    }

    fn iter(&self) -> impl Iterator<Item = ListedOption<'_>> {
        let mut first = 0;
        self.ends.iter().filter_map(move |&(code, end)| {
            let start = match first {
                0 => 0,
                _ => self.items.get(first - 1).copied()?,
            };
            let items = self.items.get(first..end)?;
            first = end;
            Some(ListedOption {
                code,
                data: &self.data,
                start,
                items,
            })
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

/// So many items of a list are kept room for until all other options have theirs: of routes the
/// first two are the one to the gateway and the default one.
const RESERVED: usize = 2;

impl Reply<'_> {
    /// Appends the reply to `request` to `out`.
    ///
    /// At most `mtu` bytes with IP and UDP headers, and no more than the client takes (option
    /// 57; 576 if it does not say). Options that do not fit go into `file` and `sname` where
    /// those are free (option 52). An option of more than 255 bytes goes out in pieces (RFC 3396)
    /// of whole items, since some clients read each piece by itself. Of a list that does not fit
    /// as a whole the first items are sent, as many as fit when all other options have their
    /// place. What is left out is told in `omitted`: the most important options are to be first
    /// in the list.
    pub fn write(
        &self,
        request: &Request<'_>,
        options: &OptionList,
        mtu: u16,
        out: &mut Vec<u8>,
        omitted: &mut Vec<Omission>,
    ) {
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
        let everything = options
            .iter()
            .map(|option| option.encoded_length(option.items.len()))
            .sum::<usize>();
        if everything <= room {
            for option in options.iter() {
                append(out, option, 0, option.items.len());
            }
        } else {
            self.write_overloaded(request, options, room, start, out, omitted);
        }
        out.push(code::END);
        if out.len() - start < BOOTP_MINIMUM {
            out.resize(start + BOOTP_MINIMUM, code::PAD);
        }
    }

    fn write_overloaded(
        &self,
        request: &Request<'_>,
        options: &OptionList,
        room: usize,
        start: usize,
        out: &mut Vec<u8>,
        omitted: &mut Vec<Omission>,
    ) {
        let free = |field: &[u8], size: usize| if field.is_empty() { size - 1 } else { 0 };
        // What the client must see before it looks for option 52 stays in the main field. One
        // byte of each of the others is for its own end option.
        let mut fields = [
            Field::new(room.saturating_sub(3)),
            Field::new(free(self.file, FILE)),
            Field::new(free(self.sname, SNAME)),
        ];
        // Options 121 and 249 say the same. The client gets the one that it asks for.
        let (one, other) = (code::CLASSLESS_ROUTES, code::CLASSLESS_ROUTES_MICROSOFT);
        let (kept, repeated) = if request.asks_for(other) && !request.asks_for(one) {
            (other, one)
        } else {
            (one, other)
        };
        let is_repeated =
            |option: &ListedOption<'_>| option.code == repeated && options.contains(kept);
        // The lists that are to be cut, with the room that is kept for each.
        let mut lists: Vec<(ListedOption<'_>, usize)> = Vec::new();
        let mut reserved = 0_usize;
        let wanted: Vec<_> = options
            .iter()
            .filter(|option| !is_repeated(option))
            .collect();
        // Before the first list takes its place, the room that every other option needs is known:
        // a list is cut where the short options would else be left out.
        let short: usize = wanted
            .iter()
            .map(|option| option.encoded_length(option.items.len().min(RESERVED)))
            .sum();
        let mut spare = fields
            .iter()
            .map(|field| field.left)
            .sum::<usize>()
            .saturating_sub(short);
        for option in wanted {
            let (all, least) = (
                option.encoded_length(option.items.len()),
                option.encoded_length(option.items.len().min(RESERVED)),
            );
            if all > least && all - least > spare {
                reserved = reserved.saturating_add(least);
                lists.push((option, least));
                continue;
            }
            let placed = fields.iter_mut().enumerate().any(|(number, field)| {
                let kept = if number == 0 { reserved } else { 0 };
                field.takes(option, all, kept)
            });
            if placed {
                spare = spare.saturating_sub(all - least);
            } else if option.items.len() > 1 {
                reserved = reserved.saturating_add(least);
                lists.push((option, least));
            } else {
                omitted.push(omission(option, 1));
            }
        }
        for (option, least) in lists {
            reserved = reserved.saturating_sub(least);
            let mut next = 0;
            for (number, field) in fields.iter_mut().enumerate() {
                let kept = if number == 0 { reserved } else { 0 };
                next = field.takes_items(option, next, kept);
            }
            let left_out = option.items.len() - next;
            if left_out > 0 {
                omitted.push(omission(option, left_out));
            }
        }
        let [main, file, sname] = fields;
        out.extend_from_slice(&main.bytes);
        let mut overload = 0;
        for (bit, field, at, size) in [(1, file.bytes, 108, FILE), (2, sname.bytes, 44, SNAME)] {
            let mut field = field;
            if field.is_empty() {
                continue;
            }
            field.push(code::END);
            field.resize(size, code::PAD);
            if let Some(place) = out.get_mut(start + at..start + at + size) {
                place.copy_from_slice(&field);
                overload |= bit;
            }
        }
        if overload != 0 {
            out.extend_from_slice(&[code::OVERLOAD, 1, overload]);
        }
    }
}

fn omission(option: ListedOption<'_>, left_out: usize) -> Omission {
    Omission {
        protocol: Protocol::Dhcp4,
        option: option.code.into(),
        left_out,
        of: option.items.len(),
    }
}

/// A field for options and the room left in it.
struct Field {
    bytes: Vec<u8>,
    left: usize,
}

impl Field {
    fn new(left: usize) -> Self {
        Self {
            bytes: Vec::new(),
            left,
        }
    }

    /// Appends an option of `length` bytes if it fits as a whole beside `kept` bytes.
    fn takes(&mut self, option: ListedOption<'_>, length: usize, kept: usize) -> bool {
        if length > self.left.saturating_sub(kept) {
            return false;
        }
        append(&mut self.bytes, option, 0, option.items.len());
        self.left -= length;
        true
    }

    /// Appends the items of an option from `first` on, as many as fit beside `kept` bytes; returns
    /// the number of the first that does not.
    fn takes_items(&mut self, option: ListedOption<'_>, first: usize, kept: usize) -> usize {
        let room = self.left.saturating_sub(kept);
        let mut pieces = Pieces::default();
        let mut fits = 0;
        for item in option.from(first) {
            pieces.push(item.len());
            if pieces.length > room {
                break;
            }
            fits += 1;
        }
        let before = self.bytes.len();
        append(&mut self.bytes, option, first, fits);
        self.left = self.left.saturating_sub(self.bytes.len() - before);
        first + fits
    }
}

/// The lengths of the pieces of an option, as its items come one after the other.
#[derive(Default)]
struct Pieces {
    /// All pieces with their headers.
    length: usize,
    /// The content of the last piece.
    last: usize,
}

impl Pieces {
    fn push(&mut self, item: usize) {
        if self.length > 0 && self.last + item <= PIECE {
            self.last += item;
            self.length += item;
        } else {
            // An item of more than a piece is alone in its own ones.
            self.length += item + 2 * item.div_ceil(PIECE);
            self.last = if item <= PIECE { item } else { PIECE };
        }
    }
}

/// Appends `count` items of an option from `first` on, in pieces (RFC 3396).
fn append(out: &mut Vec<u8>, option: ListedOption<'_>, first: usize, count: usize) {
    // Where the length of the piece is that may take more.
    let mut open: Option<usize> = None;
    for item in option.from(first).take(count) {
        if let Some(at) = open
            && let Some(length) = out.get_mut(at)
            && let Ok(longer) = u8::try_from(usize::from(*length) + item.len())
        {
            *length = longer;
            out.extend_from_slice(item);
            continue;
        }
        for piece in item.chunks(PIECE) {
            out.push(option.code);
            open = (item.len() <= PIECE).then_some(out.len());
            out.push(u8::try_from(piece.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(piece);
        }
    }
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
        let mut omitted = Vec::new();
        reply.write(&request, options, 1500, &mut out, &mut omitted);
        (out, omitted.len())
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

    /// The options of the main field, as they are on the wire.
    fn options(out: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut found = Vec::new();
        let mut rest = &out[240..];
        while let [code, length, tail @ ..] = rest
            && *code != 255
        {
            let (value, tail) = tail.split_at(usize::from(*length));
            found.push((*code, value.to_vec()));
            rest = tail;
        }
        found
    }

    #[test]
    fn a_list_goes_out_in_pieces_of_whole_items() {
        for length in [1, 4, 9, 85, 127, 128, 254, 255] {
            let mut list = OptionList::default();
            list.list(121, (0..4).map(|number: u8| vec![number; length]));
            let (out, omitted) = write(Some(1500), OFFER, &list);
            assert_eq!(omitted, 0);
            let pieces = options(&out);
            let each = (255 / length).min(4);
            assert_eq!(pieces.len(), 4_usize.div_ceil(each), "items of {length}");
            for (_, piece) in &pieces {
                assert_eq!(piece.len() % length, 0);
            }
            let joined: Vec<u8> = pieces.into_iter().flat_map(|(_, piece)| piece).collect();
            assert_eq!(joined.len(), 4 * length);
        }
        // An item of more than a piece is cut, since it cannot be sent else.
        let mut list = OptionList::default();
        list.list(119, [vec![1; 3], vec![2; 300], vec![3; 3]]);
        let (out, _) = write(Some(1500), OFFER, &list);
        let lengths: Vec<_> = options(&out).iter().map(|(_, piece)| piece.len()).collect();
        assert_eq!(lengths, [3, 255, 45, 3]);
    }

    #[test]
    fn what_is_left_out_is_told_by_option_and_number() {
        let mut list = OptionList::default();
        list.push(53, &[2]);
        list.list(6, (0..200).map(|number: u8| [10, 0, 0, number]));
        list.push(15, b"example.com");
        let bytes = request(None);
        let request = Request::parse(&bytes).unwrap();
        let (mut out, mut omitted) = (Vec::new(), Vec::new());
        OFFER.write(&request, &list, 1500, &mut out, &mut omitted);
        let [one] = &omitted[..] else {
            panic!("{omitted:?}")
        };
        assert_eq!((one.option, one.of), (6, 200));
        let in_main: usize = options(&out)
            .iter()
            .filter(|(code, _)| *code == 6)
            .map(|(_, value)| value.len() / 4)
            .sum();
        let in_file = usize::from(out[109]) / 4;
        let in_sname = usize::from(out[45]) / 4;
        assert_eq!(in_main + in_file + in_sname + one.left_out, 200);
        assert!(options(&out).iter().any(|(code, _)| *code == 15));
        assert!(out.len() + HEADERS <= 576);
        // Not more than one item's room is wasted in each field.
        assert!(576 - HEADERS - out.len() < 6, "{}", out.len());
    }
}
