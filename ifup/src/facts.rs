//! What the host is like, as far as a plan depends on it.

use std::net::{Ipv4Addr, UdpSocket};

use agents::addr::MacAddr;
use agents::netlink::{Link, Route, RouteKind, Rtnetlink};

use crate::error::{Error, Result};
use crate::request::{Connection, MAIN_TABLE, Request};
use crate::step::LinkState;
use crate::sysctl;

/// An interface that leads on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its MAC address, if it is one that has any.
    pub mac: Option<MacAddr>,
}

/// What the host is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Index of the TAP.
    pub index: u32,
    /// What the TAP is like.
    pub tap: LinkState,
    /// The TAP is up already.
    pub up: bool,
    /// Of a bridged NIC: the MTU of its bridge.
    pub bridge_mtu: Option<u32>,
    /// Of a bridged NIC: index of its bridge.
    pub bridge: Option<u32>,
    /// Of a bridged NIC: the VLANs that it is in, if its bridge knows VLANs.
    pub vlans: Vec<u16>,
    /// Of a bridged NIC: its bridge knows the guest's MAC address on another port.
    pub guest_elsewhere: bool,
    /// Of a bridged NIC: the ports on which its bridge knows the guest's MAC address.
    pub guest_at: Vec<u32>,
    /// Of a bridged NIC: its bridge does not learn from frames to 01:80:c2:00:00:0X.
    pub no_linklocal_learn: bool,
    /// Of a routed NIC: where its table's IPv4 default route leads.
    pub uplink: Option<Uplink>,
    /// Of a routed NIC: where its table's IPv6 default route leads.
    pub uplink6: Option<Uplink>,
    /// The IPv4 gateway is an address of this host.
    pub gateway_is_here: bool,
    /// The IPv6 gateway is an address of this host.
    pub gateway6_is_here: bool,
    /// The kernel has IPv6.
    pub ipv6: bool,
    /// The kernel can forward IPv6 for one interface (`force_forwarding`, Linux 6.17).
    pub force_forwarding: bool,
}

impl Facts {
    /// Looks.
    ///
    /// # Errors
    /// The TAP or its bridge is not there or not what it should be, or the kernel refuses.
    pub fn find(request: &Request, rtnetlink: &mut Rtnetlink) -> Result<Self> {
        let name = request.interface();
        let tap = rtnetlink
            .link_by_name(name)?
            .ok_or_else(|| Error::host("INTERFACE", name, "no such interface"))?;
        if tap.kind.as_deref() != Some("tun") {
            return Err(Error::host("INTERFACE", name, "not a TAP"));
        }
        let Some(mac) = tap.mac else {
            return Err(Error::host("INTERFACE", name, "has no MAC address"));
        };
        let master = match tap.master {
            Some(index) => rtnetlink.link_by_index(index)?.map(|link| link.name),
            None => None,
        };
        let mut facts = Self {
            index: tap.index,
            tap: LinkState {
                mtu: tap.mtu,
                mac,
                bridge: master,
            },
            up: tap.up,
            bridge_mtu: None,
            bridge: None,
            vlans: Vec::new(),
            guest_elsewhere: false,
            guest_at: Vec::new(),
            no_linklocal_learn: false,
            uplink: None,
            uplink6: None,
            gateway_is_here: false,
            gateway6_is_here: false,
            ipv6: sysctl::read("net/ipv6/conf/all/disable_ipv6")?.is_some(),
            force_forwarding: sysctl::read("net/ipv6/conf/all/force_forwarding")?.is_some(),
        };
        match &request.connection {
            Connection::Bridged { bridge, vlans } => {
                let found = find_bridge(bridge, rtnetlink)?;
                if vlans.is_some() && !found.vlan_filtering {
                    let reason = format!("the bridge {bridge} has no vlan_filtering");
                    return Err(Error::host("VLAN", &request.nic.vlan, reason));
                }
                facts.bridge_mtu = Some(found.mtu);
                facts.bridge = Some(found.index);
                if found.vlan_filtering {
                    facts.vlans = match vlans {
                        Some(vlans) => vlans.all().map(|(vid, _)| vid).collect(),
                        None => found.default_vlan.into_iter().collect(),
                    };
                }
                facts.no_linklocal_learn = found.no_linklocal_learn == Some(true);
                let here = [facts.index, found.index];
                let vlans = facts.vlans.iter().copied().map(Some);
                for vlan in vlans.chain([None]) {
                    let place = rtnetlink.forwarding_of(found.index, request.nic.mac, vlan)?;
                    facts.guest_at.extend(place.map(|place| place.interface));
                }
                facts.guest_elsewhere = facts.guest_at.iter().any(|port| !here.contains(port));
            }
            Connection::OpenVSwitch { .. } | Connection::External => {}
            Connection::Routed { table } => facts.find_uplinks(request, *table, rtnetlink)?,
        }
        Ok(facts)
    }

    fn find_uplinks(
        &mut self,
        request: &Request,
        table: u32,
        rtnetlink: &mut Rtnetlink,
    ) -> Result<()> {
        let default = Rtnetlink::default_route(table)?
            .filter(|route| route.kind == RouteKind::Unicast)
            .and_then(|route| route.interface);
        if let Some(index) = default {
            self.uplink = uplink(index, rtnetlink)?;
        }
        if self.ipv6 && !request.ipv6.is_empty() {
            // IPv6's uplink is mostly IPv4's; where it is not, the whole table is read.
            let unicast = |route: &Route| route.kind == RouteKind::Unicast;
            let known = match default {
                Some(index) => rtnetlink.default_route6(table, index)?.filter(unicast),
                None => None,
            };
            let default = match known {
                Some(route) => Some(route),
                None => rtnetlink
                    .routes(false, table)?
                    .into_iter()
                    .filter(|route| route.is_default() && unicast(route))
                    .min_by_key(|route| route.metric),
            };
            if let Some(index) = default.and_then(|route| route.interface) {
                self.uplink6 = uplink(index, rtnetlink)?;
            }
        }
        // With the main table the host's own routes decide; nothing depends on this then.
        if table != MAIN_TABLE {
            let mut is_here = |gateway| -> Result<bool> {
                let route = rtnetlink.lookup(gateway)?;
                Ok(route.is_some_and(|route| route.kind == RouteKind::Local))
            };
            if let Some(gateway) = request.gateway {
                self.gateway_is_here = may_be_here(gateway) && is_here(gateway.into())?;
            }
            if let Some(gateway) = request.gateway6 {
                self.gateway6_is_here = is_here(gateway.into())?;
            }
        }
        Ok(())
    }
}

/// Whether an address may be one of the host's: a lookup, which then decides, goes through all
/// rules if it is not, and there is one for each routed NIC.
fn may_be_here(address: Ipv4Addr) -> bool {
    match UdpSocket::bind((address, 0)) {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::AddrNotAvailable,
    }
}

fn find_bridge(name: &str, rtnetlink: &mut Rtnetlink) -> Result<Link> {
    let bridge = rtnetlink
        .link_by_name(name)?
        .ok_or_else(|| Error::host("LINK", name, "no such bridge"))?;
    if bridge.kind.as_deref() == Some("bridge") {
        Ok(bridge)
    } else {
        Err(Error::host("LINK", name, "not a bridge"))
    }
}

fn uplink(index: u32, rtnetlink: &mut Rtnetlink) -> Result<Option<Uplink>> {
    Ok(rtnetlink.link_by_index(index)?.map(|link| Uplink {
        name: link.name,
        mtu: link.mtu,
        mac: link.mac,
    }))
}
