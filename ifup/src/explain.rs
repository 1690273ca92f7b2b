//! `snf-ifup explain`: what becomes of a frame of an interface, by the live sets.

use std::net::{IpAddr, Ipv6Addr};

use agents::addr::{Ipv6Net, MacAddr, in_prefix, link_local};
use agents::netlink::nftables::{Element, Family, Nftables, Table};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::guard::chains::{self, GuardChain};
use crate::guard::corpus::{self, Cast};
use crate::guard::entry::{Guard, Scope};
use crate::guard::explain::{Explanation, Outcome, Packet, Sets, explain};
use crate::guard::{ARP, BRIDGE, INET, install, profile, sets};
use crate::record::Record;
use crate::step::Step;

/// A way of frames: from the guest, or to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the guest.
    From,
    /// To the guest.
    To,
}

/// The rules of a table, and what is in its sets now.
pub struct Live {
    table: Table,
    chains: Vec<GuardChain>,
    sets: Sets,
}

impl Live {
    /// Asks the kernel.
    ///
    /// # Errors
    /// What it says.
    pub fn read(table: Table, config: &Config, nftables: &mut Nftables) -> Result<Self> {
        let tracked = table.family != Family::Bridge || install::tracks(nftables)?;
        let chains = install::all_chains(table, &config.named_profiles(), tracked);
        let mut found = Sets::new();
        for name in install::set_names(&chains) {
            let elements: Vec<Element> = nftables.elements(table, &name)?;
            found.insert(name, elements);
        }
        Ok(Self {
            table,
            chains,
            sets: found,
        })
    }

    /// What becomes of a frame. None if it is too short to be one.
    pub fn explain(&self, interface: &str, frame: &[u8], way: Way) -> Option<Explanation> {
        let packet = Packet::new(frame, interface, way == Way::To)?;
        let group = frame.get(..6)?;
        let to_bridges = group.get(..5) == Some(&[1, 0x80, 0xc2, 0, 0])
            && group.last().is_some_and(|last| *last < 16);
        let entry = match (way, self.table.family) {
            (Way::To, _) => profile::ENTRY,
            (Way::From, Family::Arp) => "input",
            (Way::From, Family::Bridge) if to_bridges => chains::TO_BRIDGES,
            (Way::From, _) => chains::ENTRY,
        };
        Some(explain(&self.chains, entry, &packet, &self.sets))
    }

    /// The frames of the corpus about which these rules decide otherwise than they should, for
    /// a bridged guest whose addresses are all checked.
    pub fn misjudged(&mut self, interface: &str, cast: &Cast) -> Vec<&'static str> {
        let mut wrong = Vec::new();
        for case in corpus::bridged(cast) {
            let Some(explanation) = self.explain(interface, &case.frame, Way::From) else {
                continue;
            };
            if (explanation.outcome == Outcome::Passes) != case.passes {
                wrong.push(case.name);
            }
            // As the kernel would: the next cases are about addresses that were taken.
            if explanation.outcome == Outcome::Passes {
                for (set, element) in explanation.learned {
                    self.sets.entry(set).or_default().push(element);
                }
            }
        }
        wrong
    }
}

/// What becomes of a frame that comes from or goes to the guest of an interface.
///
/// # Errors
/// The interface has no record, or the frame is shorter than its header.
pub fn of_interface(
    interface: &str,
    frame: &[u8],
    way: Way,
    config: &Config,
) -> Result<Explanation> {
    let Some(record) = Record::load(&config.state, interface)? else {
        let reason = "not connected: it has no record";
        return Err(Error::host("INTERFACE", interface, reason));
    };
    let guard = record.steps.iter().find_map(|step| match step {
        Step::Guard(guard) => Some(guard),
        _ => None,
    });
    let short = || Error::Usage(format!("a frame of {} bytes is none", frame.len()));
    let Some(guard) = guard else {
        return Ok(Explanation::unguarded());
    };
    let is_arp = frame.get(12..14) == Some(&[0x08, 0x06]);
    let table = match (guard.bridged, is_arp) {
        (true, _) => BRIDGE,
        (false, true) => ARP,
        (false, false) => INET,
    };
    let live = Live::read(table, config, &mut Nftables::open()?)?;
    live.explain(interface, frame, way).ok_or_else(short)
}

/// Reads a frame as hexadecimal digits; blanks and colons between them do not count.
///
/// # Errors
/// Another character, or half a byte.
pub fn parse_frame(text: &str) -> Result<Vec<u8>> {
    let wrong = || Error::Usage("FRAME is not hexadecimal digits, two for each byte".to_owned());
    let mut digits = Vec::new();
    for character in text.chars() {
        if character.is_whitespace() || character == ':' {
            continue;
        }
        let digit = character.to_digit(16).ok_or_else(wrong)?;
        digits.push(u8::try_from(digit).map_err(|_| wrong())?);
    }
    let pairs = digits.chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Ok(high << 4 | low),
            _ => Err(wrong()),
        })
        .collect()
}

/// Who a guarded guest is, and whom it might pretend to be; none if it is not one whose
/// addresses are all checked, on a bridge, with both families.
pub fn cast(guard: &Guard) -> Option<Cast> {
    let plain = guard.scope == Scope::All
        && guard.bridged
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

/// The sets that hold an interface's name first, of any table.
pub const NAMED_SETS: [&str; 8] = [
    sets::GUARDED,
    sets::ANY_IP,
    sets::ANY_MAC,
    sets::MAC,
    sets::IPV4,
    sets::IPV6,
    sets::NETS4,
    sets::NETS6,
];
