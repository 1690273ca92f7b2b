//! Saying where a guest is, after it has come from another node: others need not wait until
//! what they know has aged.
//!
//! For a routed guest the host speaks for itself, on the uplink: it answers for the guest now.
//! For a bridged one it speaks in the guest's name, as QEMU does by RARP alone.

mod packet_socket;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use agents::addr::{self, MacAddr};
use agents::ganeti::nic_environment::MigrationPhase;
use agents::netlink::Rtnetlink;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::facts::{Facts, Uplink};
use crate::guard::frame::{arp, ethernet, icmp6, ipv6, mac_option};
use crate::record::Record;
use crate::request::{Connection, Request};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Of a neighbour advertisement (RFC 4861, section 4.4): what was known is overridden.
const OVERRIDE: u8 = 0x20;

/// A frame, and the interface that it goes out of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The interface.
    pub interface: String,
    /// From the first byte of the destination's address.
    pub frame: Vec<u8>,
}

/// What is to be said of a NIC: gratuitous ARP as request and as reply (RFC 5227 hosts hear the
/// one, some only the other), an unsolicited neighbour advertisement for each address, and for
/// the switches RARP.
pub fn frames(request: &Request, facts: &Facts) -> Vec<Announcement> {
    let ipv4: Vec<Ipv4Addr> = request
        .ipv4
        .into_iter()
        .chain(request.more4.clone())
        .collect();
    match &request.connection {
        Connection::Bridged { bridge, .. } => {
            let mac = request.nic.mac;
            let none = Ipv4Addr::UNSPECIFIED;
            let rarp = arp(3, (mac, none), (mac, none));
            let mut frames = vec![ethernet(MacAddr::BROADCAST, mac, 0x8035, &rarp)];
            frames.extend(ipv4.iter().flat_map(|address| of_ipv4(*address, mac)));
            if request.use_ipv6 {
                let own = request.ipv6.iter().copied();
                let all = own.chain([addr::link_local(mac)]);
                frames.extend(all.map(|address| of_ipv6(address, address, mac)));
            }
            on(bridge, frames)
        }
        Connection::Routed { .. } => {
            let mut all = Vec::new();
            if let Some((name, mac)) = speaker(facts.uplink.as_ref()) {
                let frames = ipv4.iter().flat_map(|address| of_ipv4(*address, mac));
                all.extend(on(name, frames.collect()));
            }
            if let Some((name, mac)) = speaker(facts.uplink6.as_ref()) {
                let from = addr::link_local(mac);
                let frames = request
                    .ipv6
                    .iter()
                    .map(|address| of_ipv6(*address, from, mac));
                all.extend(on(name, frames.collect()));
            }
            all
        }
        Connection::OpenVSwitch { .. } | Connection::External => Vec::new(),
    }
}

fn speaker(uplink: Option<&Uplink>) -> Option<(&str, MacAddr)> {
    uplink.and_then(|uplink| Some((uplink.name.as_str(), uplink.mac?)))
}

fn on(interface: &str, frames: Vec<Vec<u8>>) -> Vec<Announcement> {
    let announcement = |frame| Announcement {
        interface: interface.to_owned(),
        frame,
    };
    frames.into_iter().map(announcement).collect()
}

fn of_ipv4(address: Ipv4Addr, mac: MacAddr) -> [Vec<u8>; 2] {
    [(1, MacAddr::ZERO), (2, MacAddr::BROADCAST)].map(|(operation, target)| {
        let message = arp(operation, (mac, address), (target, address));
        ethernet(MacAddr::BROADCAST, mac, 0x0806, &message)
    })
}

fn of_ipv6(address: Ipv6Addr, from: Ipv6Addr, mac: MacAddr) -> Vec<u8> {
    let mut body = vec![OVERRIDE, 0, 0, 0];
    body.extend(address.octets());
    body.extend(mac_option(2, mac));
    let message = icmp6(from, ALL_NODES, 136, &body);
    let packet = ipv6(from, ALL_NODES, 58, 255, &message);
    ethernet(MacAddr::ipv6_multicast(ALL_NODES), mac, 0x86dd, &packet)
}

/// Whether a NIC is to be announced as soon as it is up: not one whose guest is still on its
/// way. Ganeti connects bridged NICs before a migration, routed ones after it.
pub fn is_due(request: &Request) -> bool {
    match request.connection {
        Connection::Routed { .. } => true,
        _ => request.nic.migration_phase == Some(MigrationPhase::Post),
    }
}

/// Says it. Nobody waits for an answer; what fails is logged, and the guest speaks for itself
/// sooner or later. What is returned takes the kernel milliseconds to close.
pub fn send(announcements: &[Announcement], rtnetlink: &mut Rtnetlink) -> Option<OwnedFd> {
    if announcements.is_empty() {
        return None;
    }
    let socket = match packet_socket::open() {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, "not announced");
            return None;
        }
    };
    let mut index: Option<(&str, u32)> = None;
    for announcement in announcements {
        let name = announcement.interface.as_str();
        let known = index.filter(|(of, _)| *of == name);
        let found = known.or_else(|| {
            let link = rtnetlink.link_by_name(name).ok().flatten()?;
            Some((name, link.index))
        });
        index = found;
        let sent = match found {
            Some((_, index)) => packet_socket::send(&socket, index, &announcement.frame),
            None => Err(std::io::ErrorKind::NotFound.into()),
        };
        if let Err(error) = sent {
            tracing::warn!(interface = name, %error, "not announced");
        }
    }
    Some(socket)
}

/// Announces the NIC of an interface, by its record.
///
/// # Errors
/// It has no record, or what it is about is not there any more.
pub fn by_record(interface: &str, config: &Config) -> Result<usize> {
    let Some(record) = Record::load(&config.state, interface)? else {
        let reason = "not connected: it has no record";
        return Err(Error::host("INTERFACE", interface, reason));
    };
    let request = Request::new(&record.environment, config)?;
    let mut rtnetlink = Rtnetlink::open()?;
    let facts = Facts::find(&request, &mut rtnetlink)?;
    let announcements = frames(&request, &facts);
    drop(send(&announcements, &mut rtnetlink));
    Ok(announcements.len())
}
