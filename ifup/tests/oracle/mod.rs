//! A judge of frames, written from the RFCs and not from the rules: what a guest may send, and
//! what must get through.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The guest that the frames come from.
pub struct Guest {
    pub mac: [u8; 6],
    pub ipv4: Ipv4Addr,
    pub ipv6: Vec<Ipv6Addr>,
    /// The first 64 bits of the networks in which it may choose addresses.
    pub prefixes: Vec<[u8; 8]>,
    /// Addresses of gateways.
    pub reserved: Vec<Ipv6Addr>,
    /// Addresses that it has chosen.
    pub chosen: BTreeSet<Ipv6Addr>,
}

/// A judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It must not pass: the reason.
    Forbidden(&'static str),
    /// It may pass: no receiver takes harm, and none needs it.
    Tolerated,
    /// It must pass.
    Legitimate,
}

use Verdict::{Forbidden, Legitimate, Tolerated};

fn worst(one: Verdict, other: Verdict) -> Verdict {
    match (one, other) {
        (Forbidden(reason), _) | (_, Forbidden(reason)) => Forbidden(reason),
        (Legitimate, Legitimate) => Legitimate,
        _ => Tolerated,
    }
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn address4(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(octets.into())
}

fn address6(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
    Some(octets.into())
}

/// The part of a datagram that a packet holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    First,
    Later,
}

/// A message that only a server or a router sends, or that hides one; `depth` counts tunnels.
fn upper(protocol: u8, payload: &[u8], part: Part, six: bool, depth: usize) -> Verdict {
    if part == Part::Later {
        // RFC 3128: the flags of TCP are in the first fragment.
        return Legitimate;
    }
    let kind = payload.first().copied();
    // The end of a tunnel puts fragments together before it looks inside; of small ones nothing
    // is needed.
    if part == Part::First && matches!(protocol, 4 | 41 | 47 | 51 | 97) && payload.len() < 96 {
        return Forbidden("a first fragment without its whole header chain");
    }
    match protocol {
        6 => match payload.get(12).map(|byte| usize::from(byte >> 4) * 4) {
            _ if payload.len() < 20 => incomplete(part),
            Some(20..) => Legitimate,
            _ => Tolerated,
        },
        17 => {
            let (Some(from), Some(to)) = (short(payload, 0), short(payload, 2)) else {
                return incomplete(part);
            };
            if payload.len() < 8 {
                return incomplete(part);
            }
            match (six, from, to) {
                (false, _, 68) => Forbidden("to a DHCP client"),
                (true, _, 546) => Forbidden("to a DHCPv6 client"),
                // Tolerated: a server's port, to nobody's client.
                (false, 67, _) | (true, 547, _) => Tolerated,
                _ => Legitimate,
            }
        }
        1 if !six => match kind {
            Some(5 | 9) => Forbidden("a router's ICMP message"),
            _ if payload.len() < 8 => incomplete(part),
            Some(0 | 3 | 8 | 11 | 12 | 13 | 14) => Legitimate,
            _ => Tolerated,
        },
        58 if six => match kind {
            Some(134) => Forbidden("router advertisement"),
            Some(137) => Forbidden("redirect"),
            Some(130) => Forbidden("MLD query"),
            _ if payload.len() < 8 => incomplete(part),
            Some(1..=4 | 128 | 129) => Legitimate,
            _ => Tolerated,
        },
        2 if !six => match kind {
            _ if payload.len() < 8 => incomplete(part),
            Some(0x16 | 0x17 | 0x22) => Legitimate,
            Some(0x11) if depth == 0 => Forbidden("IGMP query"),
            _ => Tolerated,
        },
        51 => {
            // RFC 4302: the length counts words of 4 bytes, less 2.
            let Some(length) = payload.get(1).map(|words| (usize::from(*words) + 2) * 4) else {
                return incomplete(part);
            };
            match (kind, payload.get(length..)) {
                (Some(next), Some(rest)) => worst(
                    Tolerated,
                    header(next, rest, part, six, depth, &mut Vec::new()),
                ),
                _ => incomplete(part),
            }
        }
        4 | 41 | 47 | 97 if depth > 3 => Tolerated,
        4 => tunnel(0x0800, payload, depth),
        41 => tunnel(0x86dd, payload, depth),
        47 => gre(payload, part, depth),
        97 => match payload.get(2..) {
            Some(frame) => ethernet(frame, part, depth),
            None => incomplete(part),
        },
        50 if payload.len() >= 8 => Legitimate,
        132 if payload.len() >= 12 => Legitimate,
        50 | 132 => incomplete(part),
        112 if depth == 0 => Forbidden("VRRP"),
        _ => Tolerated,
    }
}

