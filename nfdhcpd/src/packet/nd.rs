//! Neighbour discovery: what a guest asks (RFC 4861, sections 4.1 and 4.3).

use std::net::Ipv6Addr;

use agents::addr::MacAddr;

use super::addresses::Addresses;
use crate::reason::Reason;

/// ICMPv6 type of a router solicitation.
pub const ROUTER_SOLICITATION: u8 = 133;
/// ICMPv6 type of a router advertisement.
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// ICMPv6 type of a neighbour solicitation.
pub const NEIGHBOR_SOLICITATION: u8 = 135;
/// ICMPv6 type of a neighbour advertisement.
pub const NEIGHBOR_ADVERTISEMENT: u8 = 136;

const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;

/// A router solicitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouterSolicitation {
    /// The sender's MAC address, if it said so.
    pub source_link_layer: Option<MacAddr>,
}

/// A neighbour solicitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighborSolicitation {
    /// Whose MAC address is asked for.
    pub target: Ipv6Addr,
    /// The sender's MAC address, if it said so.
    pub source_link_layer: Option<MacAddr>,
}

impl RouterSolicitation {
    /// Reads an ICMPv6 message of type 133, whose checksum and hop limit are good, with the
    /// checks of RFC 4861, section 6.1.1.
    ///
    /// # Errors
    /// [`Reason::MalformedNd`].
    pub fn parse(message: &[u8], addresses: Addresses<Ipv6Addr>) -> Result<Self, Reason> {
        let [ROUTER_SOLICITATION, 0, _, _, _, _, _, _, options @ ..] = message else {
            return Err(Reason::MalformedNd);
        };
        let source_link_layer = source_link_layer(options)?;
        if addresses.source.is_unspecified() && source_link_layer.is_some() {
            return Err(Reason::MalformedNd);
        }
        Ok(Self { source_link_layer })
    }
}

impl NeighborSolicitation {
    /// Reads an ICMPv6 message of type 135, whose checksum and hop limit are good, with the
    /// checks of RFC 4861, section 7.1.1.
    ///
    /// # Errors
    /// [`Reason::MalformedNd`].
    pub fn parse(message: &[u8], addresses: Addresses<Ipv6Addr>) -> Result<Self, Reason> {
        let [NEIGHBOR_SOLICITATION, 0, _, _, _, _, _, _, rest @ ..] = message else {
            return Err(Reason::MalformedNd);
        };
        let (target, options) = rest.split_first_chunk::<16>().ok_or(Reason::MalformedNd)?;
        let target = Ipv6Addr::from(*target);
        let source_link_layer = source_link_layer(options)?;
        if target.is_multicast() {
            return Err(Reason::MalformedNd);
        }
        if addresses.source.is_unspecified()
            && (source_link_layer.is_some()
                || addresses.destination != agents::addr::solicited_node(target))
        {
            return Err(Reason::MalformedNd);
        }
        Ok(Self {
            target,
            source_link_layer,
        })
    }
}

/// Walks the options; of several source link-layer addresses the first counts.
fn source_link_layer(mut options: &[u8]) -> Result<Option<MacAddr>, Reason> {
    let mut found = None;
    while let [kind, units, ..] = *options {
        // "All included options have a length that is greater than zero."
        let length = usize::from(units) * 8;
        let (option, rest) = match length {
            0 => return Err(Reason::MalformedNd),
            _ => options
                .split_at_checked(length)
                .ok_or(Reason::MalformedNd)?,
        };
        if kind == SOURCE_LINK_LAYER_ADDRESS && found.is_none() {
            found = option
                .get(2..8)
                .and_then(|octets| MacAddr::try_from(octets).ok());
        }
        options = rest;
    }
    if options.is_empty() {
        Ok(found)
    } else {
        Err(Reason::MalformedNd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(source: &str, destination: &str) -> Addresses<Ipv6Addr> {
        Addresses {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    const RS: [u8; 8] = [133, 0, 0, 0, 0, 0, 0, 0];
    const SLLA: [u8; 8] = [1, 1, 0xaa, 0, 0, 0, 0, 1];

    #[test]
    fn a_router_solicitation_with_and_without_link_layer_address() {
        let all_routers = from("fe80::1", "ff02::2");
        let bare = RouterSolicitation::parse(&RS, all_routers).unwrap();
        assert_eq!(bare.source_link_layer, None);
        let full = [RS, SLLA].concat();
        let message = RouterSolicitation::parse(&full, all_routers).unwrap();
        assert_eq!(
            message.source_link_layer,
            Some(MacAddr::new([0xaa, 0, 0, 0, 0, 1]))
        );
        // An unknown option is skipped.
        let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
        let message = RouterSolicitation::parse(&[RS, nonce, SLLA].concat(), all_routers).unwrap();
        assert!(message.source_link_layer.is_some());
    }

    #[test]
    fn what_rfc_4861_calls_invalid_is_refused() {
        let all_routers = from("fe80::1", "ff02::2");
        let zero_length = [RS, [14, 0, 0, 0, 0, 0, 0, 0]].concat();
        let cut = [&RS[..], &[1, 2, 0, 0, 0, 0, 0, 0]].concat();
        let odd = [&RS[..], &[1]].concat();
        let mut code = RS;
        code[1] = 1;
        for message in [&zero_length[..], &cut, &odd, &code, &RS[..7], &[]] {
            assert_eq!(
                RouterSolicitation::parse(message, all_routers),
                Err(Reason::MalformedNd),
                "{message:?}"
            );
        }
        let nobody = from("::", "ff02::2");
        assert!(RouterSolicitation::parse(&RS, nobody).is_ok());
        assert!(RouterSolicitation::parse(&[RS, SLLA].concat(), nobody).is_err());
    }

    #[test]
    fn a_neighbour_solicitation_and_duplicate_address_detection() {
        let target: Ipv6Addr = "fd66:1::1".parse().unwrap();
        let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat();
        let unicast = from("fe80::1", "fd66:1::1");
        let asked = NeighborSolicitation::parse(&message, unicast).unwrap();
        assert_eq!(asked.target, target);
        // DAD goes to the solicited-node address and has no link-layer address.
        assert!(NeighborSolicitation::parse(&message, from("::", "ff02::1:ff00:1")).is_ok());
        assert!(NeighborSolicitation::parse(&message, from("::", "fd66:1::1")).is_err());
        let with_slla = [&message[..], &SLLA].concat();
        assert!(NeighborSolicitation::parse(&with_slla, unicast).is_ok());
        assert!(NeighborSolicitation::parse(&with_slla, from("::", "ff02::1:ff00:1")).is_err());
        let group: Ipv6Addr = "ff02::1".parse().unwrap();
        let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &group.octets()].concat();
        assert!(NeighborSolicitation::parse(&message, unicast).is_err());
    }
}
