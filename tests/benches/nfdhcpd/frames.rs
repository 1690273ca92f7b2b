//! What a guest sends, what it must get, and the frames that the ceiling answers with.
//!
//! Built by hand and not with the project's own code: it is what that is measured against.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The server identifier that every DHCP answer must have; also the router.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The IPv6 router, that guests look for by NS.
pub const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1);
/// The prefix that router advertisements must have, a /64.
pub const PREFIX6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0);
/// Where the ceiling says that it is.
const CEILING_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 1];

const ETHERNET: usize = 14;
const IPV6: usize = 40;
const BOOTP: usize = ETHERNET + 20 + 8;
const XID: usize = BOOTP + 4;
const OPTIONS: usize = BOOTP + 240;
const UDP_CHECKSUM: usize = ETHERNET + 20 + 6;

/// DHCP message types (RFC 2132, section 9.6).
const DISCOVER: u8 = 1;
/// Offer.
pub const OFFER: u8 = 2;
const REQUEST: u8 = 3;
/// Acknowledgement.
pub const ACK: u8 = 5;

/// The frames of one guest.
pub struct GuestFrames {
    discover: Xid,
    request: Xid,
    /// Router solicitation from its link-local address.
    pub router_solicitation: Vec<u8>,
    /// Neighbour solicitation for the router.
    pub neighbour_solicitation: Vec<u8>,
}

/// A DHCP frame into which a transaction's number is filled in.
struct Xid {
    frame: Vec<u8>,
    /// One's complement sum of what the UDP checksum covers, without the number.
    sum: u32,
}

impl Xid {
    fn fill(&mut self, xid: u32) -> &[u8] {
        self.frame[XID..XID + 4].copy_from_slice(&xid.to_be_bytes());
        let checksum = finish(self.sum + (xid >> 16) + (xid & 0xffff));
        self.frame[UDP_CHECKSUM..UDP_CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
        &self.frame
    }
}

impl GuestFrames {
    /// The frames of the guest with this MAC, which is to get this address.
    pub fn new(mac: [u8; 6], ip: Ipv4Addr) -> Self {
        // the address first, then the server, as a client has them from the offer
        let mut chosen = vec![50, 4];
        chosen.extend(ip.octets());
        chosen.extend([54, 4]);
        chosen.extend(SERVER.octets());
        let own = link_local(mac);
        let solicited = Ipv6Addr::from(
            0xff02_0000_0000_0000_0000_0001_ff00_0000_u128 | (u128::from(ROUTER6) & 0xff_ffff),
        );
        let mut ns = vec![135, 0, 0, 0, 0, 0, 0, 0];
        ns.extend(ROUTER6.octets());
        ns.extend([1, 1]);
        ns.extend(mac);
        let mut rs = vec![133, 0, 0, 0, 0, 0, 0, 0, 1, 1];
        rs.extend(mac);
        let routers = "ff02::2".parse().expect("a literal");
        Self {
            discover: dhcp_from_guest(mac, DISCOVER, &[]),
            request: dhcp_from_guest(mac, REQUEST, &chosen),
            router_solicitation: icmp6(mac, multicast(routers), own, routers, rs),
            neighbour_solicitation: icmp6(mac, multicast(solicited), own, solicited, ns),
        }
    }

    /// DHCPDISCOVER with this transaction's number.
    pub fn discover(&mut self, xid: u32) -> &[u8] {
        self.discover.fill(xid)
    }

    /// DHCPREQUEST after the offer.
    pub fn request(&mut self, xid: u32) -> &[u8] {
        self.request.fill(xid)
    }
}

/// A frame to a guest that it has asked for, all of it checked that can be without knowing
/// the guest.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// BOOTREPLY.
    Dhcp {
        /// Message type.
        kind: u8,
        /// Transaction.
        xid: u32,
        /// The address given.
        yiaddr: Ipv4Addr,
        /// The guest's address in it.
        chaddr: [u8; 6],
    },
    /// Router advertisement with our prefix.
    RouterAdvertisement,
    /// Neighbour advertisement for the router, to this address.
    NeighbourAdvertisement(Ipv6Addr),
}

/// Reads a frame that came to the guest with this MAC. `None`: nothing that it asked for.
///
/// # Errors
/// It is an answer, and wrong: what is wrong with it.
pub fn read(frame: &[u8], mac: [u8; 6]) -> Result<Option<Reply>, &'static str> {
    let reply = match frame.get(12..ETHERNET) {
        Some([0x08, 0x00]) => read_dhcp(frame)?,
        Some([0x86, 0xdd]) => read_icmp6(frame)?,
        _ => None,
    };
    if reply.is_some() && frame[..6] != mac && frame[0] & 1 == 0 {
        return Err("the frame is to another MAC");
    }
    Ok(reply)
}

