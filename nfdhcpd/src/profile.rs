//! The settings of one network, as the answers need them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use agents::addr::Ipv6Net;
use agents::binding::DomainName;

/// The settings of one network: the configuration's, with the network's own laid over them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// DHCPv4.
    pub dhcp: Dhcp,
    /// Router advertisements, neighbour discovery, DHCPv6.
    pub ipv6: Ipv6,
}

/// DHCPv4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dhcp {
    /// Whether to answer DHCPv4 at all.
    pub enabled: bool,
    /// Option 54 and the source address of replies.
    pub server: ServerId,
    /// Option 51.
    pub lease: Duration,
    /// Option 58.
    pub renew: Duration,
    /// Option 59.
    pub rebind: Duration,
    /// Option 6.
    pub nameservers: Vec<Ipv4Addr>,
    /// Option 15.
    pub domain: Option<DomainName>,
    /// Option 119.
    pub search: Vec<DomainName>,
    /// Option 42.
    pub ntp: Vec<Ipv4Addr>,
    /// Option 108 for who asks: wait this long before IPv4 is wanted again (RFC 8925).
    pub ipv6_only_wait: Option<Duration>,
    /// Option 114 for who asks: the captive portal's API (RFC 8910).
    pub captive_portal: Option<String>,
    /// Network boot.
    pub boot: Vec<Boot>,
}

/// How a server identifies itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerId {
    /// By the guest's gateway, or else the first other address of its prefix.
    OnLink,
    /// By the same address everywhere.
    Fixed(Ipv4Addr),
}

/// What to boot from the network, for clients of an architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The client's architecture (option 93), as a number of RFC 4578; any if none is given.
    pub architecture: Option<u16>,
    /// The first bytes of the client's class (option 60): `PXEClient`, `HTTPClient`; any if empty.
    pub class: String,
    /// The first bytes of the user class (option 77), by which a boot program asks again: `iPXE`;
    /// any if empty.
    pub user_class: String,
    /// The boot server: `siaddr`.
    pub next_server: Option<Ipv4Addr>,
    /// The boot server's name: `sname`, option 66.
    pub server_name: String,
    /// The boot file or URL: `file`, option 67.
    pub file: String,
}

/// Router advertisements, neighbour discovery, DHCPv6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipv6 {
    /// Whether to answer IPv6 solicitations at all.
    pub enabled: bool,
    /// How guests get their addresses.
    pub mode: Mode,
    /// The longest time between two advertisements that nobody asked for.
    pub interval: Duration,
    /// How long guests use the default router.
    pub router_lifetime: Duration,
    /// Who the default router is.
    pub router: Router,
    /// Its preference (RFC 4191).
    pub preference: Preference,
    /// How long addresses of the prefix are valid.
    pub valid_lifetime: Duration,
    /// How long addresses of the prefix are preferred.
    pub preferred_lifetime: Duration,
    /// The L flag of the prefix.
    pub on_link: OnLink,
    /// RDNSS, DHCPv6 option 23.
    pub nameservers: Vec<Ipv6Addr>,
    /// DNSSL, DHCPv6 option 24.
    pub search: Vec<DomainName>,
    /// Routes through this router, besides the default one.
    pub routes: Vec<Ipv6Net>,
    /// The prefix of NAT64 (RFC 8781): of 32, 40, 48, 56, 64 or 96 bits.
    pub pref64: Option<Ipv6Net>,
    /// DHCPv6 option 56.
    pub ntp: Vec<Ipv6Addr>,
    /// DHCPv6 option 2: the same on all nodes, so that a guest can renew after a migration.
    pub server_duid: Vec<u8>,
    /// DHCPv6 option 59.
    pub boot_file_url: Option<String>,
}

/// How guests get their IPv6 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// By SLAAC alone.
    Slaac,
    /// By SLAAC, and the rest by stateless DHCPv6: the O flag.
    SlaacDhcp6,
    /// By stateful DHCPv6: the M and O flags, and no A flag.
    Dhcp6,
    /// SLAAC with stateless DHCPv6; with a binding that has `IP6`, stateful DHCPv6 besides.
    Auto,
}

/// Who the default router is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Router {
    /// The host on routed interfaces, and on bridges where it has the gateway's address; the
    /// gateway where that is link-local; else nobody.
    Auto,
    /// The host.
    Host,
    /// Nobody: advertisements carry the prefix and name servers alone.
    Nobody,
    /// The router with this link-local address.
    Address(Ipv6Addr),
}

/// RFC 4191, section 2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the RFC's
pub enum Preference {
    High,
    Medium,
    Low,
}

/// The L flag of the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLink {
    /// On bridges, not on routed interfaces.
    Auto,
    /// As it says.
    Always(bool),
}

impl Profile {
    /// The name servers of a binding, or else of the settings, of the family that `select` takes.
    pub fn nameservers<'a, A: Copy + 'a>(
        own: &'a [IpAddr],
        settings: &'a [A],
        select: impl Fn(IpAddr) -> Option<A> + Copy + 'a,
    ) -> impl Iterator<Item = A> + 'a {
        let has_own = own.iter().any(|address| select(*address).is_some());
        let fallback = settings.iter().copied().filter(move |_| !has_own);
        own.iter()
            .filter_map(move |address| select(*address))
            .chain(fallback)
    }
}
