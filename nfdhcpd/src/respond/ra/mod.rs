//! Router advertisements (RFC 4861, section 4.2, and its options of later RFCs).

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use agents::addr::{Ipv6Net, MacAddr};
use agents::binding::DomainName;

use super::{Action, Answer};
use crate::client::Client;
use crate::packet::addresses::Addresses;
use crate::packet::frame::{self, Route};
use crate::packet::nd;
use crate::profile::{Mode, OnLink, Preference, Profile, Router};
use crate::reason::Reason;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const MANAGED: u8 = 0x80;
const OTHER: u8 = 0x40;
const ON_LINK: u8 = 0x80;
const AUTONOMOUS: u8 = 0x40;

/// Answers a router solicitation. `to` is the MAC address of the guest.
pub fn solicited(
    addresses: Addresses<Ipv6Addr>,
    to: Option<MacAddr>,
    client: &Client,
    out: &mut Vec<u8>,
) -> Action {
    // To all, where we do not know to whom (RFC 4861, section 6.2.6).
    let (destination, destination_mac) = match to {
        Some(mac) if agents::addr::is_link_local(addresses.source) => (addresses.source, mac),
        _ => (ALL_NODES, MacAddr::ipv6_multicast(ALL_NODES)),
    };
    match advertise(client, destination, destination_mac, out) {
        Ok(sole) if sole => Action::Reply(Answer::RouterAdvertisement),
        // There may be a router on the link: let it hear the question too.
        Ok(_) => Action::ReplyAndPass(Answer::RouterAdvertisement),
        Err(Reason::Disabled) => Action::Pass,
        Err(Reason::NoAddress) if client.port.bridged => Action::Pass,
        Err(reason) => Action::Drop(reason),
    }
}

/// An advertisement that nobody asked for.
///
/// # Errors
/// This client gets none.
pub fn unsolicited(client: &Client, out: &mut Vec<u8>) -> Result<(), Reason> {
    advertise(client, ALL_NODES, MacAddr::ipv6_multicast(ALL_NODES), out).map(drop)
}

/// Writes an advertisement; says whether it names the link's only router.
fn advertise(
    client: &Client,
    destination: Ipv6Addr,
    destination_mac: MacAddr,
    out: &mut Vec<u8>,
) -> Result<bool, Reason> {
    let settings = &client.profile.ipv6;
    if !settings.enabled {
        return Err(Reason::Disabled);
    }
    let prefix = client.binding.subnet6.ok_or(Reason::NoAddress)?;
    let router = router(client);
    frame::start(out, frame::ICMP6_OFFSET);
    write(client, prefix, router, out);
    let route = Route {
        source_mac: client.port.host_mac,
        destination_mac,
        source: router.source,
        destination,
    };
    if frame::finish_icmp6(out, route) {
        Ok(router.is_default)
    } else {
        Err(Reason::TooLarge)
    }
}

/// In whose name an advertisement is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advertiser {
    /// Its link-local address.
    pub source: Ipv6Addr,
    /// Whether guests are to use it as their default router.
    pub is_default: bool,
    /// Whether it is the host, so that its MAC address is known.
    pub is_host: bool,
}

/// In whose name this client's advertisements are sent.
pub fn router(client: &Client) -> Advertiser {
    let host = |is_default| Advertiser {
        source: client.port.host_link_local,
        is_default,
        is_host: true,
    };
    let other = |source| Advertiser {
        source,
        is_default: true,
        is_host: false,
    };
    match (client.profile.ipv6.router, client.binding.gateway6) {
        (Router::Host, _) => host(true),
        (Router::Nobody, _) => host(false),
        (Router::Address(address), _) => other(address),
        (Router::Auto, _) if !client.port.bridged => host(true),
        (Router::Auto, Some(gateway)) if client.port.host_has_gateway6 => {
            if agents::addr::is_link_local(gateway) {
                Advertiser {
                    source: gateway,
                    is_default: true,
                    is_host: true,
                }
            } else {
                host(true)
            }
        }
        (Router::Auto, Some(gateway)) if agents::addr::is_link_local(gateway) => other(gateway),
        (Router::Auto, _) => host(false),
    }
}

