//! What is connected: a line or a JSON object for each interface that has a record.

use agents::netlink::Rtnetlink;
use serde::Serialize;

use crate::config::Config;
use crate::error::{Error, Result};
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
    /// `up`; `gone` if the interface is no more; `unfinished` if a call was cut off.
    pub state: String,
}

/// All interfaces that have a record, sorted by name.
///
/// # Errors
/// The folder of records cannot be read, or the kernel says nothing of interfaces.
pub fn entries(config: &Config) -> Result<Vec<Entry>> {
    let mut rtnetlink = Rtnetlink::open()?;
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
        let addresses = record.steps.iter().find_map(|step| match step {
            Step::Guard(guard) => Some(guard.addresses.iter().map(ToString::to_string).collect()),
            _ => None,
        });
        let addresses = addresses.unwrap_or_else(|| vec![value("IP")]);
        entries.push(Entry {
            connection: format!("{} {}", value("MODE"), value("LINK")),
            mac: value("MAC"),
            addresses: addresses
                .into_iter()
                .filter(|a: &String| !a.is_empty())
                .collect(),
            state: state.to_owned(),
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
            entry.addresses.join(" "),
        ]
    }));
    let mut widths = [0; 6];
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
