//! The VLANs of a bridge's port.

use netlink_packet_route::link::{
    AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags, LinkAttribute, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Result, Rtnetlink};

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
}

fn message(port: u32, vlans: Vec<AfSpecBridge>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.header.index = port;
    message.attributes.push(LinkAttribute::AfSpecBridge(vlans));
    message
}
