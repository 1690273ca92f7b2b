//! Whether each NIC is as its record says: in the kernel, in our filters, in the folders.

use std::collections::BTreeMap;
use std::net::IpAddr;

use agents::addr::MacAddr;
use agents::netlink::nftables::{Copy, Element, Nftables, Table};
use agents::netlink::{Neighbour, Route, RouteKind, Rtnetlink, Rule};
use agents::regular_file::{self, Links};

use super::{evasions, forwarding, replay};
use crate::apply;
use crate::config::Config;
use crate::error::Result;
use crate::guard::entry::{Guard, Member, Reserved};
use crate::guard::profile::{self, Named};
use crate::guard::{ARP, BRIDGE, INET, install, sets};
use crate::masquerade;
use crate::openvswitch::{self, openflow};
use crate::record::{self, Record};
use crate::step::Step;
use crate::sysctl;

/// What the kernel has, each list asked for once.
struct Kernel {
    rtnetlink: Rtnetlink,
    nftables: Nftables,
    routes: BTreeMap<(bool, u32), Vec<Route>>,
    rules: BTreeMap<bool, Vec<Rule>>,
    neighbours: BTreeMap<(bool, bool), Vec<Neighbour>>,
    addresses: Option<Vec<(u32, IpAddr)>>,
    sets: BTreeMap<(Table, String), Vec<Element>>,
}

/// Returns notes about NICs that are as they should be, one line each.
///
/// # Errors
/// The folder of records cannot be read.
pub fn notes(config: &Config) -> Result<Vec<String>> {
    let mut sources = Vec::new();
    let mut unchecked = Vec::new();
    for interface in record::interfaces(&config.state)? {
        let record = Record::load(&config.state, &interface).ok().flatten();
        let Some(record) = record else {
            continue;
        };
        let has = |wanted: fn(&Step) -> bool| record.steps.iter().any(wanted);
        if has(|step| matches!(step, Step::SwitchPort { .. })) {
            let name = format!("{interface} ({})", record.instance);
            if has(|step| matches!(step, Step::SwitchSource { .. })) {
                sources.push(name);
            } else {
                unchecked.push(name);
            }
        }
    }
    let note = |text: &str, names: &[String]| {
        (!names.is_empty()).then(|| format!("note: {text}: {}", names.join(", ")))
    };
    Ok([
        note(
            "of what guests on Open vSwitch send, only the source MAC address is checked",
            &sources,
        ),
        note(
            "nothing is checked of what guests on Open vSwitch send, and the switch learns any \
             source address from them",
            &unchecked,
        ),
    ]
    .into_iter()
    .flatten()
    .collect())
}

/// What differs, one line each; none if nothing does.
///
/// # Errors
/// The folder of records cannot be read, or the kernel does not say.
pub fn all(config: &Config) -> Result<Vec<String>> {
    let mut kernel = Kernel {
        rtnetlink: Rtnetlink::open()?,
        nftables: Nftables::open()?,
        routes: BTreeMap::new(),
        rules: BTreeMap::new(),
        neighbours: BTreeMap::new(),
        addresses: None,
        sets: BTreeMap::new(),
    };
    let mut found = Vec::new();
    let mut guards: Vec<(String, Guard)> = Vec::new();
    let mut records = Vec::new();
    let interfaces = record::interfaces(&config.state)?;
    for interface in &interfaces {
        let record = match Record::load(&config.state, interface) {
            Ok(Some(record)) => record,
            Ok(None) => continue,
            Err(error) => {
                found.push(format!("{interface}: {error}"));
                continue;
            }
        };
        for line in kernel.differences(&record, config)? {
            found.push(format!("{interface} ({}): {line}", record.instance));
        }
        guards.extend(
            record
                .guard()
                .map(|guard| (interface.clone(), guard.clone())),
        );
        records.push(record);
    }
    if interfaces.is_empty() {
        return Ok(found);
    }
    let entries = kernel.rtnetlink.forwarding()?;
    for (record, line) in forwarding::misplaced(&records, &entries) {
        let link = kernel.rtnetlink.link_by_index(line.interface())?;
        let line = line.line(|index| match &link {
            Some(link) => link.name.clone(),
            None => format!("interface {index}"),
        });
        found.push(format!(
            "{} ({}): {line}",
            record.interface, record.instance
        ));
    }
    let known = record::known(&config.state, "")?;
    let profiles = config.named_profiles();
    for table in [BRIDGE, INET, ARP] {
        let wanted = known.profiles_in(table, &profiles);
        if !install::is_whole(&mut kernel.nftables, wanted, table)? {
            found.push(format!("table {table}: its rules are not ours"));
        }
        for interface in kernel.strangers(table, wanted, &interfaces)? {
            found.push(format!(
                "table {table}: elements for {interface}, which has no record"
            ));
        }
    }
    let mut guests = Vec::new();
    for (interface, guard) in guards {
        let cases = evasions::cases(&guard, config.routed_mac());
        if cases.is_empty() {
            continue;
        }
        let link = if guard.bridged {
            replay::GuestLink::Bridged(kernel.live_port(&interface, &guard, &entries)?)
        } else {
            replay::GuestLink::Routed(config.routed_mac())
        };
        guests.push(replay::Guest {
            interface,
            cases,
            link,
        });
    }
    if !guests.is_empty() {
        let mut live = Vec::new();
        for table in [BRIDGE, INET, ARP] {
            live.extend(kernel.nftables.copy(table)?.map(Copy::without_tracking));
        }
        for (interface, wrong) in replay::misjudged(&live, &guests)? {
            found.push(format!("{interface}: {wrong}"));
        }
    }
    Ok(found)
}

