//! Links: interfaces, and their flags as ports of a bridge.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NlaBuffer, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    BridgeBooleanOptionFlags, BridgeBooleanOptions, InfoBridge, InfoBridgePort, InfoData, InfoKind,
    InfoPortData, InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use crate::addr::MacAddr;

use super::socket::{Received, u16_at, u32_at};
use super::{Result, Rtnetlink};

const RTM_NEWLINK: u16 = libc::RTM_NEWLINK;

/// An interface as the kernel tells it. Only what the agents use is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The interface's index; never used again while the system runs.
    pub index: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Hardware address, if it is one of six bytes.
    pub mac: Option<MacAddr>,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Index of the bridge, bond or VRF that it is a port of.
    pub master: Option<u32>,
    /// Administratively up.
    pub up: bool,
    /// Has a carrier: for a TAP, some program holds it open.
    pub running: bool,
    /// Kind of device (`bridge`, `tun`, `veth`, …); none for hardware.
    pub kind: Option<String>,
    /// Kind of its master, if it is a port (`bridge`, …).
    pub port_kind: Option<String>,
    /// The description set with `ip link set alias`.
    pub alias: Option<String>,
    /// Of a bridge: `vlan_filtering` is on.
    pub vlan_filtering: bool,
    /// Of a bridge: the VLAN that a new port is in; none if 0.
    pub default_vlan: Option<u16>,
    /// Of a bridge: `no_linklocal_learn`, that is, it does not learn the sources of frames to
    /// 01:80:c2:00:00:0X. None of a kernel that has no such option (before 5.0).
    pub no_linklocal_learn: Option<bool>,
    /// Of a bridge port: its flags.
    pub port: Option<PortFlags>,
}

/// Flags of a bridge port. `None` leaves a flag as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortFlags {
    /// Learn source addresses into the forwarding table.
    pub learning: Option<bool>,
    /// Send it unicast frames whose destination is unknown.
    pub unicast_flood: Option<bool>,
    /// Send it multicast frames that nobody asked for.
    pub multicast_flood: Option<bool>,
    /// Send it broadcasts.
    pub broadcast_flood: Option<bool>,
    /// Exchange frames with ports that are not isolated only.
    pub isolated: Option<bool>,
    /// Answer ARP and neighbour solicitations in its stead from the neighbour table.
    pub neighbour_suppression: Option<bool>,
    /// Send frames back out of the port they came from.
    pub hairpin: Option<bool>,
    /// Drop its bridge protocol data units.
    pub guard: Option<bool>,
    /// Never take it for the port that leads to the root of the spanning tree.
    pub root_block: Option<bool>,
}

/// What to change of an interface, in one message. `None` leaves it as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Up or down.
    pub up: Option<bool>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// Hardware address.
    pub mac: Option<MacAddr>,
    /// Index of the new master; 0 for none.
    pub master: Option<u32>,
    /// Description, at most 255 bytes.
    pub alias: Option<String>,
    /// Length of the transmit queue, in packets.
    pub transmit_queue: Option<u32>,
}

