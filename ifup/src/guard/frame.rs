//! Frames of the corpus, byte for byte, with their checksums.

use std::net::{Ipv4Addr, Ipv6Addr};

use agents::addr::MacAddr;

/// An Ethernet frame, filled up to the 60 bytes that the wire has at least.
pub fn ethernet(to: MacAddr, from: MacAddr, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = to.octets().to_vec();
    frame.extend(from.octets());
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    if frame.len() < 60 {
        frame.resize(60, 0);
    }
    frame
}

/// The same behind 802.1Q tags, from the outermost on: EtherType of the tag and its content.
pub fn tagged(mut frame: Vec<u8>, tags: &[(u16, u16)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, tag) in tags {
        bytes.extend(kind.to_be_bytes());
        bytes.extend(tag.to_be_bytes());
    }
    frame.splice(12..12, bytes);
    frame
}

/// An ARP message for Ethernet and IPv4.
pub fn arp(operation: u16, sender: (MacAddr, Ipv4Addr), target: (MacAddr, Ipv4Addr)) -> Vec<u8> {
    let mut message = vec![0, 1, 8, 0, 6, 4];
    message.extend(operation.to_be_bytes());
    for (mac, address) in [sender, target] {
        message.extend(mac.octets());
        message.extend(address.octets());
    }
    message
}

/// What may be unusual about an IPv4 packet.
#[derive(Debug, Clone, Default)]
pub struct Ipv4 {
    /// Offset in units of 8 bytes, with 0x2000 for "more follow".
    pub fragment: u16,
    /// Options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// Type of service, time to live and so on are as usual; this is the version's nibble.
    pub version: Option<u8>,
}

/// An IPv4 packet.
pub fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8], how: &Ipv4) -> Vec<u8> {
    let header = 20 + how.options.len();
    let words = u8::try_from(header / 4).unwrap_or(5);
    let length = u16::try_from(header + payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![how.version.unwrap_or(4) << 4 | words, 0];
    packet.extend(length.to_be_bytes());
    packet.extend(0x1234_u16.to_be_bytes());
    packet.extend(how.fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(&how.options);
    let sum = checksum(&packet, 0);
    packet.splice(10..12, sum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// A UDP datagram; its checksum is left out in IPv4, and right in IPv6.
pub fn udp(from: u16, to: u16, payload: &[u8], addresses: Option<(Ipv6Addr, Ipv6Addr)>) -> Vec<u8> {
    let mut datagram = from.to_be_bytes().to_vec();
    datagram.extend(to.to_be_bytes());
    let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    datagram.extend(length.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    if let Some((from, to)) = addresses {
        let sum = checksum(&datagram, pseudo(from, to, 17, datagram.len()));
        datagram.splice(6..8, sum.to_be_bytes());
    }
    datagram
}

/// An ICMPv6 message with its checksum.
pub fn icmp6(from: Ipv6Addr, to: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(body);
    let sum = checksum(&message, pseudo(from, to, 58, message.len()));
    message.splice(2..4, sum.to_be_bytes());
    message
}

/// An ICMP message with its checksum.
pub fn icmp(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(body);
    let sum = checksum(&message, 0);
    message.splice(2..4, sum.to_be_bytes());
    message
}

/// An IPv6 packet; `next` is the header that `payload` begins with.
pub fn ipv6(from: Ipv6Addr, to: Ipv6Addr, next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(
        u16::try_from(payload.len())
            .unwrap_or(u16::MAX)
            .to_be_bytes(),
    );
    packet.extend([next, hops]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    packet
}

/// An IPv6 extension header of 8 bytes (hop-by-hop, routing, destination), padded.
pub fn extension(next: u8) -> Vec<u8> {
    vec![next, 0, 1, 4, 0, 0, 0, 0]
}

/// An IPv6 fragment header; the offset is in units of 8 bytes.
pub fn fragment(next: u8, offset: u16, more: bool) -> Vec<u8> {
    let mut header = vec![next, 0];
    header.extend((offset << 3 | u16::from(more)).to_be_bytes());
    header.extend(0x0102_0304_u32.to_be_bytes());
    header
}

/// An option of neighbour discovery with a MAC address: 1 source, 2 target.
pub fn mac_option(kind: u8, mac: MacAddr) -> Vec<u8> {
    let mut option = vec![kind, 1];
    option.extend(mac.octets());
    option
}

fn pseudo(from: Ipv6Addr, to: Ipv6Addr, next: u32, length: usize) -> u32 {
    let words = |address: Ipv6Addr| address.segments().map(u32::from).iter().sum::<u32>();
    words(from) + words(to) + next + u32::try_from(length).unwrap_or(0)
}

/// The Internet checksum (RFC 1071), on top of a sum.
fn checksum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        let high = pair.first().copied().unwrap_or(0);
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([high, low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_captured_packets() {
        // RFC 1071, section 3.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&bytes, 0), !0xddf2);
        // A header is right if the sum over it is zero.
        let from = Ipv4Addr::new(10, 0, 0, 1);
        let packet = ipv4(from, from, 17, &[], &Ipv4::default());
        assert_eq!(checksum(&packet[..20], 0), 0);
    }
}