impl Kernel {
    fn differences(&mut self, record: &Record, config: &Config) -> Result<Vec<String>> {
        let interface = record.interface.as_str();
        let link = self.rtnetlink.link_by_name(interface)?;
        let Some(link) = link.filter(|link| link.index == record.index) else {
            return Ok(vec![
                "gone; snf-ifup restore takes back what is left of it".to_owned(),
            ]);
        };
        let mut found = Vec::new();
        if record.unfinished {
            found.push("the last call was cut off".to_owned());
        }
        for step in record.steps.iter().chain(&record.shared) {
            let there = match step {
                Step::Sysctl { name, value, .. } => {
                    sysctl::read(name)?.as_deref() == Some(value.as_str())
                }
                Step::Link {
                    mtu, mac, bridge, ..
                } => {
                    let master = match bridge {
                        Some(bridge) => self.index_of(bridge)?,
                        None => None,
                    };
                    link.mac == Some(*mac)
                        && link.master == master
                        && mtu.is_none_or(|mtu| mtu == link.mtu)
                }
                Step::NoLinkLocalLearn { bridge, .. } => self
                    .rtnetlink
                    .link_by_name(bridge)?
                    .is_some_and(|bridge| bridge.no_linklocal_learn == Some(true)),
                Step::Port {
                    isolated,
                    flood,
                    learning,
                    root_block,
                } => link.port.is_some_and(|port| {
                    port.isolated == Some(*isolated)
                        && port.unicast_flood == Some(*flood)
                        && port.learning == Some(*learning)
                        && port.root_block == Some(*root_block)
                }),
                Step::Forwarding { mac, bridge, vlans } => match self.index_of(bridge)? {
                    Some(bridge) => self.has_place(bridge, *mac, vlans, link.index)?,
                    None => false,
                },
                Step::Vlans(vlans) => {
                    let mut wanted: Vec<(u16, bool)> = vlans.all().collect();
                    wanted.sort_unstable();
                    self.rtnetlink.port_vlans(link.index)? == wanted
                }
                Step::SwitchPort { bridge, vlans } => {
                    let program = &config.openvswitch.program;
                    openvswitch::is_port(program, bridge, interface, vlans.as_ref())?
                }
                Step::SwitchSource { bridge, mac } => {
                    let program = &config.openvswitch.flow_program;
                    openflow::is_limited(program, bridge, interface, *mac)?
                }
                Step::Rate { bits } => self.rtnetlink.rate(link.index)? == Some(bits / 8),
                Step::Up => link.up,
                Step::Address { address } => {
                    if self.addresses.is_none() {
                        self.addresses = Some(self.rtnetlink.addresses()?);
                    }
                    let all = self.addresses.iter().flatten();
                    all.into_iter()
                        .any(|found| *found == (link.index, *address))
                }
                Step::Route { address, table } => {
                    self.routes(address.is_ipv4(), *table)?.iter().any(|route| {
                        route.destination == *address && route.interface == Some(link.index)
                    })
                }
                Step::Refuse { ipv4, table } => self
                    .routes(*ipv4, *table)?
                    .iter()
                    .any(|route| route.is_default() && route.kind == RouteKind::Unreachable),
                Step::Rule { ipv4, .. } => {
                    let wanted = apply::rule(step);
                    let rules = self.rules(*ipv4)?;
                    wanted.is_some_and(|wanted| {
                        rules.iter().any(|rule| {
                            rule.priority == wanted.priority
                                && rule.input == wanted.input
                                && rule.source == wanted.source
                                && rule.table == wanted.table
                        })
                    })
                }
                Step::Neighbour { address, mac } => self
                    .neighbours(address.is_ipv4(), false)?
                    .iter()
                    .any(|entry| {
                        entry.interface == link.index
                            && entry.address == Some(*address)
                            && entry.mac == Some(*mac)
                    }),
                Step::Proxy { interface, address } => {
                    let index = self.index_of(interface)?;
                    self.neighbours(address.is_ipv4(), true)?
                        .iter()
                        .any(|entry| {
                            Some(entry.interface) == index && entry.address == Some(*address)
                        })
                }
                Step::Binding { text } => {
                    let path = config.bindings.join(interface);
                    regular_file::read(&path, Links::Refuse, text.len())
                        .is_ok_and(|found| found == text.as_bytes())
                }
                Step::Masquerade { network } => masquerade::is_there(&mut self.nftables, *network)?,
                Step::Guard(guard) => self.holds(&guard.members(interface))?,
                Step::Reserve { bridged, address } => {
                    let reserved = Reserved {
                        bridged: *bridged,
                        address: *address,
                    };
                    self.holds(&[reserved.member()])?
                }
            };
            if !there {
                found.push(format!("not as it was made: {step}"));
            }
        }
        Ok(found)
    }

