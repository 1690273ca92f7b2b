//! Frames to a guest: Ethernet, IP, UDP or ICMPv6, with complete checksums.
//!
//! Every builder appends to a buffer, so that the data path reuses one.

use std::net::{Ipv4Addr, Ipv6Addr};

use agents::addr::MacAddr;
use etherparse::checksum::Sum16BitWords;
use etherparse::ip_number;

use super::ip::{DHCP4_CLIENT, DHCP4_SERVER};

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// Bytes before a DHCPv4 message in its frame: Ethernet, IPv4, UDP.
pub const DHCP4_OFFSET: usize = 14 + 20 + 8;
/// Bytes before an ICMPv6 message in its frame: Ethernet, IPv6.
pub const ICMP6_OFFSET: usize = 14 + 40;
/// Bytes before a DHCPv6 message in its frame: Ethernet, IPv6, UDP.
pub const DHCP6_OFFSET: usize = 14 + 40 + 8;

/// From whom to whom, on the link and on the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route<A> {
    /// The MAC address that the answer comes from.
    pub source_mac: MacAddr,
    /// The MAC address that it goes to.
    pub destination_mac: MacAddr,
    /// The IP address that it comes from.
    pub source: A,
    /// The IP address that it goes to.
    pub destination: A,
}

/// A frame in the making: `buffer` was emptied and holds room for the headers; the message is
/// appended; then one of the `finish` functions fills in the headers.
///
/// `finish_*` returns false, and the frame must not be sent, if the message is longer than an
/// IP packet can be.
#[must_use]
pub fn finish_dhcp4(frame: &mut [u8], route: Route<Ipv4Addr>) -> bool {
    let Some((head, message)) = frame.split_first_chunk_mut::<DHCP4_OFFSET>() else {
        return false;
    };
    let (Ok(total), Ok(udp)) = (
        u16::try_from(message.len() + 28),
        u16::try_from(message.len() + 8),
    ) else {
        return false;
    };
    let (ethernet, rest) = split::<14, 28, _>(head);
    let (ip, udp_header) = split::<20, 8, _>(rest);
    *ethernet = ethernet_header(route.source_mac, route.destination_mac, ETHERTYPE_IPV4);
    let [total_high, total_low] = total.to_be_bytes();
    let [s0, s1, s2, s3] = route.source.octets();
    let [d0, d1, d2, d3] = route.destination.octets();
    // Version 4, five words; CS6, as network control has it; not to be fragmented; 64 hops.
    *ip = [
        0x45, 0xc0, total_high, total_low, 0, 0, 0x40, 0, 64, 17, 0, 0, s0, s1, s2, s3, d0, d1, d2,
        d3,
    ];
    let [high, low] = checksum(Sum16BitWords::new().add_slice(ip));
    (ip[10], ip[11]) = (high, low);

    let [length_high, length_low] = udp.to_be_bytes();
    let [from_high, from_low] = DHCP4_SERVER.to_be_bytes();
    let [to_high, to_low] = DHCP4_CLIENT.to_be_bytes();
    *udp_header = [
        from_high,
        from_low,
        to_high,
        to_low,
        length_high,
        length_low,
        0,
        0,
    ];
    let sum = Sum16BitWords::new()
        .add_4bytes(route.source.octets())
        .add_4bytes(route.destination.octets())
        .add_2bytes([0, ip_number::UDP.0])
        .add_2bytes([length_high, length_low])
        .add_slice(udp_header)
        .add_slice(message);
    let [high, low] = nonzero(checksum(sum));
    (udp_header[6], udp_header[7]) = (high, low);
    true
}

/// Fills in Ethernet and IPv6 headers and the checksum of an ICMPv6 message (with its own at
/// bytes 2 and 3, which must be zero). The hop limit is 255 (RFC 4861).
#[must_use]
pub fn finish_icmp6(frame: &mut [u8], route: Route<Ipv6Addr>) -> bool {
    let Some((head, message)) = frame.split_first_chunk_mut::<ICMP6_OFFSET>() else {
        return false;
    };
    let Ok(length) = u16::try_from(message.len()) else {
        return false;
    };
    let (ethernet, ip) = split::<14, 40, _>(head);
    *ethernet = ethernet_header(route.source_mac, route.destination_mac, ETHERTYPE_IPV6);
    *ip = ipv6_header(route, length, ip_number::IPV6_ICMP.0, 255);
    let sum = pseudo6(route, ip_number::IPV6_ICMP.0, length).add_slice(message);
    let sum = checksum(sum);
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&sum);
    }
    true
}

/// Fills in Ethernet, IPv6 and UDP headers of a DHCPv6 message, from the server's port to
/// `port`.
#[must_use]
pub fn finish_dhcp6(frame: &mut [u8], route: Route<Ipv6Addr>, port: u16) -> bool {
    let Some((head, message)) = frame.split_first_chunk_mut::<DHCP6_OFFSET>() else {
        return false;
    };
    let Ok(length) = u16::try_from(message.len() + 8) else {
        return false;
    };
    let (ethernet, rest) = split::<14, 48, _>(head);
    let (ip, udp_header) = split::<40, 8, _>(rest);
    *ethernet = ethernet_header(route.source_mac, route.destination_mac, ETHERTYPE_IPV6);
    *ip = ipv6_header(route, length, ip_number::UDP.0, 64);
    let [from_high, from_low] = super::ip::DHCP6_SERVER.to_be_bytes();
    let [to_high, to_low] = port.to_be_bytes();
    let [length_high, length_low] = length.to_be_bytes();
    *udp_header = [
        from_high,
        from_low,
        to_high,
        to_low,
        length_high,
        length_low,
        0,
        0,
    ];
    let sum = pseudo6(route, ip_number::UDP.0, length)
        .add_slice(udp_header)
        .add_slice(message);
    let [high, low] = nonzero(checksum(sum));
    (udp_header[6], udp_header[7]) = (high, low);
    true
}

