//! One thing to be done for a NIC. A plan is a list of them, and so is a record: each step
//! can be taken back without knowing more than itself.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use agents::addr::{Ipv4Net, MacAddr};
use serde::{Deserialize, Serialize};

use crate::guard::entry::{Guard, Scope};
use crate::vlan::Vlans;

/// A step. `down` takes the steps of a record back from the last to the first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// A setting of the kernel.
    Sysctl {
        /// Its name below `/proc/sys`.
        name: String,
        /// Its value.
        value: String,
        /// What `down` sets it to; none leaves it.
        before: Option<String>,
    },
    /// The TAP's MTU, address and bridge, while it is still down.
    Link {
        /// MTU in bytes; none leaves it.
        mtu: Option<u32>,
        /// MAC address.
        #[serde(with = "crate::text")]
        mac: MacAddr,
        /// Bridge that it becomes a port of.
        bridge: Option<String>,
        /// What it was before.
        before: LinkState,
    },
    /// The bridge does not learn the sources of frames to 01:80:c2:00:00:0X, which it otherwise
    /// does before any filter sees the frame (`no_linklocal_learn`).
    NoLinkLocalLearn {
        /// The bridge.
        bridge: String,
        /// The bridge was so before the first NIC of ours; then it stays so.
        before: bool,
    },
    /// The TAP's flags as a port of a bridge.
    Port {
        /// Exchanges frames only with ports that are not isolated.
        isolated: bool,
        /// The bridge sends it what is for addresses that it does not know.
        flood: bool,
        /// The bridge learns addresses from what it sends.
        #[serde(default = "learns")]
        learning: bool,
        /// The bridge never takes it for the port to the root of its spanning tree.
        #[serde(default)]
        root_block: bool,
    },
    /// The guest's place in the bridge's forwarding table, which it keeps however long it says
    /// nothing, and whatever comes in elsewhere.
    Forwarding {
        /// Its MAC address.
        #[serde(with = "crate::text")]
        mac: MacAddr,
        /// The bridge.
        bridge: String,
        /// The VLANs that it has this place in, if the bridge knows VLANs.
        #[serde(default)]
        vlans: Vec<u16>,
    },
    /// The VLANs of the TAP as a port of a bridge; no others.
    Vlans(Vlans),
    /// The TAP becomes a port of an Open vSwitch bridge.
    SwitchPort {
        /// The bridge.
        bridge: String,
        /// VLANs; all if none.
        vlans: Option<Vlans>,
    },
    /// Frames of the TAP from any source address but this one are dropped by its Open vSwitch
    /// bridge, before it learns from them.
    SwitchSource {
        /// The bridge.
        bridge: String,
        /// The guest's MAC address.
        #[serde(with = "crate::text")]
        mac: MacAddr,
    },
    /// How fast the guest receives.
    Rate {
        /// Bits a second.
        bits: u64,
    },
    /// What the guest may send.
    Guard(Guard),
    /// An IPv6 address that no guest can take: the gateway's.
    Reserve {
        /// For the ports of bridges; else for routed TAPs.
        bridged: bool,
        /// The address.
        address: Ipv6Addr,
    },
    /// The TAP goes up; taken back, down.
    Up,
    /// An address of the host on the TAP: the guest's gateway.
    Address {
        /// The address.
        address: IpAddr,
    },
    /// A route to an address of the guest.
    Route {
        /// The guest's address.
        address: IpAddr,
        /// Table.
        table: u32,
    },
    /// In this table, what has no route is refused instead of being looked up elsewhere.
    Refuse {
        /// For IPv4; else IPv6.
        ipv4: bool,
        /// Table.
        table: u32,
    },
    /// A rule that leads to the table.
    Rule {
        /// For IPv4; else IPv6.
        ipv4: bool,
        /// Place among the rules.
        priority: u32,
        /// For packets that come in by this interface.
        input: Option<String>,
        /// For packets from this address.
        source: Option<IpAddr>,
        /// Table.
        table: u32,
    },
    /// The guest's MAC address for one of its IP addresses: it is never asked for.
    Neighbour {
        /// The guest's address.
        address: IpAddr,
        /// Its MAC address.
        #[serde(with = "crate::text")]
        mac: MacAddr,
    },
    /// The host answers for an address on an interface.
    Proxy {
        /// The interface: the uplink, for the guest's; the TAP, for the gateway's.
        interface: String,
        /// The address.
        address: IpAddr,
    },
    /// What guests of this network send elsewhere comes from the host.
    Masquerade {
        /// The network.
        network: Ipv4Net,
    },
    /// nfdhcpd's binding.
    Binding {
        /// Its text.
        text: String,
    },
}

/// The ports of a program that did not write it down.
const fn learns() -> bool {
    true
}

/// What a TAP was like.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkState {
    /// MTU in bytes.
    pub mtu: u32,
    /// MAC address.
    #[serde(with = "crate::text")]
    pub mac: MacAddr,
    /// Bridge that it was a port of.
    pub bridge: Option<String>,
}