    /// Returns the treatment that the guest's bridge gives to its frames, now.
    fn live_port(
        &mut self,
        interface: &str,
        guard: &Guard,
        entries: &[Neighbour],
    ) -> Result<replay::LivePort> {
        let own = guard.macs().unwrap_or_default();
        let link = self.rtnetlink.link_by_name(interface)?;
        let Some((link, master)) = link.and_then(|link| link.master.map(|master| (link, master)))
        else {
            // Gone, or not on its bridge: no bridge learns anything from it.
            return Ok(replay::LivePort {
                own,
                learning: false,
                fixed: false,
                no_linklocal_learn: true,
            });
        };
        let bridge = self.rtnetlink.link_by_index(master)?;
        let is_fixed = |entry: &Neighbour| {
            entry.interface == link.index && entry.mac == Some(guard.mac) && entry.is_static()
        };
        Ok(replay::LivePort {
            own,
            learning: link.port.is_none_or(|port| port.learning != Some(false)),
            fixed: entries.iter().any(is_fixed),
            no_linklocal_learn: bridge
                .is_some_and(|bridge| bridge.no_linklocal_learn == Some(true)),
        })
    }

    /// Whether a bridge has the address behind the port, in each VLAN and in none.
    fn has_place(&mut self, bridge: u32, mac: MacAddr, vlans: &[u16], port: u32) -> Result<bool> {
        for vlan in vlans.iter().copied().map(Some).chain([None]) {
            let place = self.rtnetlink.forwarding_of(bridge, mac, vlan)?;
            let fixed =
                |place: Neighbour| place.interface == port && place.is_static() && place.sticky;
            if !place.is_some_and(fixed) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn index_of(&mut self, name: &str) -> Result<Option<u32>> {
        Ok(self.rtnetlink.link_by_name(name)?.map(|link| link.index))
    }

    fn routes(&mut self, ipv4: bool, table: u32) -> Result<&[Route]> {
        if let std::collections::btree_map::Entry::Vacant(entry) = self.routes.entry((ipv4, table))
        {
            entry.insert(self.rtnetlink.routes(ipv4, table)?);
        }
        Ok(self.routes.get(&(ipv4, table)).map_or(&[], Vec::as_slice))
    }

    fn rules(&mut self, ipv4: bool) -> Result<&[Rule]> {
        if let std::collections::btree_map::Entry::Vacant(entry) = self.rules.entry(ipv4) {
            entry.insert(self.rtnetlink.rules(ipv4)?);
        }
        Ok(self.rules.get(&ipv4).map_or(&[], Vec::as_slice))
    }

    fn neighbours(&mut self, ipv4: bool, proxies: bool) -> Result<&[Neighbour]> {
        let key = (ipv4, proxies);
        if let std::collections::btree_map::Entry::Vacant(entry) = self.neighbours.entry(key) {
            entry.insert(self.rtnetlink.neighbours(ipv4, proxies)?);
        }
        Ok(self.neighbours.get(&key).map_or(&[], Vec::as_slice))
    }

    fn elements(&mut self, table: Table, set: &str) -> Result<&[Element]> {
        let key = (table, set.to_owned());
        if !self.sets.contains_key(&key) {
            let elements = self.nftables.elements(table, set)?;
            self.sets.insert(key.clone(), elements);
        }
        Ok(self.sets.get(&key).map_or(&[], Vec::as_slice))
    }

    fn holds(&mut self, members: &[Member]) -> Result<bool> {
        for member in members {
            if !self
                .elements(member.table, &member.set)?
                .contains(&member.element)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Interfaces that a table knows, but no record does.
    fn strangers(
        &mut self,
        table: Table,
        profiles: &[Named],
        interfaces: &[String],
    ) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let of_profiles = profiles.iter().map(|named| profile::object(&named.name));
        for set in sets::OF_INTERFACES
            .map(str::to_owned)
            .into_iter()
            .chain(of_profiles)
        {
            for element in self.elements(table, &set)? {
                let name = element.key.split(|byte| *byte == 0).next();
                let name = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
                if !interfaces.contains(&name) && !found.contains(&name) {
                    found.push(name);
                }
            }
        }
        Ok(found)
    }
}
