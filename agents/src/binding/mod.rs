//! The nfdhcpd binding file: one interface, its guest, and what to tell it.
//!
//! A binding file is named after the interface (the TAP) and has lines `KEY=value`. Values
//! may be empty, which is the same as leaving the line out, or in double or single quotes.
//! Blank lines and lines that start with `#` are skipped. Unknown keys are kept and ignored.
//! Of a repeated key the last counts.
//!
//! | key | value |
//! |---|---|
//! | `INDEV` | where the packet seems to come from: the bridge, or the interface itself |
//! | `MAC` | the guest's address; required |
//! | `HOSTNAME` | the guest's name; required |
//! | `IP` | its IPv4 address, offered by DHCP |
//! | `SUBNET`, `GATEWAY` | IPv4 prefix and router |
//! | `SUBNET6`, `GATEWAY6` | IPv6 prefix and router |
//! | `EUI64` | the address that it takes by EUI-64 |
//! | `IP6` | its address for stateful DHCPv6 |
//! | `MTU` | of the link, 68 to 65535 |
//! | `TAGS` | words, separated by blanks |
//! | `PRIVATE` | if not empty: announce no IPv4 router |
//! | `MACSPOOF` | if not empty: the guest may use other MAC addresses |
//! | `NAMESERVERS` | IPv4 and IPv6 addresses, separated by commas or blanks |
//! | `DOMAIN` | the guest's domain, then further search domains, separated by commas or blanks |
//! | `ROUTES` | `prefix via address` (IPv4), separated by commas |
//! | `NO_ONLINK32` | if not empty: the guest cannot use a router outside its prefix |

mod file;
mod name;
mod parse;
mod write;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addr::{Ipv4Net, Ipv6Net, MacAddr};

pub use file::{LoadError, load, remove, save};
pub use name::{DomainName, DomainNameError, is_interface_name};
pub use parse::{BindingError, parse};

/// What a binding file says of one interface. The module's text has the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Binding {
    /// `INDEV`: the bridge of a bridged interface, or the interface itself.
    pub indev: Option<String>,
    /// `MAC`: the guest's address.
    pub mac: MacAddr,
    /// `HOSTNAME`: the guest's name, as Ganeti calls it. For logs; the network name of the guest
    /// is made of its first label.
    pub hostname: String,
    /// `IP`: the guest's IPv4 address.
    pub ip: Option<Ipv4Addr>,
    /// `SUBNET`: the IPv4 prefix, without host bits.
    pub subnet: Option<Ipv4Net>,
    /// `GATEWAY`: the IPv4 router.
    pub gateway: Option<Ipv4Addr>,
    /// `SUBNET6`: the IPv6 prefix, without host bits.
    pub subnet6: Option<Ipv6Net>,
    /// `GATEWAY6`: the IPv6 router.
    pub gateway6: Option<Ipv6Addr>,
    /// `EUI64`: the address the guest takes by EUI-64.
    pub eui64: Option<Ipv6Addr>,
    /// `IP6`: the guest's address for stateful DHCPv6.
    pub ip6: Option<Ipv6Addr>,
    /// `MTU`: of the link, 68 to 65535 (RFC 2132, section 5.1).
    pub mtu: Option<u16>,
    /// `TAGS`: words.
    pub tags: Vec<String>,
    /// `PRIVATE`: announce no IPv4 router.
    pub private: bool,
    /// `MACSPOOF`: the guest may use other MAC addresses than `mac`.
    pub macspoof: bool,
    /// `NAMESERVERS`: instead of those of the configuration.
    pub nameservers: Vec<IpAddr>,
    /// `DOMAIN`: the guest's domain and further search domains.
    pub domain: Vec<DomainName>,
    /// `ROUTES`: IPv4 routes besides the default one.
    pub routes: Vec<Route>,
    /// `NO_ONLINK32`: the guest cannot use a router outside its prefix (Windows).
    pub no_onlink32: bool,
    /// Keys that are not ours, as they were written.
    pub other: Vec<(String, String)>,
}

impl Binding {
    /// A binding with what is required, and nothing else.
    pub fn new(mac: MacAddr, hostname: impl Into<String>) -> Self {
        Self {
            indev: None,
            mac,
            hostname: hostname.into(),
            ip: None,
            subnet: None,
            gateway: None,
            subnet6: None,
            gateway6: None,
            eui64: None,
            ip6: None,
            mtu: None,
            tags: Vec::new(),
            private: false,
            macspoof: false,
            nameservers: Vec::new(),
            domain: Vec::new(),
            routes: Vec::new(),
            no_onlink32: false,
            other: Vec::new(),
        }
    }
}

/// One IPv4 route of `ROUTES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The destination, without host bits.
    pub destination: Ipv4Net,
    /// The router.
    pub via: Ipv4Addr,
}