/// A header that is not whole: nobody reads it, unless the rest is to come.
fn incomplete(part: Part) -> Verdict {
    if part == Part::First {
        Forbidden("a first fragment without its whole header chain")
    } else {
        Tolerated
    }
}

fn tunnel(kind: u16, packet: &[u8], depth: usize) -> Verdict {
    let found = match kind {
        0x0800 => ipv4(packet, depth + 1),
        0x86dd => ipv6(packet, depth + 1),
        _ => Tolerated,
    };
    match found {
        // Of a tunnel in a tunnel, and of one behind options, nothing is needed.
        Legitimate if depth > 0 => Tolerated,
        other => other,
    }
}

/// RFC 2784 and RFC 2890.
fn gre(payload: &[u8], part: Part, depth: usize) -> Verdict {
    let (Some(flags), Some(kind)) = (short(payload, 0), short(payload, 2)) else {
        return incomplete(part);
    };
    let words = [0x8000, 0x2000, 0x1000]
        .iter()
        .filter(|bit| flags & **bit != 0)
        .count();
    let Some(inner) = payload.get(4 + 4 * words..) else {
        return incomplete(part);
    };
    let found = match kind {
        0x0800 | 0x86dd => tunnel(kind, inner, depth),
        0x6558 => ethernet(inner, part, depth),
        _ => Tolerated,
    };
    if flags & !0xb000 == 0 {
        found
    } else {
        worst(found, Tolerated)
    }
}

fn ethernet(frame: &[u8], part: Part, depth: usize) -> Verdict {
    let mut at = 12;
    while matches!(short(frame, at), Some(0x8100 | 0x88a8)) {
        at += 4;
    }
    match (short(frame, at), frame.get(at + 2..)) {
        (Some(kind), Some(packet)) => worst(Tolerated, tunnel(kind, packet, depth)),
        _ => incomplete(part),
    }
}

/// An IPv4 packet, whoever sends it.
fn ipv4(bytes: &[u8], depth: usize) -> Verdict {
    let Some((payload, protocol, part, _)) = split4(bytes) else {
        return Tolerated;
    };
    if depth == 0
        && part == Part::Later
        && protocol == 6
        && short(bytes, 6).is_some_and(|at| at & 0x1fff == 1)
    {
        return Forbidden("the rest of a TCP header");
    }
    let mut found = upper(protocol, payload, part, false, depth);
    if depth > 0 && part == Part::First && !matches!(protocol, 1 | 17) {
        // What is not a server's message is no harm in pieces.
        found = Tolerated;
    }
    if part == Part::First && payload.len() % 8 != 0 {
        found = worst(found, Tolerated);
    }
    if depth > 0 && (bytes.first() != Some(&0x45) || part != Part::Whole) {
        // Options in a tunnel, fragments in a tunnel.
        return worst(found, Tolerated);
    }
    found
}

