//! `snf-ifup explain`: what becomes of a frame of an interface, by the live sets.

use std::collections::BTreeMap;

use agents::netlink::nftables::{Element, Family, Nftables, Table};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::guard::chains::{self, GuardChain};
use crate::guard::explain::{Explanation, Packet, Sets, explain};
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
        let mut constant: BTreeMap<&str, Vec<Element>> = sets::constant().into_iter().collect();
        for name in install::set_names(&chains) {
            // Those that say nothing of NICs are the same on every host.
            let elements: Vec<Element> = match constant.remove(name.as_str()) {
                Some(elements) => elements,
                None => nftables.elements(table, &name)?,
            };
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
        // The group of the spanning tree is one like others to a bridge without one, as a node's
        // is.
        let to_bridges = group.get(..5) == Some(&[1, 0x80, 0xc2, 0, 0])
            && group.last().is_some_and(|last| (1..16).contains(last));
        let entry = match (way, self.table.family) {
            (Way::To, _) => profile::ENTRY,
            (Way::From, Family::Arp) => "input",
            (Way::From, Family::Bridge) if to_bridges => chains::TO_BRIDGES,
            (Way::From, _) => chains::ENTRY,
        };
        Some(explain(&self.chains, entry, &packet, &self.sets))
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
