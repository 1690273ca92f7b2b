//! Router advertisements (RFC 4861, section 4.2, and its options of later RFCs).

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use agents::addr::{Ipv6Net, MacAddr};
use agents::binding::DomainName;

use super::{Action, Answer};
use crate::client::Client;
use crate::omission::{Omission, Protocol};
use crate::packet::addresses::Addresses;
use crate::packet::frame::{self, Route};
use crate::packet::nd;
use crate::profile::{Mode, OnLink, Preference, Profile, Router};
use crate::reason::Reason;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The length of the header before the message.
const IP_HEADER: usize = 40;
const MANAGED: u8 = 0x80;
const OTHER: u8 = 0x40;
const ON_LINK: u8 = 0x80;
const AUTONOMOUS: u8 = 0x40;

/// Answers a router solicitation. `to` is the MAC address of the guest.
pub fn solicited(
    addresses: Addresses<Ipv6Addr>,
    to: Option<MacAddr>,
    client: &Client,
    omitted: &mut Vec<Omission>,
    out: &mut Vec<u8>,
) -> Action {
    // To all, where we do not know to whom (RFC 4861, section 6.2.6).
    let (destination, destination_mac) = match to {
        Some(mac) if agents::addr::is_link_local(addresses.source) => (addresses.source, mac),
        _ => (ALL_NODES, MacAddr::ipv6_multicast(ALL_NODES)),
    };
    match advertise(client, destination, destination_mac, omitted, out) {
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
pub fn unsolicited(
    client: &Client,
    omitted: &mut Vec<Omission>,
    out: &mut Vec<u8>,
) -> Result<(), Reason> {
    let mac = MacAddr::ipv6_multicast(ALL_NODES);
    advertise(client, ALL_NODES, mac, omitted, out).map(drop)
}

/// Writes an advertisement; says whether it names the link's only router.
fn advertise(
    client: &Client,
    destination: Ipv6Addr,
    destination_mac: MacAddr,
    omitted: &mut Vec<Omission>,
    out: &mut Vec<u8>,
) -> Result<bool, Reason> {
    let settings = &client.profile.ipv6;
    if !settings.enabled {
        return Err(Reason::Disabled);
    }
    let prefix = client.binding.subnet6.ok_or(Reason::NoAddress)?;
    let router = router(client);
    frame::start(out, frame::ICMP6_OFFSET);
    omitted.clear();
    write(client, prefix, router, omitted, out);
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

fn write(
    client: &Client,
    prefix: Ipv6Net,
    router: Advertiser,
    omitted: &mut Vec<Omission>,
    out: &mut Vec<u8>,
) {
    // `out` has room for the headers before the message.
    let end = super::room(client, 1280) - IP_HEADER + out.len();
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
    let life = seconds(settings.interval.saturating_mul(3));
    let ipv6 = |address| match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    };
    let servers: Vec<Ipv6Addr> =
        Profile::nameservers(&binding.nameservers, &settings.nameservers, ipv6).collect();
    let search = if binding.domain.is_empty() {
        &settings.search
    } else {
        &binding.domain
    };
    let names: Vec<Vec<u8>> = search.iter().map(DomainName::to_wire).collect();
    let pref64 = if settings.pref64.is_some() { PREF64 } else { 0 };
    // What comes later keeps the room for one item of each.
    let one_server = if servers.is_empty() { 0 } else { RDNSS + 16 };
    let one_name = names.first().map_or(0, |name| dnssl_length(name.len()));
    let room = |out: &Vec<u8>, kept: usize| end.saturating_sub(out.len() + kept);

    let space = room(out, one_server + one_name + pref64);
    let left_out = write_routes(client, space, out);
    omit(ROUTE, left_out, settings.routes.len(), omitted);
    let left_out = write_rdnss(&servers, life, room(out, one_name + pref64), out);
    omit(RDNSS_TYPE, left_out, servers.len(), omitted);
    let left_out = write_dnssl(&names, life, room(out, pref64), out);
    omit(DNSSL_TYPE, left_out, names.len(), omitted);
    if let Some(prefix) = settings.pref64 {
        write_pref64(prefix, settings.interval.saturating_mul(3), out);
    }
}

/// The types of the options that are lists.
const ROUTE: u8 = 24;
const RDNSS_TYPE: u8 = 25;
const DNSSL_TYPE: u8 = 31;
/// The length of the options with an empty list.
const RDNSS: usize = 8;
const DNSSL: usize = 8;
const PREF64: usize = 16;
/// The longest option: its length is counted in units of eight bytes, in one byte.
const LONGEST: usize = 255 * 8;

fn omit(option: u8, left_out: usize, of: usize, omitted: &mut Vec<Omission>) {
    if left_out > 0 {
        omitted.push(Omission {
            protocol: Protocol::RouterAdvertisement,
            option: option.into(),
            left_out,
            of,
        });
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

/// Writes the routes besides the default one, so many bytes at most (RFC 4191, section 2.3);
/// returns how many are left out.
fn write_routes(client: &Client, room: usize, out: &mut Vec<u8>) -> usize {
    let settings = &client.profile.ipv6;
    let start = out.len();
    for (number, route) in settings.routes.iter().enumerate() {
        let before = out.len();
        write_route(*route, settings.preference, settings.router_lifetime, out);
        if out.len() - start > room {
            out.truncate(before);
            return settings.routes.len() - number;
        }
    }
    0
}

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
    out.extend_from_slice(&[ROUTE, 1 + words, route.prefix_len(), preference]);
    out.extend_from_slice(&seconds(lifetime));
    out.extend(
        route
            .network()
            .octets()
            .into_iter()
            .take(usize::from(words) * 8),
    );
}

/// RFC 8106, section 5.1, in so many bytes at most; returns how many servers are left out.
fn write_rdnss(servers: &[Ipv6Addr], lifetime: [u8; 4], room: usize, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    let fit = room.min(LONGEST).saturating_sub(RDNSS) / 16;
    out.extend_from_slice(&[RDNSS_TYPE, 1, 0, 0]);
    out.extend_from_slice(&lifetime);
    out.extend(servers.iter().take(fit).flat_map(Ipv6Addr::octets));
    finish_option(start, fit > 0 && !servers.is_empty(), out);
    servers.len().saturating_sub(fit)
}

/// RFC 8106, section 5.2, in so many bytes at most; returns how many names are left out.
fn write_dnssl(names: &[Vec<u8>], lifetime: [u8; 4], room: usize, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    let mut length = 0;
    let fit = names
        .iter()
        .take_while(|name| {
            length += name.len();
            dnssl_length(length) <= room.min(LONGEST)
        })
        .count();
    out.extend_from_slice(&[DNSSL_TYPE, 0, 0, 0]);
    out.extend_from_slice(&lifetime);
    out.extend(names.iter().take(fit).flatten());
    let padded = (out.len() - start).next_multiple_of(8);
    out.resize(start + padded, 0);
    finish_option(start, fit > 0, out);
    names.len() - fit
}

/// The length of an option whose names have so many bytes.
fn dnssl_length(names: usize) -> usize {
    (DNSSL + names).next_multiple_of(8)
}

/// Writes an option's length, or takes the option back.
fn finish_option(start: usize, keep: bool, out: &mut Vec<u8>) {
    let units = u8::try_from((out.len() - start) / 8).unwrap_or(u8::MAX);
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
