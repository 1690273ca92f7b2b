//! What the kernel queues: a packet from its IPv4 or IPv6 header on → one of the requests that
//! are ours to answer.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::checksum::Sum16BitWords;
use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice, UdpHeaderSlice};

use super::addresses::Addresses;
use super::nd;
use crate::reason::Reason;

/// The port of DHCPv4 servers (RFC 2131, section 4.1).
pub const DHCP4_SERVER: u16 = 67;
/// The port of DHCPv4 clients.
pub const DHCP4_CLIENT: u16 = 68;
/// The port of DHCPv6 servers (RFC 8415, section 7.2).
pub const DHCP6_SERVER: u16 = 547;
/// The port of DHCPv6 clients.
pub const DHCP6_CLIENT: u16 = 546;

/// Larger packets are refused: no client sends any (RFC 2131 and 8415 need 576 and 1280 bytes).
pub const SIZE_LIMIT: usize = 2048;

/// A packet, as far as its headers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A datagram to the port of DHCPv4 servers; not decoded yet.
    Dhcp4(Addresses<Ipv4Addr>, &'a [u8]),
    /// A datagram to the port of DHCPv6 servers; not decoded yet.
    Dhcp6(Addresses<Ipv6Addr>, &'a [u8]),
    /// A router solicitation.
    RouterSolicitation(Addresses<Ipv6Addr>, nd::RouterSolicitation),
    /// A neighbour solicitation.
    NeighborSolicitation(Addresses<Ipv6Addr>, nd::NeighborSolicitation),
    /// Something that is not ours to answer.
    Other,
}

/// How far the kernel says the guest's checksum can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// It is in the packet.
    Present,
    /// The guest left it to the (virtual) hardware; the field holds only the pseudo-header's sum.
    Partial,
}

/// Reads the headers of a queued packet, from its IP header on.
///
/// # Errors
/// The reason for which it must be dropped.
pub fn parse(bytes: &[u8], checksum: Checksum) -> Result<Packet<'_>, Reason> {
    if bytes.len() > SIZE_LIMIT {
        return Err(Reason::TooLarge);
    }
    match bytes.first().map(|first| first >> 4) {
        Some(4) => parse_ipv4(bytes, checksum),
        Some(6) => parse_ipv6(bytes, checksum),
        _ => Err(Reason::MalformedIp),
    }
}

/// What a packet says that it is, whatever is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// A datagram to the port of DHCPv4 servers.
    Dhcp4,
    /// A datagram to the port of DHCPv6 servers.
    Dhcp6,
    /// A router solicitation.
    RouterSolicitation,
    /// A neighbour solicitation.
    NeighborSolicitation,
    /// None of these, or too short to say.
    Other,
}

/// What a packet that [`parse`] refuses would have been: for the counts.
pub fn claim(bytes: &[u8]) -> Claim {
    let (protocol, header) = match bytes.first().map(|first| (first >> 4, first & 15)) {
        Some((4, words)) => (bytes.get(9), usize::from(words) * 4),
        Some((6, _)) => (bytes.get(6), 40),
        _ => return Claim::Other,
    };
    let Some(payload) = bytes.get(header..) else {
        return Claim::Other;
    };
    match (protocol.copied().map(IpNumber), payload) {
        (Some(IpNumber::UDP), [_, _, p0, p1, ..]) => match u16::from_be_bytes([*p0, *p1]) {
            DHCP4_SERVER => Claim::Dhcp4,
            DHCP6_SERVER => Claim::Dhcp6,
            _ => Claim::Other,
        },
        (Some(IpNumber::IPV6_ICMP), [nd::ROUTER_SOLICITATION, ..]) => Claim::RouterSolicitation,
        (Some(IpNumber::IPV6_ICMP), [nd::NEIGHBOR_SOLICITATION, ..]) => Claim::NeighborSolicitation,
        _ => Claim::Other,
    }
}

fn parse_ipv4(bytes: &[u8], checksum: Checksum) -> Result<Packet<'_>, Reason> {
    let header = Ipv4HeaderSlice::from_slice(bytes).map_err(|_| Reason::MalformedIp)?;
    if header.protocol() != IpNumber::UDP {
        return Ok(Packet::Other);
    }
    if header.is_fragmenting_payload() {
        return Err(Reason::Fragment);
    }
    let payload = bytes
        .get(header.slice().len()..usize::from(header.total_len()))
        .ok_or(Reason::MalformedIp)?;
    let addresses = Addresses {
        source: header.source_addr(),
        destination: header.destination_addr(),
    };
    let pseudo = Sum16BitWords::new()
        .add_4bytes(header.source())
        .add_4bytes(header.destination());
    let (port, data) = parse_udp(payload, pseudo, checksum, true)?;
    Ok(if port == DHCP4_SERVER {
        Packet::Dhcp4(addresses, data)
    } else {
        Packet::Other
    })
}