/// Payload, protocol, part and source.
fn split4(bytes: &[u8]) -> Option<(&[u8], u8, Part, Ipv4Addr)> {
    let first = *bytes.first()?;
    let header = usize::from(first & 15) * 4;
    let total = usize::from(short(bytes, 2)?);
    if first >> 4 != 4 || header < 20 || total < header || total > bytes.len() {
        return None;
    }
    let fragment = short(bytes, 6)?;
    let part = match (fragment & 0x1fff, fragment & 0x2000) {
        (0, 0) => Part::Whole,
        (0, _) => Part::First,
        _ => Part::Later,
    };
    let source = address4(bytes, 12)?;
    Some((bytes.get(header..total)?, *bytes.get(9)?, part, source))
}

/// The numbers of the headers of an IPv6 packet before the upper layer's.
type Chain = Vec<u8>;

/// Walks on from a header of this number.
fn header(
    next: u8,
    rest: &[u8],
    part: Part,
    six: bool,
    depth: usize,
    chain: &mut Chain,
) -> Verdict {
    if !six {
        return upper(next, rest, part, six, depth);
    }
    match next {
        0 | 43 | 60 => {
            let Some(length) = rest.get(1).map(|words| usize::from(*words) * 8 + 8) else {
                return incomplete(part);
            };
            let (Some(following), Some(behind)) = (rest.first(), rest.get(length..)) else {
                return incomplete(part);
            };
            // RFC 8200, section 4.1: hop-by-hop options come first.
            let odd = (next == 0 && !chain.is_empty()) || chain.contains(&next) || chain.len() > 2;
            chain.push(next);
            let mut found = header(*following, behind, part, six, depth, chain);
            if next == 43 {
                if rest.get(3) != Some(&0) {
                    // Somebody else's address is the last one.
                    return worst(found, Forbidden("a routing header with segments left"));
                }
                found = worst(found, Tolerated);
            }
            if odd { worst(found, Tolerated) } else { found }
        }
        44 => {
            let (Some(following), Some(place), Some(behind)) =
                (rest.first(), short(rest, 2), rest.get(8..))
            else {
                return incomplete(part);
            };
            let nested = chain.contains(&44);
            let before = !chain.is_empty();
            chain.push(44);
            if place & 0xfff8 != 0 {
                let extension = matches!(following, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140);
                return if nested || extension || matches!(following, 59 | 112) || !known(*following)
                {
                    Tolerated
                } else {
                    Legitimate
                };
            }
            let now = if place & 1 == 1 { Part::First } else { part };
            let found = header(*following, behind, now, six, depth, chain);
            let extension = matches!(following, 0 | 43 | 44 | 51 | 60);
            if nested || (extension && (before || *following != 60)) {
                worst(found, Tolerated)
            } else {
                found
            }
        }
        // Some hosts follow these as extension headers, others nothing behind them.
        135 | 139 | 140 | 253 | 254 => {
            let found = behind_unknown(rest, depth, chain);
            worst(found, Tolerated)
        }
        59 if rest.is_empty() && depth == 0 && !chain.contains(&44) => Legitimate,
        59 => worst(Tolerated, behind_unknown(rest, depth, chain)),
        4 | 41 | 47 | 97 if chain.contains(&44) && rest.len() < 96 => {
            worst(upper(next, rest, part, six, depth), Tolerated)
        }
        number if known(number) => upper(number, rest, part, six, depth),
        _ => worst(Tolerated, behind_unknown(rest, depth, chain)),
    }
}

/// Protocols whose messages have a known form.
fn known(number: u8) -> bool {
    matches!(
        number,
        4 | 6
            | 17
            | 33
            | 41
            | 46
            | 47
            | 50
            | 51
            | 58
            | 88
            | 89
            | 97
            | 103
            | 108
            | 112
            | 115
            | 132
            | 136
    )
}