impl Rtnetlink {
    /// The interface of this name, if there is one.
    ///
    /// # Errors
    /// What the kernel says, other than that there is none.
    pub fn link_by_name(&mut self, name: &str) -> Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        self.one_link(message, || format!("link {name}"))
    }

    /// The interface of this index, if there is one.
    ///
    /// # Errors
    /// What the kernel says, other than that there is none.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.one_link(message, || format!("link {index}"))
    }

    fn one_link(
        &mut self,
        message: LinkMessage,
        what: impl FnOnce() -> String,
    ) -> Result<Option<Link>> {
        match self
            .socket
            .request(RouteNetlinkMessage::GetLink(message), 0, what)
        {
            Ok(answers) => Ok(answers.iter().find_map(read)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All interfaces.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.socket.dump(message, || "links".to_owned())?;
        Ok(answers.iter().filter_map(read).collect())
    }

    /// Changes an interface. `name` is for the error's text alone.
    ///
    /// # Errors
    /// What the kernel says; it may have done a part before it failed.
    pub fn change_link(&mut self, index: u32, name: &str, change: &LinkChange) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        if let Some(up) = change.up {
            message.header.change_mask = LinkFlags::Up;
            message.header.flags = if up {
                LinkFlags::Up
            } else {
                LinkFlags::empty()
            };
        }
        let attributes = [
            change.mtu.map(LinkAttribute::Mtu),
            change
                .mac
                .map(|mac| LinkAttribute::Address(mac.octets().to_vec())),
            change.master.map(LinkAttribute::Controller),
            change.alias.clone().map(LinkAttribute::IfAlias),
            change.transmit_queue.map(LinkAttribute::TxQueueLen),
        ];
        message.attributes.extend(attributes.into_iter().flatten());
        self.socket
            .request(RouteNetlinkMessage::NewLink(message), 0, || {
                format!("link {name}: {}", describe(change))
            })
            .map(drop)
    }

    /// Changes the flags of a bridge port; it must be a port already.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn change_port(&mut self, index: u32, name: &str, flags: &PortFlags) -> Result<()> {
        use InfoBridgePort as P;
        let data: Vec<P> = [
            flags.learning.map(P::Learning),
            flags.unicast_flood.map(P::UnicastFlood),
            flags.multicast_flood.map(P::MulticastFlood),
            flags.broadcast_flood.map(P::BroadcastFlood),
            flags.isolated.map(P::Isolated),
            flags.neighbour_suppression.map(P::NeighSupress),
            flags.hairpin.map(P::HairpinMode),
            flags.guard.map(P::Guard),
            flags.root_block.map(P::Protect),
        ]
        .into_iter()
        .flatten()
        .collect();
        if data.is_empty() {
            return Ok(());
        }
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(data)),
        ]));
        self.socket
            .request(RouteNetlinkMessage::NewLink(message), 0, || {
                format!("bridge port {name}")
            })
            .map(drop)
    }

    /// Deletes what a bridge has learned behind a port; static entries stay.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn flush_port(&mut self, index: u32, name: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::Flush])),
        ]));
        self.socket
            .request(RouteNetlinkMessage::NewLink(message), 0, || {
                format!("flush bridge port {name}")
            })
            .map(drop)
    }

    /// Sets `no_linklocal_learn` of a bridge (`linux/if_bridge.h`, `BR_BOOLOPT_NO_LL_LEARN`):
    /// with it on, the bridge does not learn the source of a frame to 01:80:c2:00:00:0X, which it
    /// does otherwise before netfilter sees the frame.
    ///
    /// # Errors
    /// The kernel's answer. A kernel before 5.0 ignores it: [`Link::no_linklocal_learn`] tells.
    pub fn set_no_linklocal_learn(&mut self, index: u32, name: &str, on: bool) -> Result<()> {
        let flag = BridgeBooleanOptionFlags::NoLinkLocalLearn;
        let options = BridgeBooleanOptions {
            value: if on {
                flag
            } else {
                BridgeBooleanOptionFlags::empty()
            },
            mask: flag,
        };
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::MultiBoolOpt(options)])),
        ]));
        self.socket
            .request(RouteNetlinkMessage::NewLink(message), 0, || {
                format!("bridge {name}: no_linklocal_learn")
            })
            .map(drop)
    }

    /// Makes a bridge that forwards multicast to all of its ports, and puts it up; its index.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_bridge(&mut self, name: &str) -> Result<u32> {
        let mut message = LinkMessage::default();
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = LinkFlags::Up;
        message.attributes.extend([
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Bridge),
                LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)])),
            ]),
        ]);
        let what = || format!("bridge {name}");
        self.socket.request(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
            what,
        )?;
        let made = self.link_by_name(name)?;
        made.map(|link| link.index)
            .ok_or_else(|| super::Error::new(what(), std::io::ErrorKind::NotFound.into()))
    }

    /// Deletes an interface. One that is not there is a success.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn delete_link(&mut self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let deleted =
            self.socket
                .request(RouteNetlinkMessage::DelLink(message), NLM_F_REQUEST, || {
                    format!("delete link {index}")
                });
        super::absent_is_done(deleted)
    }
}

fn describe(change: &LinkChange) -> String {
    let mut parts = Vec::new();
    if let Some(up) = change.up {
        parts.push(if up { "up" } else { "down" }.to_owned());
    }
    if let Some(mtu) = change.mtu {
        parts.push(format!("mtu {mtu}"));
    }
    if let Some(mac) = change.mac {
        parts.push(format!("address {mac}"));
    }
    if let Some(master) = change.master {
        parts.push(format!("master {master}"));
    }
    if change.alias.is_some() {
        parts.push("alias".to_owned());
    }
    if let Some(length) = change.transmit_queue {
        parts.push(format!("txqueuelen {length}"));
    }
    parts.join(" ")
}

