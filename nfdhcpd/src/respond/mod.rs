//! A request and a client → the answer. Pure: no clock, no socket, no file.

pub mod dhcp4;
pub mod dhcp6;
pub mod nd;
pub mod ra;
#[cfg(test)]
pub(crate) mod testing;

use agents::addr::MacAddr;

use crate::client::Client;
use crate::omission::Omission;
use crate::packet::dhcp4::{MessageType, OptionList};
use crate::packet::dhcp6::MessageType as MessageType6;
use crate::packet::ip::{self, Checksum, Claim, Packet};
use crate::reason::Reason;

/// A packet as it came from the queue.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// From its IP header on.
    pub packet: &'a [u8],
    /// The MAC address that it came from, if the kernel says.
    pub source_mac: Option<MacAddr>,
    /// How far its checksum can be relied on.
    pub checksum: Checksum,
}

/// What kind of message a packet was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// DHCPv4, with the type of the message if it has a good one.
    Dhcp4(Option<MessageType>),
    /// DHCPv6, with the type of the message if it has a good one.
    Dhcp6(Option<MessageType6>),
    /// Router solicitation.
    RouterSolicitation,
    /// Neighbour solicitation.
    NeighborSolicitation,
    /// None of ours.
    Other,
}

/// What to do with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send the frame in the buffer to the guest; the packet itself ends here.
    Reply(Answer),
    /// Send the frame in the buffer to the guest, and let the packet go on to others.
    ReplyAndPass(Answer),
    /// It ends here, for this reason.
    Drop(Reason),
    /// It goes on as if we did not exist.
    Pass,
}

/// What was answered, for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// A DHCPv4 message.
    Dhcp4(MessageType),
    /// A router advertisement.
    RouterAdvertisement,
    /// A neighbour advertisement.
    NeighborAdvertisement,
    /// A DHCPv6 message.
    Dhcp6(MessageType6),
}

impl Answer {
    /// The name, for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dhcp4(kind) => kind.name(),
            Self::RouterAdvertisement => "RA",
            Self::NeighborAdvertisement => "NA",
            Self::Dhcp6(kind) => kind.name(),
        }
    }
}

impl Kind {
    /// How many kinds there are.
    pub const COUNT: usize = Self::ALL.len();

    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 23] = {
        use MessageType as M4;
        use MessageType6 as M6;
        [
            Self::Other,
            Self::RouterSolicitation,
            Self::NeighborSolicitation,
            Self::Dhcp4(None),
            Self::Dhcp4(Some(M4::Discover)),
            Self::Dhcp4(Some(M4::Offer)),
            Self::Dhcp4(Some(M4::Request)),
            Self::Dhcp4(Some(M4::Decline)),
            Self::Dhcp4(Some(M4::Ack)),
            Self::Dhcp4(Some(M4::Nak)),
            Self::Dhcp4(Some(M4::Release)),
            Self::Dhcp4(Some(M4::Inform)),
            Self::Dhcp6(None),
            Self::Dhcp6(Some(M6::Solicit)),
            Self::Dhcp6(Some(M6::Advertise)),
            Self::Dhcp6(Some(M6::Request)),
            Self::Dhcp6(Some(M6::Confirm)),
            Self::Dhcp6(Some(M6::Renew)),
            Self::Dhcp6(Some(M6::Rebind)),
            Self::Dhcp6(Some(M6::Reply)),
            Self::Dhcp6(Some(M6::Release)),
            Self::Dhcp6(Some(M6::Decline)),
            Self::Dhcp6(Some(M6::InformationRequest)),
        ]
    };

    /// The number of the kind, from 0.
    pub const fn number(self) -> usize {
        match self {
            Self::Other => 0,
            Self::RouterSolicitation => 1,
            Self::NeighborSolicitation => 2,
            Self::Dhcp4(None) => 3,
            // Their own numbers count from 1.
            Self::Dhcp4(Some(kind)) => 3 + kind as usize,
            Self::Dhcp6(None) => 12,
            // 10, Reconfigure, is a server's.
            Self::Dhcp6(Some(MessageType6::InformationRequest)) => 22,
            Self::Dhcp6(Some(kind)) => 12 + kind as usize,
        }
    }

    /// The name, for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dhcp4(Some(kind)) => kind.name(),
            Self::Dhcp4(None) => "DHCPv4",
            Self::Dhcp6(Some(kind)) => kind.name(),
            Self::Dhcp6(None) => "DHCPv6",
            Self::RouterSolicitation => "RS",
            Self::NeighborSolicitation => "NS",
            Self::Other => "other",
        }
    }
}

/// Memory that is used again from packet to packet.
#[derive(Debug, Default)]
pub struct Scratch {
    options: OptionList,
    /// The items that the last answer had no room for.
    pub omissions: Vec<Omission>,
}

/// So many bytes an answer may have from its IP header on: no more than the guest's link takes, and
/// than every Ethernet does.
fn room(client: &Client, smallest: u16) -> usize {
    client
        .binding
        .mtu
        .unwrap_or(1500)
        .clamp(smallest, 1500)
        .into()
}

/// Answers one packet that came through `client`'s interface. A frame to send is left in `out`,
/// which is overwritten.
pub fn respond(
    query: Query<'_>,
    client: &Client,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> (Kind, Action) {
    out.clear();
    scratch.omissions.clear();
    let packet = match ip::parse(query.packet, query.checksum) {
        Ok(packet) => packet,
        Err(reason) => {
            let kind = match ip::claim(query.packet) {
                Claim::Dhcp4 => Kind::Dhcp4(None),
                Claim::Dhcp6 => Kind::Dhcp6(None),
                Claim::RouterSolicitation => Kind::RouterSolicitation,
                Claim::NeighborSolicitation => Kind::NeighborSolicitation,
                Claim::Other => Kind::Other,
            };
            return (kind, Action::Drop(reason));
        }
    };
    let spoofed = query.source_mac.is_some_and(|mac| !client.owns(mac));
    let kind = match packet {
        Packet::Dhcp4(..) => Kind::Dhcp4(None),
        Packet::Dhcp6(..) => Kind::Dhcp6(None),
        Packet::RouterSolicitation(..) => Kind::RouterSolicitation,
        Packet::NeighborSolicitation(..) => Kind::NeighborSolicitation,
        Packet::Other => return (Kind::Other, Action::Pass),
    };
    if spoofed {
        return (kind, Action::Drop(Reason::SpoofedMac));
    }
    match packet {
        Packet::Dhcp4(addresses, data) => {
            dhcp4::respond(addresses, data, query.source_mac, client, scratch, out)
        }
        Packet::RouterSolicitation(addresses, message) => {
            let to = query.source_mac.or(message.source_link_layer);
            (
                kind,
                ra::solicited(addresses, to, client, &mut scratch.omissions, out),
            )
        }
        Packet::NeighborSolicitation(addresses, message) => (
            kind,
            nd::respond(addresses, message, query.source_mac, client, out),
        ),
        Packet::Dhcp6(addresses, data) => {
            self::dhcp6::respond(addresses, data, query.source_mac, client, scratch, out)
        }
        Packet::Other => (kind, Action::Pass),
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn kinds_are_numbered_in_their_order() {
        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind.number(), number, "{kind:?}");
        }
    }
}