/// Read as if a host followed it: directly, and as an extension header.
fn behind_unknown(rest: &[u8], depth: usize, chain: &mut Chain) -> Verdict {
    if rest.len() >= 16 && matches!(rest.first(), Some(134 | 137)) && rest.get(1) == Some(&0) {
        return Forbidden("a router's message behind an unknown header");
    }
    let following = rest.first().copied().unwrap_or(0);
    let length = rest.get(1).map_or(8, |words| usize::from(*words) * 8 + 8);
    chain.push(0xff);
    match rest.get(length..) {
        Some(behind) if matches!(following, 0 | 17 | 43 | 44 | 58 | 60) && chain.len() < 8 => {
            header(following, behind, Part::Whole, true, depth, chain)
        }
        _ => Tolerated,
    }
}

/// An IPv6 packet, whoever sends it.
fn ipv6(bytes: &[u8], depth: usize) -> Verdict {
    let Some((next, payload)) = split6(bytes) else {
        return Tolerated;
    };
    let mut chain = Vec::new();
    let mut found = header(next, payload, Part::Whole, true, depth, &mut chain);
    // More than what fills up a short frame.
    if bytes.len() > (payload.len() + 40).max(46) {
        found = worst(found, Tolerated);
    }
    if chain.contains(&44) {
        // Sizes of fragments, and bytes behind the end of one.
        if payload.len() % 8 != 0 || bytes.len() != payload.len() + 40 {
            found = worst(found, Tolerated);
        }
        let pieces = Forbidden("a first fragment without its whole header chain");
        let carries = payload.first().copied();
        if depth > 0 && found == pieces && !matches!(carries, Some(17 | 58 | 60)) {
            found = Tolerated;
        }
    }
    if depth > 0 && !chain.is_empty() {
        worst(found, Tolerated)
    } else {
        found
    }
}

/// Next header, and payload by the length that the header states.
fn split6(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let length = usize::from(short(bytes, 4)?);
    if bytes.first()? >> 4 != 6 {
        return None;
    }
    Some((*bytes.get(6)?, bytes.get(40..40 + length)?))
}

impl Guest {
    /// An address that it may choose (RFC 4941, RFC 7217): in its network, not one that another
    /// is likely to have.
    fn may_choose(&self, address: Ipv6Addr) -> bool {
        let octets = address.octets();
        self.prefixes.iter().any(|prefix| octets[..8] == *prefix)
            && octets[11..13] != [0xff, 0xfe]
            && octets[8..12] != [0; 4]
            && !self.reserved.contains(&address)
    }

    fn has(&self, address: Ipv6Addr) -> bool {
        self.ipv6.contains(&address) || self.chosen.contains(&address)
    }

    /// The judgement of a frame; an address that a permitted one takes is remembered.
    pub fn judge(&mut self, frame: &[u8]) -> Verdict {
        let (Some(kind), Some(packet)) = (short(frame, 12), frame.get(14..)) else {
            return Forbidden("no frame");
        };
        if frame[6..12] != self.mac {
            return Forbidden("another's source address");
        }
        if frame[..5] == [1, 0x80, 0xc2, 0, 0] && (1..16).contains(&frame[5]) {
            return Forbidden("to bridges");
        }
        match kind {
            0x0800 => self.judge4(packet),
            0x86dd => self.judge6(packet),
            0x0806 => self.judge_arp(packet),
            0x8035 => {
                let nobody = Some(Ipv4Addr::UNSPECIFIED);
                let own = packet.get(..8) == Some(&[0, 1, 8, 0, 6, 4, 0, 3])
                    && packet.get(8..14) == Some(&self.mac)
                    && packet.get(18..24) == Some(&self.mac)
                    && address4(packet, 14) == nobody
                    && address4(packet, 24) == nobody;
                if own {
                    Legitimate
                } else {
                    Forbidden("RARP of another")
                }
            }
            _ => Forbidden("no protocol of guests"),
        }
    }

