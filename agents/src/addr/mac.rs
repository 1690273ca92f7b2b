//! A MAC address (EUI-48).

use std::fmt;
use std::str::FromStr;

/// A MAC address (EUI-48).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// ff:ff:ff:ff:ff:ff
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// 00:00:00:00:00:00
    pub const ZERO: Self = Self([0; 6]);

    /// The address with these octets, in the order of the wire.
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The octets, in the order of the wire.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether it is a group address (broadcast included), which no interface can have.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether all octets are zero.
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }

    /// The MAC address to which a packet for an IPv6 multicast group goes (RFC 2464, section 7).
    pub const fn ipv6_multicast(group: std::net::Ipv6Addr) -> Self {
        let [.., c, d, e, f] = group.octets();
        Self([0x33, 0x33, c, d, e, f])
    }
}

impl From<[u8; 6]> for MacAddr {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

impl TryFrom<&[u8]> for MacAddr {
    type Error = std::array::TryFromSliceError;

    fn try_from(octets: &[u8]) -> Result<Self, Self::Error> {
        <[u8; 6]>::try_from(octets).map(Self)
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not six pairs of hexadecimal digits, separated by colons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address such as aa:00:00:12:34:56")]
pub struct MacParseError;

impl FromStr for MacAddr {
    type Err = MacParseError;

    /// Six pairs of hexadecimal digits of either case, separated by colons.
    fn from_str(text: &str) -> Result<Self, MacParseError> {
        let mut octets = [0; 6];
        let mut pairs = text.split(':');
        for octet in &mut octets {
            let pair = pairs.next().ok_or(MacParseError)?;
            // from_str_radix would also take "+1".
            if pair.len() != 2 || !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(MacParseError);
            }
            *octet = u8::from_str_radix(pair, 16).map_err(|_| MacParseError)?;
        }
        match pairs.next() {
            None => Ok(Self(octets)),
            Some(_) => Err(MacParseError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_is_read_in_either_case_and_written_in_lower_case() {
        let mac: MacAddr = "AA:bb:0C:1d:2e:3F".parse().unwrap();
        assert_eq!(mac.octets(), [0xaa, 0xbb, 0x0c, 0x1d, 0x2e, 0x3f]);
        assert_eq!(mac.to_string(), "aa:bb:0c:1d:2e:3f");
    }

    #[test]
    fn what_is_not_a_mac_address_is_refused() {
        for text in [
            "",
            "aa:bb:cc:dd:ee",
            "aa:bb:cc:dd:ee:ff:00",
            "aa:bb:cc:dd:ee:f",
            "aa:bb:cc:dd:ee:fff",
            "aa:bb:cc:dd:ee:+f",
            "aa-bb-cc-dd-ee-ff",
            "aabbccddeeff",
            " aa:bb:cc:dd:ee:ff",
            "gg:bb:cc:dd:ee:ff",
            "ää:bb:cc:dd:ee:ff",
        ] {
            assert_eq!(text.parse::<MacAddr>(), Err(MacParseError), "{text:?}");
        }
    }

    #[test]
    fn groups() {
        assert!(MacAddr::BROADCAST.is_multicast());
        assert!(!MacAddr::new([0xaa, 0, 0, 0, 0, 1]).is_multicast());
        assert_eq!(
            MacAddr::ipv6_multicast("ff02::1:ff0e:8c6c".parse().unwrap()).to_string(),
            "33:33:ff:0e:8c:6c"
        );
    }
}
