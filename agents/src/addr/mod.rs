//! MAC addresses, EUI-64 interface identifiers, prefixes.
//!
//! Prefixes are [`Ipv4Net`] and [`Ipv6Net`] of the `ipnet` crate: an address and a length.
//! They keep host bits as they were written; call `trunc()` for the network.

mod mac;

pub use ipnet::{IpNet, Ipv4Net, Ipv6Net};
pub use mac::{MacAddr, MacParseError};

use std::net::Ipv6Addr;

/// The modified EUI-64 interface identifier of a MAC address (RFC 4291, appendix A).
pub fn eui64(mac: MacAddr) -> [u8; 8] {
    let [a, b, c, d, e, f] = mac.octets();
    [a ^ 0x02, b, c, 0xff, 0xfe, d, e, f]
}

/// The link-local address that a host derives from its MAC address.
pub fn link_local(mac: MacAddr) -> Ipv6Addr {
    join([0xfe, 0x80, 0, 0, 0, 0, 0, 0], eui64(mac))
}

/// The address that a host with this MAC address takes in `prefix` if it uses EUI-64.
///
/// `None` if the prefix is longer than 64 bits: then there is no room for the identifier.
pub fn in_prefix(prefix: Ipv6Net, mac: MacAddr) -> Option<Ipv6Addr> {
    if prefix.prefix_len() > 64 {
        return None;
    }
    let [a, b, c, d, e, f, g, h, ..] = prefix.network().octets();
    Some(join([a, b, c, d, e, f, g, h], eui64(mac)))
}

/// Whether the address is in fe80::/10.
pub fn is_link_local(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 0xfe && second & 0xc0 == 0x80
}

/// The solicited-node multicast address of `address` (RFC 4291, section 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., d, e, f] = address.octets();
    let [high, low] = [u16::from_be_bytes([0xff, d]), u16::from_be_bytes([e, f])];
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, high, low)
}

fn join(high: [u8; 8], low: [u8; 8]) -> Ipv6Addr {
    let high = u128::from(u64::from_be_bytes(high));
    let low = u128::from(u64::from_be_bytes(low));
    Ipv6Addr::from(high << 64 | low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(text: &str) -> MacAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_interface_identifier_is_that_of_rfc_4291() {
        // RFC 4291 appendix A: the universal/local bit is inverted, fffe is inserted.
        assert_eq!(
            eui64(mac("34:56:78:9a:bc:de")),
            [0x36, 0x56, 0x78, 0xff, 0xfe, 0x9a, 0xbc, 0xde]
        );
        assert_eq!(
            link_local(mac("aa:00:00:12:34:56")).to_string(),
            "fe80::a800:ff:fe12:3456"
        );
    }

    #[test]
    fn the_address_in_a_prefix_ignores_its_host_bits() {
        let address = in_prefix("fd66:1::1/64".parse().unwrap(), mac("aa:00:00:12:34:56"));
        assert_eq!(address.unwrap().to_string(), "fd66:1::a800:ff:fe12:3456");
        let wide = in_prefix("2001:db8::/48".parse().unwrap(), mac("02:00:00:00:00:01"));
        assert_eq!(wide.unwrap().to_string(), "2001:db8::ff:fe00:1");
        assert_eq!(
            in_prefix("fd66:1::/65".parse().unwrap(), mac("02:00:00:00:00:01")),
            None
        );
    }

    #[test]
    fn link_local_and_solicited_node() {
        assert!(is_link_local("fe80::1".parse().unwrap()));
        assert!(is_link_local("febf::1".parse().unwrap()));
        assert!(!is_link_local("fec0::1".parse().unwrap()));
        assert!(!is_link_local("ff02::1".parse().unwrap()));
        assert_eq!(
            solicited_node("4037::1:800:200e:8c6c".parse().unwrap()),
            "ff02::1:ff0e:8c6c".parse::<Ipv6Addr>().unwrap()
        );
    }
}
