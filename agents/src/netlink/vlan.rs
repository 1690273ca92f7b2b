//! The VLANs of a bridge's port.

use netlink_packet_core::NlasIterator;
use netlink_packet_route::link::{
    AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags, LinkAttribute, LinkExtentMask, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::socket::{u16_at, u32_at};
use super::{Result, Rtnetlink};

// linux/if_link.h, linux/if_bridge.h
const IFLA_AF_SPEC: u16 = 26;
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
const VLAN_INFO_PVID: u16 = 1 << 1;
const VLAN_INFO_UNTAGGED: u16 = 1 << 2;

impl Rtnetlink {
    /// The bridge takes frames of this VLAN from a port, and sends them to it. With `untagged`
    /// they have no tag on the port, and frames without a tag are of this VLAN.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_port_vlan(&mut self, port: u32, vlan: u16, untagged: bool) -> Result<()> {
        let mut flags = BridgeVlanInfoFlags::empty();
        if untagged {
            flags |= BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged;
        }
        let info = AfSpecBridge::VlanInfo(BridgeVlanInfo { flags, vid: vlan });
        self.socket
            .request(
                RouteNetlinkMessage::SetLink(message(port, vec![info])),
                0,
                || format!("VLAN {vlan} of bridge port {port}"),
            )
            .map(drop)
    }

    /// The port is no longer of the VLANs from `first` to `last`, as far as it was.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn delete_port_vlans(&mut self, port: u32, first: u16, last: u16) -> Result<()> {
        let info = |flags, vid| AfSpecBridge::VlanInfo(BridgeVlanInfo { flags, vid });
        let range = if first == last {
            vec![info(BridgeVlanInfoFlags::empty(), first)]
        } else {
            vec![
                info(BridgeVlanInfoFlags::RangeBegin, first),
                info(BridgeVlanInfoFlags::RangeEnd, last),
            ]
        };
        self.socket
            .request(
                RouteNetlinkMessage::DelLink(message(port, range)),
                0,
                || format!("end of VLANs {first} to {last} of bridge port {port}"),
            )
            .map(drop)
    }

    /// The VLANs of a port in ascending order, and whether each is that of frames without a tag.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn port_vlans(&mut self, port: u32) -> Result<Vec<(u16, bool)>> {
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Bridge;
        // One by one: ranges are another format.
        message
            .attributes
            .push(LinkAttribute::ExtMask(vec![LinkExtentMask::Brvlan]));
        let answers = self
            .socket
            .dump(RouteNetlinkMessage::GetLink(message), || {
                "VLANs of bridge ports".to_owned()
            })?;
        let mut vlans = Vec::new();
        for answer in answers {
            if u32_at(&answer.payload, 4) != Some(port) {
                continue;
            }
            let attributes = answer.payload.get(16..).unwrap_or_default();
            let specific = NlasIterator::new(attributes)
                .flatten()
                .filter(|attribute| attribute.kind() == IFLA_AF_SPEC);
            for attribute in specific {
                for info in NlasIterator::new(attribute.value()).flatten() {
                    let value = info.value();
                    if info.kind() == IFLA_BRIDGE_VLAN_INFO
                        && let (Some(flags), Some(vid)) = (u16_at(value, 0), u16_at(value, 2))
                    {
                        let both = VLAN_INFO_PVID | VLAN_INFO_UNTAGGED;
                        vlans.push((vid, flags & both == both));
                    }
                }
            }
        }
        vlans.sort_unstable();
        Ok(vlans)
    }
}

fn message(port: u32, vlans: Vec<AfSpecBridge>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.header.index = port;
    message.attributes.push(LinkAttribute::AfSpecBridge(vlans));
    message
}
