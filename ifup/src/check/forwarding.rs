//! The forwarding tables of bridges, whole: no entry behind a guest's port but for the guest's own
//! addresses, and no guest's address behind another port.

use std::collections::{BTreeMap, BTreeSet};

use agents::addr::MacAddr;
use agents::netlink::Neighbour;

use crate::record::Record;
use crate::step::Step;

/// The most addresses that are named; of the others only the number is given.
const NAMED: usize = 3;

/// Returns the faults of the forwarding entries of a NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misplaced {
    /// Addresses that are not the guest's are behind its port, in the table of this bridge.
    Foreign {
        /// Index of the bridge.
        bridge: u32,
        /// The addresses, sorted.
        addresses: Vec<MacAddr>,
    },
    /// The guest's address is behind another port.
    Elsewhere {
        /// The address.
        address: MacAddr,
        /// Its VLAN, if the bridge knows VLANs.
        vlan: Option<u16>,
        /// Index of that port.
        port: u32,
    },
}

impl Misplaced {
    /// One line, with the names of interfaces by index.
    pub fn line(&self, name: impl Fn(u32) -> String) -> String {
        match self {
            Self::Foreign { bridge, addresses } => {
                let first: Vec<String> = addresses
                    .iter()
                    .take(NAMED)
                    .map(ToString::to_string)
                    .collect();
                let more = match addresses.len().saturating_sub(NAMED) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                format!(
                    "the forwarding table of {} has addresses behind it that are not the guest's: {}{more}",
                    name(*bridge),
                    first.join(" ")
                )
            }
            Self::Elsewhere {
                address,
                vlan,
                port,
            } => {
                let vlan = vlan.map_or(String::new(), |vlan| format!(" in VLAN {vlan}"));
                format!(
                    "the forwarding table has its address {address}{vlan} behind {}",
                    name(*port)
                )
            }
        }
    }

    /// The interfaces that the line names.
    pub fn interface(&self) -> u32 {
        match self {
            Self::Foreign { bridge, .. } => *bridge,
            Self::Elsewhere { port, .. } => *port,
        }
    }
}