    fn judge_arp(&self, packet: &[u8]) -> Verdict {
        let (Some(head), Some(operation)) = (packet.get(..6), short(packet, 6)) else {
            return Forbidden("no ARP");
        };
        if head != [0, 1, 8, 0, 6, 4]
            || !(1..=2).contains(&operation)
            || packet.get(8..14) != Some(&self.mac)
        {
            return Forbidden("ARP of another");
        }
        let (sender, target) = (address4(packet, 14), address4(packet, 24));
        let probe =
            operation == 1 && sender == Some(Ipv4Addr::UNSPECIFIED) && target == Some(self.ipv4);
        match (sender == Some(self.ipv4) || probe, target) {
            (true, Some(_)) => Legitimate,
            (true, None) => Tolerated,
            _ => Forbidden("ARP for another's address"),
        }
    }

    fn judge4(&self, packet: &[u8]) -> Verdict {
        let Some((payload, protocol, part, source)) = split4(packet) else {
            return Forbidden("no IPv4");
        };
        if source == Ipv4Addr::UNSPECIFIED {
            let client = payload.get(..4) == Some(&[0, 68, 0, 67]);
            return match (protocol, part) {
                (17, Part::Whole) if client && payload.len() >= 8 => Legitimate,
                (17, Part::Whole) if client => Tolerated,
                (2, _) if matches!(payload.first(), Some(0x12 | 0x16 | 0x17 | 0x22)) => Tolerated,
                // Bytes behind the end say nothing to a receiver.
                (2 | 17, Part::Whole) if payload.len() < 4 => Tolerated,
                _ => Forbidden("from no address"),
            };
        }
        if source != self.ipv4 {
            return Forbidden("from another's IPv4 address");
        }
        ipv4(packet, 0)
    }

    fn judge6(&mut self, packet: &[u8]) -> Verdict {
        let Some((next, payload)) = split6(packet) else {
            return Forbidden("no IPv6");
        };
        let (Some(source), Some(hops)) = (address6(packet, 8), packet.get(7)) else {
            return Forbidden("no IPv6");
        };
        let found = ipv6(packet, 0);
        if let Forbidden(_) = found {
            return found;
        }
        // The message, if it is one of ICMPv6 in one piece.
        let message = match self.message(next, payload) {
            Some(message) => message,
            None => {
                let cut_off = payload.len() < 16 && matches!(next, 0 | 43 | 60);
                return if self.has(source) {
                    found
                } else if source == Ipv6Addr::UNSPECIFIED && cut_off {
                    Tolerated
                } else {
                    Forbidden("from another's IPv6 address")
                };
            }
        };
        match message.first() {
            Some(133 | 135 | 136) => {
                if next != 58 || *hops != 255 || message.get(1) != Some(&0) {
                    return Forbidden("neighbour discovery in disguise (RFC 4861, RFC 6980)");
                }
                self.judge_discovery(source, message)
            }
            Some(131 | 132 | 143) => {
                if source != Ipv6Addr::UNSPECIFIED && !self.has(source) {
                    return Forbidden("a multicast listener with another's address");
                }
                if next == 0 && payload.first() == Some(&58) && message.len() >= 8 {
                    return Legitimate;
                }
                Tolerated
            }
            Some(1..=4 | 128 | 129 | 139 | 140) if self.has(source) => found,
            Some(_) if self.has(source) && message.len() < 8 => Tolerated,
            Some(_) => Forbidden("ICMPv6 from another, or of a type that hosts do not send"),
            None if self.has(source) || source == Ipv6Addr::UNSPECIFIED => Tolerated,
            None => Forbidden("from another's IPv6 address"),
        }
    }

