//! What the guest may send.

use std::net::{IpAddr, Ipv6Addr};

use agents::addr::{self, IpNet, Ipv6Net};

use crate::config::Config;
use crate::guard::entry::{Guard, Scope};
use crate::request::{Connection, Request};

/// None for a NIC that nothing is known of: no address, no network with a prefix, no profile.
pub(super) fn plan(request: &Request, config: &Config) -> Option<Guard> {
    let network = request.nic.network.as_ref();
    let prefixed = network.is_some_and(|net| net.subnet.is_some() || net.subnet6.is_some());
    let checked = config.guard.enabled && (request.nic.ip.is_some() || prefixed);
    // Of a private network's guests nothing else is known, but that it is not for them to give
    // each other leases.
    let leased =
        config.guard.enabled && !checked && (request.mac_prefix.is_some() || request.nfdhcpd);
    let more = leased
        || request.mac_prefix.is_some()
        || request.isolated.is_some()
        || request.tags.rate_out.is_some();
    let filtered = matches!(
        request.connection,
        Connection::Bridged { .. } | Connection::Routed { .. }
    );
    if !filtered || (!checked && request.profile.is_none() && !more) {
        return None;
    }
    let mut addresses: Vec<IpAddr> = request
        .ipv4
        .iter()
        .chain(&request.more4)
        .map(|address| IpAddr::V4(*address))
        .collect();
    let mut prefixes = Vec::new();
    if request.use_ipv6 {
        addresses.extend(request.ipv6.iter().copied().map(IpAddr::V6));
        addresses.push(addr::link_local(request.nic.mac).into());
        let subnet = network.and_then(|network| network.subnet6);
        prefixes.extend(subnet.filter(|net| net.prefix_len() == 64));
        prefixes.extend(Ipv6Net::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 64));
    }
    Some(Guard {
        bridged: matches!(request.connection, Connection::Bridged { .. }),
        scope: match (checked, request.tags.any_mac, request.tags.any_ip) {
            (false, _, _) if leased => Scope::NoLeases,
            (false, _, _) => Scope::Nothing,
            (true, true, _) => Scope::AnyMac,
            (true, false, true) => Scope::AnyIp,
            (true, false, false) => Scope::All,
        },
        profile: request.profile.clone(),
        mac: request.nic.mac,
        addresses,
        nets: IpNet::aggregate(&request.tags.nets),
        prefixes,
        mac_prefix: request.mac_prefix,
        vrrp: request.tags.vrrp.clone(),
        trunk: matches!(
            &request.connection,
            Connection::Bridged { vlans: Some(vlans), .. } if !vlans.tagged.is_empty()
        ),
        isolated: request.isolated.clone(),
        rate: request.tags.rate_out.map(|bits| bits / 8),
    })
}