/// Returns the faults of all entries of all bridges, by NIC.
pub fn misplaced<'a>(records: &'a [Record], entries: &[Neighbour]) -> Vec<(&'a Record, Misplaced)> {
    // Many NICs and many entries: each is looked up, not searched for.
    let by_port: BTreeMap<u32, (usize, Vec<MacAddr>)> = records
        .iter()
        .enumerate()
        .filter_map(|(number, record)| {
            let guard = record.guard().filter(|guard| guard.bridged)?;
            Some((record.index, (number, guard.macs()?)))
        })
        .collect();
    let mut by_address: BTreeMap<MacAddr, Vec<&Record>> = BTreeMap::new();
    for record in records {
        if let Some(address) = record.place() {
            by_address.entry(address).or_default().push(record);
        }
    }
    let bridge_of: BTreeMap<u32, u32> = entries
        .iter()
        .filter_map(|entry| Some((entry.interface, entry.bridge?)))
        .collect();
    let mut foreign: BTreeMap<(usize, u32), BTreeSet<MacAddr>> = BTreeMap::new();
    let mut found = Vec::new();
    for entry in entries {
        let (Some(mac), Some(bridge)) = (entry.mac, entry.bridge) else {
            continue;
        };
        if entry.is_local() {
            continue;
        }
        if let Some((number, own)) = by_port.get(&entry.interface)
            && !own.contains(&mac)
        {
            foreign.entry((*number, bridge)).or_default().insert(mac);
        }
        for record in by_address.get(&mac).into_iter().flatten() {
            let in_its_vlan = record.steps.iter().any(|step| match step {
                Step::Forwarding { vlans, .. } => {
                    entry.vlan.is_none_or(|vlan| vlans.contains(&vlan))
                }
                _ => false,
            });
            let same_bridge = bridge_of.get(&record.index) == Some(&bridge);
            if entry.interface != record.index && in_its_vlan && same_bridge {
                let elsewhere = Misplaced::Elsewhere {
                    address: mac,
                    vlan: entry.vlan,
                    port: entry.interface,
                };
                found.push((*record, elsewhere));
            }
        }
    }
    for ((number, bridge), addresses) in foreign {
        let addresses = addresses.into_iter().collect();
        let record = records.get(number);
        found.extend(record.map(|record| (record, Misplaced::Foreign { bridge, addresses })));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::guard::entry::{Guard, Scope};

    const BRIDGE: u32 = 2;
    const UPLINK: u32 = 3;

    fn nic(index: u32, last: u8, scope: Scope, vrrp: Vec<u8>) -> Record {
        let mac = MacAddr::new([0xaa, 0, 0, 0, 0, last]);
        let mut record = Record::new(&format!("tap{index}"), index, "snf-1", BTreeMap::new());
        record.steps.push(Step::Guard(Guard {
            bridged: true,
            scope,
            profile: None,
            mac,
            addresses: Vec::new(),
            nets: Vec::new(),
            prefixes: Vec::new(),
            mac_prefix: None,
            vrrp,
            trunk: false,
            isolated: None,
            rate: None,
        }));
        if scope != Scope::AnyMac {
            record.steps.push(Step::Forwarding {
                mac,
                bridge: "br0".to_owned(),
                vlans: vec![10],
            });
        }
        record
    }

    fn entry(interface: u32, mac: [u8; 6], state: u16, vlan: Option<u16>) -> Neighbour {
        Neighbour {
            interface,
            address: None,
            mac: Some(MacAddr::new(mac)),
            proxy: false,
            state,
            sticky: false,
            vlan,
            bridge: Some(BRIDGE),
        }
    }

    #[test]
    fn only_a_guests_own_addresses_are_behind_its_port() {
        let records = [
            nic(10, 1, Scope::All, Vec::new()),
            nic(11, 2, Scope::AnyMac, Vec::new()),
            nic(12, 3, Scope::AnyIp, vec![7]),
        ];
        let own = |last| [0xaa, 0, 0, 0, 0, last];
        let mut entries = vec![
            entry(10, own(1), 0x40, None),
            entry(10, own(1), 0x40, Some(10)),
            // the port's own
            entry(10, [0xfe, 0, 0, 0, 0, 1], 0x80, None),
            entry(UPLINK, [2, 0, 0, 0, 0, 1], 2, None),
            // the same address in a VLAN that the guest is not in is another's
            entry(UPLINK, own(1), 2, Some(20)),
            entry(11, [2, 0, 0, 0, 0, 9], 2, None),
            entry(12, own(3), 0x40, None),
            entry(12, [0, 0, 0x5e, 0, 1, 7], 2, None),
        ];
        assert_eq!(misplaced(&records, &entries), []);
        entries.push(entry(UPLINK, own(1), 2, Some(10)));
        entries.extend((0..5).map(|last| entry(10, [2, 0, 0, 0, 0, last], 2, None)));
        entries.push(entry(12, [0, 0, 0x5e, 0, 1, 8], 2, None));
        let lines: Vec<(u32, String)> = misplaced(&records, &entries)
            .into_iter()
            .map(|(record, wrong)| (record.index, wrong.line(|index| format!("if{index}"))))
            .collect();
        let foreign =
            "the forwarding table of if2 has addresses behind it that are not the guest's:";
        assert_eq!(
            lines,
            [
                (
                    10,
                    "the forwarding table has its address aa:00:00:00:00:01 in VLAN 10 behind if3"
                        .to_owned()
                ),
                (
                    10,
                    format!(
                        "{foreign} 02:00:00:00:00:00 02:00:00:00:00:01 02:00:00:00:00:02 and 2 more"
                    )
                ),
                (12, format!("{foreign} 00:00:5e:00:01:08")),
            ]
        );
    }
}