/// Empties `buffer` and leaves room for headers of `offset` bytes.
pub fn start(buffer: &mut Vec<u8>, offset: usize) {
    buffer.clear();
    buffer.resize(offset, 0);
}

fn ethernet_header(source: MacAddr, destination: MacAddr, ethertype: [u8; 2]) -> [u8; 14] {
    let [d0, d1, d2, d3, d4, d5] = destination.octets();
    let [s0, s1, s2, s3, s4, s5] = source.octets();
    let [e0, e1] = ethertype;
    [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, e0, e1]
}

fn ipv6_header(route: Route<Ipv6Addr>, length: u16, next: u8, hop_limit: u8) -> [u8; 40] {
    let mut header = [0; 40];
    let (start, addresses) = split::<8, 32, _>(&mut header);
    let (source, destination) = split::<16, 16, _>(addresses);
    let [high, low] = length.to_be_bytes();
    // Version 6, traffic class CS6.
    *start = [0x6c, 0, 0, 0, high, low, next, hop_limit];
    *source = route.source.octets();
    *destination = route.destination.octets();
    header
}

fn pseudo6(route: Route<Ipv6Addr>, protocol: u8, length: u16) -> Sum16BitWords {
    Sum16BitWords::new()
        .add_16bytes(route.source.octets())
        .add_16bytes(route.destination.octets())
        .add_2bytes([0, protocol])
        .add_2bytes(length.to_be_bytes())
}

/// The checksum's bytes in the order of the wire.
fn checksum(sum: Sum16BitWords) -> [u8; 2] {
    // The words were summed in memory order, so the result is in it too.
    sum.ones_complement().to_ne_bytes()
}

/// In UDP, zero means that there is no checksum.
fn nonzero(sum: [u8; 2]) -> [u8; 2] {
    if sum == [0, 0] { [0xff, 0xff] } else { sum }
}

/// Splits an array into two, whose lengths the compiler checks.
fn split<const A: usize, const B: usize, const N: usize>(
    array: &mut [u8; N],
) -> (&mut [u8; A], &mut [u8; B]) {
    const { assert!(A + B == N) };
    let (left, right) = array.split_at_mut(A);
    match (left.try_into(), right.try_into()) {
        (Ok(left), Ok(right)) => (left, right),
        _ => unreachable!(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    const SERVER: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 1]);
    const GUEST: MacAddr = MacAddr::new([0xaa, 0, 0, 0, 0, 1]);

    fn route6() -> Route<Ipv6Addr> {
        Route {
            source_mac: SERVER,
            destination_mac: GUEST,
            source: "fe80::1".parse().unwrap(),
            destination: "fe80::2".parse().unwrap(),
        }
    }

    #[test]
    fn a_dhcpv4_frame_is_what_another_parser_takes() {
        for length in [0, 1, 300, 548, 1400] {
            let mut frame = Vec::new();
            start(&mut frame, DHCP4_OFFSET);
            frame.extend(std::iter::repeat_n(7, length));
            let route = Route {
                source_mac: SERVER,
                destination_mac: GUEST,
                source: Ipv4Addr::new(10, 0, 0, 1),
                destination: Ipv4Addr::new(10, 0, 0, 5),
            };
            assert!(finish_dhcp4(&mut frame, route));
            let packet = SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(NetSlice::Ipv4(ip)) = packet.net else {
                panic!()
            };
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(header.source, [10, 0, 0, 1]);
            let Some(TransportSlice::Udp(udp)) = packet.transport else {
                panic!()
            };
            assert_eq!((udp.source_port(), udp.destination_port()), (67, 68));
            let expected = udp
                .to_header()
                .calc_checksum_ipv4(&header, udp.payload())
                .unwrap();
            assert_eq!(udp.checksum(), expected);
            assert_eq!(udp.payload().len(), length);
        }
    }

    #[test]
    fn an_icmpv6_frame_is_what_another_parser_takes() {
        let mut frame = Vec::new();
        start(&mut frame, ICMP6_OFFSET);
        frame.extend_from_slice(&[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!(finish_icmp6(&mut frame, route6()));
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Ipv6(ip)) = packet.net else {
            panic!()
        };
        assert_eq!(ip.header().hop_limit(), 255);
        let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else {
            panic!()
        };
        assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
    }

    #[test]
    fn a_dhcpv6_frame_is_what_another_parser_takes() {
        let mut frame = Vec::new();
        start(&mut frame, DHCP6_OFFSET);
        frame.extend_from_slice(&[7, 1, 2, 3, 0]);
        assert!(finish_dhcp6(&mut frame, route6(), 546));
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Ipv6(ip)) = packet.net else {
            panic!()
        };
        let Some(TransportSlice::Udp(udp)) = packet.transport else {
            panic!()
        };
        assert_eq!((udp.source_port(), udp.destination_port()), (547, 546));
        let header = ip.header().to_header();
        let expected = udp
            .to_header()
            .calc_checksum_ipv6(&header, udp.payload())
            .unwrap();
        assert_eq!(udp.checksum(), expected);
    }

    #[test]
    fn what_does_not_fit_into_a_packet_is_not_finished() {
        let mut frame = vec![0; 70_000];
        assert!(!finish_icmp6(&mut frame, route6()));
        assert!(!finish_dhcp6(&mut frame, route6(), 546));
        assert!(!finish_icmp6(&mut [0; 10], route6()));
    }
}