fn parse_ipv6(bytes: &[u8], checksum: Checksum) -> Result<Packet<'_>, Reason> {
    let header = Ipv6HeaderSlice::from_slice(bytes).map_err(|_| Reason::MalformedIp)?;
    // What is behind extension headers is nobody's honest solicitation (RFC 6980, RFC 7113);
    // whether it may pass is for the packet filter to say.
    if !matches!(header.next_header(), IpNumber::UDP | IpNumber::IPV6_ICMP) {
        return Ok(Packet::Other);
    }
    let start = header.slice().len();
    let payload = bytes
        .get(start..start + usize::from(header.payload_length()))
        .ok_or(Reason::MalformedIp)?;
    let addresses = Addresses {
        source: header.source_addr(),
        destination: header.destination_addr(),
    };
    let pseudo = Sum16BitWords::new()
        .add_16bytes(header.source())
        .add_16bytes(header.destination());
    if header.next_header() == IpNumber::UDP {
        // RFC 8200, section 8.1: without checksum only in tunnels.
        let (port, data) = parse_udp(payload, pseudo, checksum, false)?;
        return Ok(if port == DHCP6_SERVER {
            Packet::Dhcp6(addresses, data)
        } else {
            Packet::Other
        });
    }
    let kind = match payload.first() {
        Some(&nd::ROUTER_SOLICITATION) => nd::ROUTER_SOLICITATION,
        Some(&nd::NEIGHBOR_SOLICITATION) => nd::NEIGHBOR_SOLICITATION,
        _ => return Ok(Packet::Other),
    };
    verify(payload, 2, IpNumber::IPV6_ICMP, pseudo, checksum)?;
    // RFC 4861, sections 6.1.1 and 7.1.1: a larger distance means that it came through a router.
    if header.hop_limit() != 255 {
        return Err(Reason::HopLimit);
    }
    if kind == nd::ROUTER_SOLICITATION {
        let message = nd::RouterSolicitation::parse(payload, addresses)?;
        Ok(Packet::RouterSolicitation(addresses, message))
    } else {
        let message = nd::NeighborSolicitation::parse(payload, addresses)?;
        Ok(Packet::NeighborSolicitation(addresses, message))
    }
}

/// The destination port and the data of a UDP datagram.
fn parse_udp(
    payload: &[u8],
    pseudo: Sum16BitWords,
    checksum: Checksum,
    may_lack: bool,
) -> Result<(u16, &[u8]), Reason> {
    let header = UdpHeaderSlice::from_slice(payload).map_err(|_| Reason::MalformedUdp)?;
    let datagram = payload
        .get(..usize::from(header.length()))
        .ok_or(Reason::MalformedUdp)?;
    let data = datagram
        .get(header.slice().len()..)
        .ok_or(Reason::MalformedUdp)?;
    if header.checksum() != 0 {
        verify(datagram, 6, IpNumber::UDP, pseudo, checksum)?;
    } else if !may_lack {
        return Err(Reason::Checksum);
    }
    Ok((header.destination_port(), data))
}

