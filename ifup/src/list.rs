//! What is connected: a line or a JSON object for each interface that has a record.

use std::collections::BTreeMap;

use agents::netlink::Rtnetlink;
use agents::netlink::nftables::{Nftables, Table};
use serde::Serialize;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::guard::install;
use crate::guard::profile::Tracking;
use crate::record::{self, Record};
use crate::step::Step;

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The interface.
    pub interface: String,
    /// The instance.
    pub instance: String,
    /// `MODE` and `LINK`.
    pub connection: String,
    /// MAC address.
    pub mac: String,
    /// The addresses that it may use.
    pub addresses: Vec<String>,
    /// The firewall profile; none if everything comes in.
    pub profile: Option<String>,
    /// The means by which the profile tells answers; none without a profile that holds anything back.
    pub tracking: Option<Tracking>,
    /// `up`; `gone` if the interface is no more; `unfinished` if a call was cut off.
    pub state: String,
}

/// The variants of the kernel's rules, each table asked once.
#[derive(Default)]
pub struct Variants(BTreeMap<Table, Option<Tracking>>);

impl Variants {
    /// Returns how a table's profiles tell answers.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn of(&mut self, table: Table) -> Result<Option<Tracking>> {
        if let Some(found) = self.0.get(&table) {
            return Ok(*found);
        }
        let found = install::tracking_of(&mut Nftables::open()?, table)?;
        self.0.insert(table, found);
        Ok(found)
    }
}

/// Returns a line for each variant that runs for NICs whose profile holds anything back.
///
/// # Errors
/// As for [`entries`].
pub fn variants(config: &Config) -> Result<Vec<String>> {
    let entries = entries(config)?;
    let count = |tracking| {
        let with = entries
            .iter()
            .filter(|entry| entry.tracking == Some(tracking));
        with.count()
    };
    let mut lines = Vec::new();
    match count(Tracking::Stateful) {
        0 => {}
        nics => lines.push(format!("firewall profiles of {nics} NICs: stateful")),
    }
    match count(Tracking::Stateless) {
        0 => {}
        nics => lines.push(format!(
            "firewall profiles of {nics} NICs: stateless, as this kernel does not track \
             connections on bridges (nf_conntrack_bridge): UDP from ports 53 and 123 comes in to \
             any port, answers to other UDP do not"
        )),
    }
    Ok(lines)
}

/// All interfaces that have a record, sorted by name.
///
/// # Errors
/// The folder of records cannot be read, or the kernel says nothing of interfaces.
pub fn entries(config: &Config) -> Result<Vec<Entry>> {
    let mut rtnetlink = Rtnetlink::open()?;
    let mut tracking = Variants::default();
    let mut entries = Vec::new();
    for interface in record::interfaces(&config.state)? {
        let Some(record) = Record::load(&config.state, &interface)? else {
            continue;
        };
        let link = rtnetlink.link_by_name(&interface)?;
        let there = link.is_some_and(|link| link.index == record.index);
        let value = |name: &str| record.environment.get(name).cloned().unwrap_or_default();
        let state = match (there, record.unfinished) {
            (false, _) => "gone",
            (true, true) => "unfinished",
            (true, false) => "up",
        };
        let guard = record.steps.iter().find_map(|step| match step {
            Step::Guard(guard) => Some(guard),
            _ => None,
        });
        let addresses = guard.map(|guard| guard.addresses.iter().map(ToString::to_string));
        let addresses = addresses.map_or_else(|| vec![value("IP")], Iterator::collect);
        let profile = guard.and_then(|guard| guard.profile.clone());
        let held_back = profile
            .as_ref()
            .and_then(|name| config.profiles.get(name))
            .is_some_and(|profile| !profile.all);
        let tracking = match guard {
            Some(guard) if held_back => tracking.of(guard.table())?,
            _ => None,
        };
        entries.push(Entry {
            connection: format!("{} {}", value("MODE"), value("LINK")),
            mac: value("MAC"),
            addresses: addresses
                .into_iter()
                .filter(|a: &String| !a.is_empty())
                .collect(),
            state: state.to_owned(),
            profile,
            tracking,
            instance: record.instance,
            interface,
        });
    }
    Ok(entries)
}

/// The entries as JSON, one array.
///
/// # Errors
/// None that can happen: the values are text.
pub fn json(entries: &[Entry]) -> Result<String> {
    serde_json::to_string_pretty(entries).map_err(|error| Error::Usage(error.to_string()))
}

/// The entries as a table with aligned columns.
pub fn table(entries: &[Entry]) -> String {
    let mut rows = vec![
        [
            "INTERFACE",
            "INSTANCE",
            "CONNECTION",
            "MAC",
            "STATE",
            "PROFILE",
            "ADDRESSES",
        ]
        .map(str::to_owned),
    ];
    rows.extend(entries.iter().map(|entry| {
        [
            entry.interface.clone(),
            entry.instance.clone(),
            entry.connection.clone(),
            entry.mac.clone(),
            entry.state.clone(),
            match (&entry.profile, entry.tracking) {
                (Some(profile), Some(tracking)) => format!("{profile} ({})", tracking.word()),
                (Some(profile), None) => profile.clone(),
                (None, _) => "-".to_owned(),
            },
            entry.addresses.join(" "),
        ]
    }));
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}