impl Step {
    /// A word for a step that several NICs share, by which it is counted; safe as a file's name.
    pub fn key(&self) -> String {
        let text = self.to_string();
        text.chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || ".:-".contains(c) {
                    c
                } else {
                    '_'
                }
            })
            .collect()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = |ipv4: &bool| if *ipv4 { "IPv4" } else { "IPv6" };
        match self {
            Self::Sysctl { name, value, .. } => write!(f, "sysctl {name} = {value}"),
            Self::Link {
                mtu, mac, bridge, ..
            } => {
                write!(f, "link address {mac}")?;
                if let Some(mtu) = mtu {
                    write!(f, " mtu {mtu}")?;
                }
                if let Some(bridge) = bridge {
                    write!(f, " master {bridge}")?;
                }
                Ok(())
            }
            // Not what was before: it is the key of a step that several NICs share.
            Self::NoLinkLocalLearn { bridge, .. } => {
                write!(f, "bridge {bridge} no_linklocal_learn on")
            }
            Self::Port {
                isolated,
                flood,
                learning,
                root_block,
            } => {
                let on = |flag: &bool| if *flag { "on" } else { "off" };
                write!(
                    f,
                    "port isolated {} flood {} learning {} root_block {}",
                    on(isolated),
                    on(flood),
                    on(learning),
                    on(root_block)
                )
            }
            Self::Forwarding { mac, .. } => write!(f, "forwarding {mac} static sticky"),
            Self::Vlans(vlans) => write!(f, "vlans {vlans}"),
            Self::SwitchPort { bridge, vlans } => {
                write!(f, "port of {bridge} (Open vSwitch)")?;
                match vlans {
                    Some(vlans) => write!(f, " vlans {vlans}"),
                    None => Ok(()),
                }
            }
            Self::SwitchSource { bridge, mac } => {
                write!(f, "source {mac} alone on {bridge} (Open vSwitch)")
            }
            Self::Rate { bits } => write!(f, "rate {bits} bit/s to the guest"),
            Self::Guard(guard) => {
                let scope = match guard.scope {
                    Scope::All => "all",
                    Scope::AnyIp => "any IP address",
                    Scope::AnyMac => "any MAC address",
                    Scope::NoLeases => "that it gives no leases",
                    Scope::Nothing => "nothing",
                };
                write!(f, "guard {scope}, MAC {}", guard.mac)?;
                if let Some(profile) = &guard.profile {
                    write!(f, ", profile {profile}")?;
                }
                if let Some([a, b, c]) = guard.mac_prefix {
                    write!(f, ", private network {a:02x}:{b:02x}:{c:02x}")?;
                }
                if let Some(bytes) = guard.rate {
                    write!(f, ", {} bit/s from the guest", bytes.saturating_mul(8))?;
                }
                for group in &guard.vrrp {
                    write!(f, ", VRRP group {group}")?;
                }
                if guard.trunk {
                    f.write_str(", tagged frames")?;
                }
                if let Some(allowed) = &guard.isolated {
                    f.write_str(", isolated from all but")?;
                    allowed.iter().try_for_each(|net| write!(f, " {net}"))?;
                }
                let addresses = guard.addresses.iter().map(ToString::to_string);
                let nets = guard.nets.iter().map(ToString::to_string);
                let prefixes = guard.prefixes.iter().map(|net| format!("taken in {net}"));
                for own in addresses.chain(nets).chain(prefixes) {
                    write!(f, ", {own}")?;
                }
                Ok(())
            }
            Self::Reserve { bridged, address } => {
                let kind = if *bridged { "bridged" } else { "routed" };
                write!(f, "reserve {address} {kind}")
            }
            Self::Up => f.write_str("link up"),
            Self::Address { address } => write!(f, "address {address}"),
            Self::Route { address, table } => write!(f, "route {address} table {table}"),
            Self::Refuse { ipv4, table } => {
                write!(
                    f,
                    "route {} unreachable default table {table}",
                    family(ipv4)
                )
            }
            Self::Rule {
                ipv4,
                priority,
                input,
                source,
                table,
            } => {
                write!(f, "rule {} priority {priority}", family(ipv4))?;
                if let Some(source) = source {
                    write!(f, " from {source}")?;
                }
                if let Some(input) = input {
                    write!(f, " iif {input}")?;
                }
                write!(f, " lookup {table}")
            }
            Self::Neighbour { address, mac } => write!(f, "neighbour {address} at {mac}"),
            Self::Proxy { interface, address } => {
                write!(f, "neighbour proxy {address} on {interface}")
            }
            Self::Masquerade { network } => write!(f, "masquerade {network}"),
            Self::Binding { text } => {
                write!(f, "binding {}", text.trim_end().replace('\n', " "))
            }
        }
    }
}