/// Checks the checksum at `offset` of `data`.
///
/// A guest whose NIC computes checksums leaves the pseudo-header's sum in the field. The kernel
/// usually says so, but a frame can lose that on its way (between two bridges, through a
/// user-space switch), and DHCP clients were left without an address for it.
fn verify(
    data: &[u8],
    offset: usize,
    protocol: IpNumber,
    pseudo: Sum16BitWords,
    checksum: Checksum,
) -> Result<(), Reason> {
    if checksum == Checksum::Partial {
        return Ok(());
    }
    let length = u16::try_from(data.len()).map_err(|_| Reason::TooLarge)?;
    let pseudo = pseudo
        .add_2bytes([0, protocol.0])
        .add_2bytes(length.to_be_bytes());
    if pseudo.clone().add_slice(data).ones_complement() == 0 {
        return Ok(());
    }
    let partial = !pseudo.ones_complement();
    match data.get(offset..offset + 2) {
        // The sum is of words in memory order, so is the field.
        Some(&[a, b]) if u16::from_ne_bytes([a, b]) == partial => Ok(()),
        _ => Err(Reason::Checksum),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    fn udp4(port: u16, data: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv4([0; 4], [255; 4], 64)
            .udp(68, port)
            .write(&mut packet, data)
            .unwrap();
        packet
    }

    fn udp6(port: u16, data: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        let source: Ipv6Addr = "fe80::1".parse().unwrap();
        let destination: Ipv6Addr = "ff02::1:2".parse().unwrap();
        PacketBuilder::ipv6(source.octets(), destination.octets(), 1)
            .udp(546, port)
            .write(&mut packet, data)
            .unwrap();
        packet
    }

    #[test]
    fn dhcp_is_found_by_its_port() {
        let packet = udp4(67, b"abc");
        let addresses = Addresses {
            source: Ipv4Addr::UNSPECIFIED,
            destination: Ipv4Addr::BROADCAST,
        };
        assert_eq!(
            parse(&packet, Checksum::Present),
            Ok(Packet::Dhcp4(addresses, b"abc"))
        );
        assert_eq!(
            parse(&udp4(53, b"abc"), Checksum::Present),
            Ok(Packet::Other)
        );
        assert!(matches!(
            parse(&udp6(547, b"abc"), Checksum::Present),
            Ok(Packet::Dhcp6(_, b"abc"))
        ));
        assert_eq!(
            parse(&udp6(53, b"abc"), Checksum::Present),
            Ok(Packet::Other)
        );
    }

    #[test]
    fn ethernet_padding_behind_the_packet_is_not_data() {
        let mut packet = udp4(67, b"abc");
        packet.extend_from_slice(&[0; 20]);
        assert!(matches!(
            parse(&packet, Checksum::Present),
            Ok(Packet::Dhcp4(_, b"abc"))
        ));
    }

    #[test]
    fn a_wrong_checksum_is_refused_a_missing_or_partial_one_is_not() {
        let good = udp4(67, b"abcd");
        let mut wrong = good.clone();
        wrong[27] ^= 1;
        assert_eq!(parse(&wrong, Checksum::Present), Err(Reason::Checksum));
        assert!(parse(&wrong, Checksum::Partial).is_ok());
        let mut missing = good.clone();
        missing[26..28].fill(0);
        assert!(parse(&missing, Checksum::Present).is_ok());
        // The sum of the pseudo-header alone, not inverted: 0+0 + ffff+ffff + 17 + 12.
        let mut partial = good;
        partial[26..28].copy_from_slice(&(17_u16 + 12).to_be_bytes());
        assert!(parse(&partial, Checksum::Present).is_ok());
        let mut missing6 = udp6(547, b"abcd");
        missing6[46..48].fill(0);
        assert_eq!(parse(&missing6, Checksum::Present), Err(Reason::Checksum));
    }

    #[test]
    fn what_is_refused_still_says_what_it_is() {
        for (packet, claimed) in [
            (udp4(67, b"abc"), Claim::Dhcp4),
            (udp6(547, b"abc"), Claim::Dhcp6),
            (udp4(53, b"abc"), Claim::Other),
        ] {
            let mut wrong = packet;
            *wrong.last_mut().unwrap() ^= 1;
            assert_eq!(parse(&wrong, Checksum::Present), Err(Reason::Checksum));
            assert_eq!(claim(&wrong), claimed);
            for cut in 0..wrong.len() {
                assert!([claimed, Claim::Other].contains(&claim(&wrong[..cut])));
            }
        }
        for (kind, claimed) in [
            (133, Claim::RouterSolicitation),
            (135, Claim::NeighborSolicitation),
            (134, Claim::Other),
        ] {
            let mut packet = vec![0x60; 60];
            packet[6] = 58;
            packet[40] = kind;
            assert_eq!(claim(&packet), claimed);
        }
        assert_eq!(claim(&[0x4f; 12]), Claim::Other);
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let good = udp4(67, b"abcd");
        for cut in 1..good.len() {
            assert!(parse(&good[..cut], Checksum::Present).is_err(), "{cut}");
        }
        assert_eq!(parse(&[], Checksum::Present), Err(Reason::MalformedIp));
        assert_eq!(
            parse(&[0x50; 40], Checksum::Present),
            Err(Reason::MalformedIp)
        );
        assert_eq!(
            parse(&vec![0x45; 3000], Checksum::Present),
            Err(Reason::TooLarge)
        );
        let mut fragment = good;
        fragment[6] |= 0x20;
        assert_eq!(parse(&fragment, Checksum::Present), Err(Reason::Fragment));
    }
}