fn write(client: &Client, prefix: Ipv6Net, router: Advertiser, out: &mut Vec<u8>) {
    let (binding, settings) = (&client.binding, &client.profile.ipv6);
    let stateful =
        settings.mode == Mode::Dhcp6 || (settings.mode == Mode::Auto && binding.ip6.is_some());
    let mut flags = match settings.preference {
        Preference::High => 0x08,
        Preference::Medium => 0x00,
        Preference::Low => 0x18,
    };
    if stateful {
        flags |= MANAGED;
    }
    if stateful || matches!(settings.mode, Mode::SlaacDhcp6 | Mode::Auto) {
        flags |= OTHER;
    }
    if !router.is_default {
        // RFC 4191, section 2.2: no preference with a zero lifetime.
        flags &= MANAGED | OTHER;
    }
    let lifetime = if router.is_default {
        settings.router_lifetime
    } else {
        Duration::ZERO
    };
    let [high, low] = u16::try_from(lifetime.as_secs())
        .unwrap_or(u16::MAX)
        .to_be_bytes();
    out.extend_from_slice(&[nd::ROUTER_ADVERTISEMENT, 0, 0, 0, 64, flags, high, low]);
    // Reachable time and retransmission timer: as the guest likes.
    out.extend_from_slice(&[0; 8]);

    if router.is_host {
        let [a, b, c, d, e, f] = client.port.host_mac.octets();
        out.extend_from_slice(&[1, 1, a, b, c, d, e, f]);
    }
    if let Some(mtu) = binding.mtu {
        let [high, low] = mtu.to_be_bytes();
        // RFC 8200, section 5: an IPv6 link has at least 1280 bytes.
        if mtu >= 1280 {
            out.extend_from_slice(&[5, 1, 0, 0, 0, 0, high, low]);
        }
    }
    let on_link = match settings.on_link {
        OnLink::Always(on) => on,
        OnLink::Auto => client.port.bridged,
    };
    let autonomous = settings.mode != Mode::Dhcp6 && prefix.prefix_len() == 64;
    write_prefix(
        prefix,
        on_link,
        autonomous,
        settings.valid_lifetime,
        settings.preferred_lifetime,
        out,
    );
    for route in &settings.routes {
        write_route(*route, settings.preference, settings.router_lifetime, out);
    }
    let life = seconds(settings.interval.saturating_mul(3));
    let ipv6 = |address| match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    };
    write_rdnss(
        Profile::nameservers(&binding.nameservers, &settings.nameservers, ipv6),
        life,
        out,
    );
    let search = if binding.domain.is_empty() {
        &settings.search
    } else {
        &binding.domain
    };
    write_dnssl(search, life, out);
    if let Some(prefix) = settings.pref64 {
        write_pref64(prefix, settings.interval.saturating_mul(3), out);
    }
}

/// RFC 4861, section 4.6.2.
fn write_prefix(
    prefix: Ipv6Net,
    on_link: bool,
    autonomous: bool,
    valid: Duration,
    preferred: Duration,
    out: &mut Vec<u8>,
) {
    let set = |on, flag| if on { flag } else { 0 };
    let flags = set(on_link, ON_LINK) | set(autonomous, AUTONOMOUS);
    out.extend_from_slice(&[3, 4, prefix.prefix_len(), flags]);
    out.extend_from_slice(&seconds(valid));
    out.extend_from_slice(&seconds(preferred));
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&prefix.network().octets());
}

/// RFC 4191, section 2.3.
fn write_route(route: Ipv6Net, preference: Preference, lifetime: Duration, out: &mut Vec<u8>) {
    let preference = match preference {
        Preference::High => 0x08,
        Preference::Medium => 0x00,
        Preference::Low => 0x18,
    };
    let words: u8 = match route.prefix_len() {
        0 => 0,
        1..=64 => 1,
        _ => 2,
    };
    out.extend_from_slice(&[24, 1 + words, route.prefix_len(), preference]);
    out.extend_from_slice(&seconds(lifetime));
    out.extend(
        route
            .network()
            .octets()
            .into_iter()
            .take(usize::from(words) * 8),
    );
}

/// RFC 8106, section 5.1.
fn write_rdnss(servers: impl Iterator<Item = Ipv6Addr>, lifetime: [u8; 4], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[25, 1, 0, 0]);
    out.extend_from_slice(&lifetime);
    let mut units = 1_u8;
    // As many as the length can count.
    for server in servers.take(127) {
        out.extend_from_slice(&server.octets());
        units = units.saturating_add(2);
    }
    finish_option(start, units, units > 1, out);
}

/// RFC 8106, section 5.2.
fn write_dnssl(names: &[DomainName], lifetime: [u8; 4], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[31, 0, 0, 0]);
    out.extend_from_slice(&lifetime);
    for name in names {
        let wire = name.to_wire();
        if out.len() - start + wire.len() > 255 * 8 {
            break;
        }
        out.extend_from_slice(&wire);
    }
    let length = out.len() - start;
    out.resize(start + length.next_multiple_of(8), 0);
    let units = u8::try_from((out.len() - start) / 8).unwrap_or(u8::MAX);
    finish_option(start, units, !names.is_empty(), out);
}

/// Writes an option's length, or takes the option back.
fn finish_option(start: usize, units: u8, keep: bool, out: &mut Vec<u8>) {
    match out.get_mut(start + 1) {
        Some(length) if keep => *length = units,
        _ => out.truncate(start),
    }
}

/// RFC 8781, section 4. A length that it does not know is left out; the configuration has refused
/// it before.
fn write_pref64(prefix: Ipv6Net, lifetime: Duration, out: &mut Vec<u8>) {
    let code: u16 = match prefix.prefix_len() {
        96 => 0,
        64 => 1,
        56 => 2,
        48 => 3,
        40 => 4,
        32 => 5,
        _ => return,
    };
    // In units of 8 seconds, 13 bits.
    let scaled = u16::try_from(lifetime.as_secs().div_ceil(8))
        .unwrap_or(u16::MAX)
        .min(0x1fff);
    out.extend_from_slice(&[38, 2]);
    out.extend_from_slice(&(scaled << 3 | code).to_be_bytes());
    out.extend(prefix.network().octets().into_iter().take(12));
}

fn seconds(time: Duration) -> [u8; 4] {
    u32::try_from(time.as_secs())
        .unwrap_or(u32::MAX)
        .to_be_bytes()
}

#[cfg(test)]
mod tests;