    /// The ICMPv6 message of a packet that is not a further fragment.
    fn message<'a>(&self, next: u8, payload: &'a [u8]) -> Option<&'a [u8]> {
        let (mut next, mut rest) = (next, payload);
        loop {
            match next {
                58 => return Some(rest),
                0 | 43 | 60 => {
                    let length = usize::from(*rest.get(1)?) * 8 + 8;
                    next = *rest.first()?;
                    rest = rest.get(length..)?;
                }
                44 => {
                    if short(rest, 2)? & 0xfff8 != 0 {
                        return None;
                    }
                    next = *rest.first()?;
                    rest = rest.get(8..)?;
                }
                _ => return None,
            }
        }
    }

    fn judge_discovery(&mut self, source: Ipv6Addr, message: &[u8]) -> Verdict {
        let kind = message[0];
        // Used is asked for, whatever else is wrong with it.
        if !self.has(source) && self.may_choose(source) {
            self.chosen.insert(source);
        }
        let fixed = if kind == 133 { 8 } else { 24 };
        let Some(mut options) = message.get(fixed..) else {
            return Forbidden("neighbour discovery that is cut off");
        };
        // Options: type, length in words of 8 bytes.
        let mut kinds = Vec::new();
        while !options.is_empty() {
            let length = options.get(1).map_or(0, |words| usize::from(*words) * 8);
            let (Some(option), true) = (options.get(..length), length > 0) else {
                return Forbidden("neighbour discovery with a broken option");
            };
            if matches!(option[0], 1 | 2) && option.get(2..8) != Some(&self.mac) {
                return Forbidden("neighbour discovery with another's MAC address");
            }
            kinds.push((option[0], length));
            options = &options[length..];
        }
        let target = address6(message, 8);
        let nobody = source == Ipv6Addr::UNSPECIFIED;
        let takes = |address: Ipv6Addr| self.has(address) || self.may_choose(address);
        let allowed = match (kind, target) {
            (133, _) => nobody && kinds.is_empty() || !nobody && takes(source),
            (135, Some(target)) if nobody => {
                takes(target) && !kinds.iter().any(|(kind, _)| matches!(kind, 1 | 2))
            }
            (135, Some(_)) => takes(source),
            (136, Some(target)) => {
                let own = self.has(target) || (target == source && takes(source));
                !nobody && takes(source) && own
            }
            _ => false,
        };
        if !allowed {
            return Forbidden("neighbour discovery for another's address");
        }
        let usual: &[&[(u8, usize)]] = match (kind, nobody) {
            (133, true) => &[&[]],
            (133, false) => &[&[], &[(1, 8)]],
            (135, true) => &[&[], &[(14, 8)]],
            (135, false) => &[&[], &[(1, 8)], &[(1, 8), (14, 8)], &[(14, 8), (1, 8)]],
            _ => &[&[], &[(2, 8)]],
        };
        if usual.contains(&kinds.as_slice()) {
            if nobody && kind == 135 {
                self.chosen.extend(target);
            }
            Legitimate
        } else {
            Tolerated
        }
    }
}

/// The judgement of a frame of a guest of which nothing but its MAC address, if that, is
/// checked: it is no server and no router. `tagged`: a VLAN tag is read through.
pub fn judge_any(frame: &[u8]) -> Verdict {
    let (Some(mut kind), Some(mut packet)) = (short(frame, 12), frame.get(14..)) else {
        return Forbidden("no frame");
    };
    if frame[..5] == [1, 0x80, 0xc2, 0, 0] && frame[5] < 16 {
        return Tolerated;
    }
    let mut tags = 0;
    while matches!(kind, 0x8100 | 0x88a8) {
        tags += 1;
        let (Some(inner), Some(rest)) = (short(packet, 2), packet.get(4..)) else {
            return Tolerated;
        };
        (kind, packet) = (inner, rest);
    }
    let found = match kind {
        0x0800 => match ipv4(packet, 0) {
            Forbidden("IGMP query" | "VRRP") => Tolerated,
            other => other,
        },
        0x86dd => match ipv6(packet, 0) {
            Forbidden("VRRP") => Tolerated,
            other => other,
        },
        _ => Legitimate,
    };
    if tags > 0 {
        worst(found, Tolerated)
    } else {
        found
    }
}