/// Reads RTM_NEWLINK and RTM_DELLINK: the attributes that are used, whatever the others are.
pub(super) fn read(received: &Received) -> Option<Link> {
    if !matches!(received.kind, RTM_NEWLINK | libc::RTM_DELLINK) {
        return None;
    }
    let payload = received.payload.as_slice();
    let flags = u32_at(payload, 8)?;
    let set = |flag: i32| flags & flag.cast_unsigned() != 0;
    let mut link = Link {
        index: u32_at(payload, 4)?,
        name: String::new(),
        mac: None,
        mtu: 0,
        master: None,
        up: set(libc::IFF_UP),
        running: set(libc::IFF_RUNNING),
        kind: None,
        port_kind: None,
        alias: None,
        vlan_filtering: false,
        default_vlan: None,
        no_linklocal_learn: None,
        port: None,
    };
    for attribute in NlasIterator::new(payload.get(16..)?).flatten() {
        let value = attribute.value();
        match attribute.kind() {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_ADDRESS => link.mac = value.try_into().ok(),
            libc::IFLA_MTU => link.mtu = u32_at(value, 0)?,
            libc::IFLA_MASTER => link.master = u32_at(value, 0),
            libc::IFLA_IFALIAS => link.alias = Some(text(value)),
            libc::IFLA_LINKINFO => read_info(value, &mut link),
            _ => {}
        }
    }
    Some(link)
}

const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BR_VLAN_FILTERING: u16 = 7;
const IFLA_BR_VLAN_DEFAULT_PVID: u16 = 39;
const IFLA_BR_MULTI_BOOLOPT: u16 = 46;
const BR_BOOLOPT_NO_LL_LEARN: u32 = 1;

fn read_info(info: &[u8], link: &mut Link) {
    for attribute in NlasIterator::new(info).flatten() {
        match attribute.kind() {
            IFLA_INFO_KIND => link.kind = Some(text(attribute.value())),
            IFLA_INFO_SLAVE_KIND => link.port_kind = Some(text(attribute.value())),
            IFLA_INFO_DATA if link.kind.as_deref() == Some("bridge") => {
                for option in NlasIterator::new(attribute.value()).flatten() {
                    match option.kind() {
                        IFLA_BR_VLAN_FILTERING => link.vlan_filtering = flag(&option),
                        IFLA_BR_VLAN_DEFAULT_PVID => {
                            link.default_vlan = u16_at(option.value(), 0).filter(|vid| *vid != 0);
                        }
                        // struct br_boolopt_multi: values, then which of them there are.
                        IFLA_BR_MULTI_BOOLOPT => {
                            let known = u32_at(option.value(), 4).unwrap_or(0);
                            let values = u32_at(option.value(), 0).unwrap_or(0);
                            link.no_linklocal_learn = (known & BR_BOOLOPT_NO_LL_LEARN != 0)
                                .then_some(values & BR_BOOLOPT_NO_LL_LEARN != 0);
                        }
                        _ => {}
                    }
                }
            }
            IFLA_INFO_SLAVE_DATA if link.port_kind.as_deref() == Some("bridge") => {
                link.port = Some(read_port(attribute.value()));
            }
            _ => {}
        }
    }
}

fn read_port(data: &[u8]) -> PortFlags {
    let mut port = PortFlags::default();
    for attribute in NlasIterator::new(data).flatten() {
        let field = match attribute.kind() {
            4 => &mut port.hairpin,
            5 => &mut port.guard,
            6 => &mut port.root_block,
            8 => &mut port.learning,
            9 => &mut port.unicast_flood,
            27 => &mut port.multicast_flood,
            30 => &mut port.broadcast_flood,
            32 => &mut port.neighbour_suppression,
            33 => &mut port.isolated,
            _ => continue,
        };
        *field = Some(flag(&attribute));
    }
    port
}

fn flag(attribute: &NlaBuffer<&[u8]>) -> bool {
    attribute.value().first().is_some_and(|value| *value != 0)
}

/// A string attribute without its final NUL.
pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(value.get(..end.unwrap_or(value.len())).unwrap_or_default())
        .into_owned()
}