fn read_dhcp(frame: &[u8]) -> Result<Option<Reply>, &'static str> {
    if frame.len() < BOOTP || frame[ETHERNET] != 0x45 || frame[ETHERNET + 9] != 17 {
        return Ok(None);
    }
    if frame[ETHERNET + 20..ETHERNET + 24] != [0, 67, 0, 68] {
        return Ok(None);
    }
    let total = usize::from(word(frame, ETHERNET + 2));
    if ETHERNET + total > frame.len() || total < OPTIONS - ETHERNET {
        return Err("IPv4 total length");
    }
    let packet = &frame[ETHERNET..ETHERNET + total];
    if fold(sum(&packet[..20])) != 0xffff {
        return Err("IPv4 header checksum");
    }
    let udp = &packet[20..];
    if usize::from(word(udp, 4)) != udp.len() {
        return Err("UDP length");
    }
    let length = u32::try_from(udp.len()).expect("at most 64 KiB");
    if word(udp, 6) == 0 || fold(sum(udp) + sum(&packet[12..20]) + 17 + length) != 0xffff {
        return Err("UDP checksum");
    }
    let bootp = &udp[8..];
    if bootp[..3] != [2, 1, 6] {
        return Err("not a BOOTREPLY over Ethernet");
    }
    if bootp[236..240] != [99, 130, 83, 99] {
        return Err("magic cookie");
    }
    let (mut kind, mut server, mut lease) = (None, None, false);
    let mut rest = &bootp[240..];
    loop {
        match *rest {
            [255, ..] => break,
            [0, ref after @ ..] => rest = after,
            [code, length, ref after @ ..] if after.len() >= usize::from(length) => {
                let (value, after) = after.split_at(usize::from(length));
                match (code, value) {
                    (53, [byte]) => kind = Some(*byte),
                    (54, value) => server = Some(value),
                    (51, [_, _, _, _]) => lease = true,
                    _ => {}
                }
                rest = after;
            }
            _ => return Err("DHCP options do not end"),
        }
    }
    if server != Some(&SERVER.octets()) {
        return Err("server identifier");
    }
    let kind = kind.ok_or("no message type")?;
    if !lease && matches!(kind, OFFER | ACK) {
        return Err("no lease time");
    }
    Ok(Some(Reply::Dhcp {
        kind,
        xid: u32::from(word(bootp, 4)) << 16 | u32::from(word(bootp, 6)),
        yiaddr: Ipv4Addr::new(bootp[16], bootp[17], bootp[18], bootp[19]),
        chaddr: bootp[28..34].try_into().expect("six bytes"),
    }))
}

fn read_icmp6(frame: &[u8]) -> Result<Option<Reply>, &'static str> {
    let Some(kind @ (134 | 136)) = frame.get(ETHERNET + IPV6).copied() else {
        return Ok(None);
    };
    if frame[ETHERNET + 6] != 58 {
        return Ok(None);
    }
    let length = usize::from(word(frame, ETHERNET + 4));
    let message = frame
        .get(ETHERNET + IPV6..ETHERNET + IPV6 + length)
        .ok_or("IPv6 payload length")?;
    if frame[ETHERNET + 7] != 255 {
        return Err("hop limit is not 255");
    }
    let pseudo = sum(&frame[ETHERNET + 8..ETHERNET + IPV6]) + 58 + u32::from(word(frame, 18));
    if fold(pseudo + sum(message)) != 0xffff {
        return Err("ICMPv6 checksum");
    }
    if kind == 134 {
        let mut options = message.get(16..).ok_or("router advertisement cut off")?;
        let mut prefix = false;
        while let [option, units, ..] = *options {
            let size = usize::from(units) * 8;
            if size == 0 || size > options.len() {
                return Err("length of a router advertisement's option");
            }
            prefix |= option == 3 && options[2] == 64 && options[16..32] == PREFIX6.octets();
            options = &options[size..];
        }
        return if prefix {
            Ok(Some(Reply::RouterAdvertisement))
        } else {
            Err("router advertisement without the prefix")
        };
    }
    if message.len() < 32 || message[8..24] != ROUTER6.octets() || message[24..26] != [2, 1] {
        return Err("neighbour advertisement without target or its MAC");
    }
    if message[4] & 0x40 == 0 {
        return Err("neighbour advertisement is not solicited");
    }
    let to: [u8; 16] = frame[ETHERNET + 24..ETHERNET + IPV6]
        .try_into()
        .expect("16 bytes");
    Ok(Some(Reply::NeighbourAdvertisement(to.into())))
}

/// The address of a guest by which it solicits.
pub fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.map(u16::from);
    Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        (a ^ 2) << 8 | b,
        c << 8 | 0xff,
        0xfe00 | d,
        e << 8 | f,
    )
}

