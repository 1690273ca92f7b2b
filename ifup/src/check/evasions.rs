//! What is sent to see whether the live rules judge it as they should.

use std::net::{IpAddr, Ipv6Addr};

use agents::addr::{Ipv6Net, MacAddr, in_prefix, link_local};

use crate::guard::corpus::{self, Case, Cast};
use crate::guard::entry::{Guard, Scope};
use crate::guard::forwarding_corpus;

/// The frames of the corpus for a guest, `router` the MAC address of the host's end of a routed
/// one; none of one that has not all of its addresses checked, of both families.
pub fn cases(guard: &Guard, router: MacAddr) -> Vec<Case> {
    match cast(guard) {
        Some(cast) if guard.bridged => {
            let mut cases = corpus::bridged(&cast);
            cases.extend(forwarding_corpus::all(&cast));
            cases
        }
        Some(cast) => corpus::routed(&cast, router),
        None => Vec::new(),
    }
}

/// Who a guarded guest is, and whom it might pretend to be.
fn cast(guard: &Guard) -> Option<Cast> {
    let plain = guard.scope == Scope::All
        && guard.isolated.is_none()
        && guard.vrrp.is_empty()
        && guard.nets.is_empty()
        && !guard.trunk;
    let ipv4 = guard.addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    })?;
    let local = link_local(guard.mac);
    let ipv6 = guard.addresses.iter().find_map(|address| match address {
        IpAddr::V6(address) if *address != local => Some(*address),
        _ => None,
    })?;
    // Its privacy addresses are tried, so its prefix must be one in which it may have any.
    let global = Ipv6Net::new(ipv6, 64).ok()?.trunc();
    if !plain || !guard.prefixes.contains(&global) {
        return None;
    }
    let [a, b, c, d, e, f] = guard.mac.octets();
    let other_mac = MacAddr::new([a, b, c, d, e, f ^ 1]);
    let [h, i, j, k] = ipv4.octets();
    let [p, q, r, s, ..] = ipv6.segments();
    Some(Cast {
        mac: guard.mac,
        ipv4,
        ipv6,
        other_mac,
        other_ipv4: [h, i, j, k ^ 1].into(),
        other_ipv6: in_prefix(global, other_mac)?,
        router_ipv4: [h, i, j, k ^ 2].into(),
        router_ipv6: Ipv6Addr::new(p, q, r, s, 0, 0, 0, 1),
    })
}