/// The frames that the ceiling sends: name of the file, content.
pub fn canned() -> [(&'static str, Vec<u8>); 3] {
    let mut options = vec![53, 1, 0, 54, 4];
    options.extend(SERVER.octets());
    options.extend([51, 4, 0, 9, 0x3a, 0x80, 1, 4, 255, 255, 0, 0, 3, 4]);
    options.extend(SERVER.octets());
    options.extend([26, 2, 5, 0xdc, 6, 4]);
    options.extend(SERVER.octets());
    let to = Ipv4Addr::BROADCAST;
    let mut offer = dhcp(
        [0; 6],
        CEILING_MAC,
        [0; 6],
        (SERVER, 67),
        (to, 68),
        2,
        &options,
    );
    let partial = u16::try_from(fold(offer.sum)).expect("folded");
    offer.frame[UDP_CHECKSUM..UDP_CHECKSUM + 2].copy_from_slice(&partial.to_be_bytes());

    let own = link_local(CEILING_MAC);
    let all: Ipv6Addr = "ff02::1".parse().expect("a literal");
    let mut ra = vec![
        134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1,
    ];
    ra.extend(CEILING_MAC);
    ra.extend([5, 1, 0, 0, 0, 0, 5, 0xdc]);
    ra.extend([
        3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0,
    ]);
    ra.extend(PREFIX6.octets());
    let mut na = vec![136, 0, 0, 0, 0xe0, 0, 0, 0];
    na.extend(ROUTER6.octets());
    na.extend([2, 1]);
    na.extend(CEILING_MAC);
    let mut na = icmp6(CEILING_MAC, [0; 6], ROUTER6, Ipv6Addr::UNSPECIFIED, na);
    na[ETHERNET + IPV6 + 2..ETHERNET + IPV6 + 4].fill(0);
    [
        ("offer", offer.frame),
        ("ra", icmp6(CEILING_MAC, multicast(all), own, all, ra)),
        ("na", na),
    ]
}

fn dhcp_from_guest(mac: [u8; 6], kind: u8, chosen: &[u8]) -> Xid {
    let mut options = vec![53, 1, kind, 57, 2, 5, 0xdc];
    options.extend(chosen);
    options.extend([55, 9, 1, 3, 6, 12, 15, 26, 28, 51, 121]);
    let from = (Ipv4Addr::UNSPECIFIED, 68);
    dhcp(
        [0xff; 6],
        mac,
        mac,
        from,
        (Ipv4Addr::BROADCAST, 67),
        1,
        &options,
    )
}

/// A frame of 300 bytes of BOOTP, without transaction's number and UDP checksum.
fn dhcp(
    to: [u8; 6],
    from: [u8; 6],
    chaddr: [u8; 6],
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
    op: u8,
    options: &[u8],
) -> Xid {
    let mut bootp = vec![0; 240];
    bootp[..3].copy_from_slice(&[op, 1, 6]);
    bootp[28..34].copy_from_slice(&chaddr);
    bootp[236..].copy_from_slice(&[99, 130, 83, 99]);
    bootp.extend(options);
    bootp.push(255);
    bootp.resize(bootp.len().max(300), 0);

    let udp_length = u16::try_from(8 + bootp.len()).expect("a short message");
    let mut ip = vec![0x45, 0x10];
    ip.extend((20 + udp_length).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    ip.extend(source.0.octets());
    ip.extend(destination.0.octets());
    let checksum = finish(sum(&ip));
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = Vec::from(to);
    frame.extend(from);
    frame.extend([0x08, 0x00]);
    frame.extend(&ip);
    frame.extend(source.1.to_be_bytes());
    frame.extend(destination.1.to_be_bytes());
    frame.extend(udp_length.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(bootp);
    let sum = sum(&frame[ETHERNET + 20..]) + sum(&ip[12..]) + 17 + u32::from(udp_length);
    Xid { frame, sum }
}

fn icmp6(
    from: [u8; 6],
    to: [u8; 6],
    source: Ipv6Addr,
    destination: Ipv6Addr,
    mut message: Vec<u8>,
) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("a short message");
    let addresses = sum(&source.octets()) + sum(&destination.octets());
    let checksum = finish(addresses + sum(&message) + 58 + u32::from(length));
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = Vec::from(to);
    frame.extend(from);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([58, 255]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend(message);
    frame
}

/// The MAC of an IPv6 multicast group (RFC 2464, section 7).
fn multicast(group: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The sum of the 16 bit words (RFC 1071), not folded.
fn sum(bytes: &[u8]) -> u32 {
    let (words, last) = bytes.as_chunks::<2>();
    let whole: u32 = words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum();
    whole + last.first().map_or(0, |byte| u32::from(*byte) << 8)
}

fn fold(mut sum: u32) -> u32 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

fn finish(sum: u32) -> u16 {
    match !u16::try_from(fold(sum)).expect("folded") {
        // would mean that there is none (RFC 768)
        0 => 0xffff,
        checksum => checksum,
    }
}
