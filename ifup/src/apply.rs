//! Steps, done and taken back over netlink.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use agents::netlink::nftables::{Batch, Nftables};
use agents::netlink::{LinkChange, PortFlags, Route, RouteKind, RouteScope, Rtnetlink, Rule};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::guard::entry::{self, Guard, Reserved};
use crate::guard::install;
use crate::guard::profile::Named;
use crate::masquerade;
use crate::openvswitch::{self, openflow};
use crate::record;
use crate::step::Step;
use crate::sysctl;

/// The mark of our routes and rules (`rtnetlink(7)`, `rtm_protocol`): a number that nobody else uses.
pub const PROTOCOL: u8 = 83;
/// The largest metric: any other route comes first.
const LAST_METRIC: u32 = u32::MAX;

/// The host, for one interface of it.
#[derive(Debug)]
pub struct Host {
    /// Links, routes, rules and neighbours.
    pub rtnetlink: Rtnetlink,
    interface: String,
    /// Index of the interface; none if it is gone.
    index: Option<u32>,
    bindings: PathBuf,
    switch: PathBuf,
    switch_flows: PathBuf,
    state: PathBuf,
    profiles: Vec<Named>,
    nftables: Option<Nftables>,
    /// What the guard's tables know of the interface.
    guarded: Option<Guard>,
    /// Addresses reserved in this call.
    reserved: Vec<Reserved>,
    /// Of these, those that the kernel is told of with the next change of the guard.
    unsaid: Vec<Reserved>,
    /// Interfaces that were looked up in this call.
    indexes: Vec<(String, u32)>,
    /// The interface was down, and was not put up in this call.
    down: bool,
}

impl Host {
    /// For the interface of this name; `index` is what steps for it act on, none if it is gone.
    pub fn new(rtnetlink: Rtnetlink, interface: &str, index: Option<u32>, config: &Config) -> Self {
        Self {
            rtnetlink,
            interface: interface.to_owned(),
            index,
            bindings: config.bindings.clone(),
            switch: config.openvswitch.program.clone(),
            switch_flows: config.openvswitch.flow_program.clone(),
            state: config.state.clone(),
            profiles: config.named_profiles(),
            nftables: None,
            guarded: None,
            reserved: Vec::new(),
            unsaid: Vec::new(),
            indexes: Vec::new(),
            down: false,
        }
    }

    /// The interface is down.
    pub fn begins_down(&mut self) {
        self.down = true;
    }

    /// The index of an interface, known already.
    pub fn knows(&mut self, name: &str, index: u32) {
        self.indexes.push((name.to_owned(), index));
    }

    /// What the guard's tables know of the interface already.
    pub fn guarded_by(&mut self, steps: &[Step]) {
        self.guarded = steps.iter().find_map(|step| match step {
            Step::Guard(guard) => Some(guard.clone()),
            _ => None,
        });
    }

    fn nftables(&mut self) -> Result<&mut Nftables> {
        let opened = match self.nftables.take() {
            Some(opened) => opened,
            None => Nftables::open()?,
        };
        Ok(self.nftables.insert(opened))
    }

    /// Leads the guard's tables to another state of the interface, in one step.
    fn guard(&mut self, to: Option<&Guard>) -> Result<()> {
        let mut batch = Batch::new();
        for reserved in &self.unsaid {
            install::reserve(&mut batch, reserved, true);
        }
        entry::change(&mut batch, &self.interface, self.guarded.as_ref(), to);
        let before = std::mem::replace(&mut self.guarded, to.cloned());
        let changed = self.change_guard(&batch);
        if changed.is_err() {
            self.guarded = before;
        } else {
            self.unsaid.clear();
        }
        changed
    }

    /// Says what is still to be said: of a NIC that has no guard of its own.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn finish(&mut self) -> Result<()> {
        if self.unsaid.is_empty() {
            return Ok(());
        }
        let guarded = self.guarded.clone();
        self.guard(guarded.as_ref())
    }

    fn reserve(&mut self, reserved: &Reserved) {
        self.forget(reserved);
        self.reserved.push(*reserved);
        self.unsaid.push(*reserved);
    }

    fn forget(&mut self, reserved: &Reserved) {
        self.reserved.retain(|other| other != reserved);
        self.unsaid.retain(|other| other != reserved);
    }

    fn change_guard(&mut self, batch: &Batch) -> Result<()> {
        match self.nftables()?.commit(batch) {
            // The first NIC since the node started, or somebody else was at our tables: what
            // the records and we know is all there is to know.
            Err(error) if error.is_not_found() => {
                let mut known = record::known(&self.state, &self.interface)?;
                let this = self.guarded.clone();
                known
                    .nics
                    .extend(this.map(|guard| (self.interface.clone(), guard)));
                known.reserved.extend(self.reserved.iter().copied());
                let profiles = std::mem::take(&mut self.profiles);
                let rebuilt = install::rebuild(self.nftables()?, &profiles, &known);
                self.profiles = profiles;
                Ok(rebuilt?)
            }
            other => Ok(other?),
        }
    }

    /// From now on only what outlives the interface is acted on.
    pub fn forget_interface(&mut self) {
        self.index = None;
    }

    fn tap(&self) -> Result<u32> {
        self.index
            .ok_or_else(|| Error::host("INTERFACE", &self.interface, "no such interface"))
    }

    fn index_of(&mut self, name: &str) -> Result<Option<u32>> {
        if let Some((_, index)) = self.indexes.iter().find(|(known, _)| known == name) {
            return Ok(Some(*index));
        }
        let index = self.rtnetlink.link_by_name(name)?.map(|link| link.index);
        if let Some(index) = index {
            self.knows(name, index);
        }
        Ok(index)
    }

    /// Does a step. What is done already is a success.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn execute(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Sysctl { name, value, .. } => {
                if sysctl::read(name)?.as_deref() != Some(value) {
                    sysctl::write(name, value)?;
                }
            }
            Step::Link {
                mtu, mac, bridge, ..
            } => {
                let master = match bridge {
                    None => 0,
                    Some(bridge) => self
                        .index_of(bridge)?
                        .ok_or_else(|| Error::host("LINK", bridge, "no such bridge"))?,
                };
                let index = self.tap()?;
                let now = if self.down {
                    None
                } else {
                    self.rtnetlink.link_by_index(index)?
                };
                // What the kernel made of another MAC address (a link-local address) goes when
                // the interface goes down; one of a killed call, or of another mode, may be up.
                // And a port learns from the moment that it is up until it is told not to.
                let another = now.is_some_and(|link| {
                    link.up
                        && (link.mac != Some(*mac)
                            || master != 0 && link.master.unwrap_or(0) != master)
                });
                let change = LinkChange {
                    up: another.then_some(false),
                    mtu: *mtu,
                    mac: Some(*mac),
                    master: Some(master),
                    ..LinkChange::default()
                };
                self.rtnetlink
                    .change_link(index, &self.interface, &change)?;
            }
            Step::NoLinkLocalLearn { bridge, .. } => {
                let link = self
                    .rtnetlink
                    .link_by_name(bridge)?
                    .ok_or_else(|| Error::host("LINK", bridge, "no such bridge"))?;
                if link.no_linklocal_learn != Some(true) {
                    self.rtnetlink
                        .set_no_linklocal_learn(link.index, bridge, true)?;
                }
            }
            Step::Port {
                isolated,
                flood,
                learning,
                root_block,
            } => {
                let index = self.tap()?;
                let flags = PortFlags {
                    isolated: Some(*isolated),
                    learning: Some(*learning),
                    unicast_flood: Some(*flood),
                    root_block: Some(*root_block),
                    ..PortFlags::default()
                };
                self.rtnetlink.change_port(index, &self.interface, &flags)?;
                if !learning && !self.down {
                    // What it learned while it might: as another guest's, or before it was ours.
                    self.rtnetlink.flush_port(index, &self.interface)?;
                }
            }
            Step::Forwarding { mac, .. } => {
                let index = self.tap()?;
                self.rtnetlink.set_forwarding(index, *mac, None, true)?;
            }
            Step::Vlans(vlans) => {
                let index = self.tap()?;
                for (vid, untagged) in vlans.all() {
                    self.rtnetlink.add_port_vlan(index, vid, untagged)?;
                }
                // The bridge's default, and what the port had before.
                for (first, last) in vlans.gaps() {
                    self.rtnetlink.delete_port_vlans(index, first, last)?;
                }
            }
            Step::SwitchPort { bridge, vlans } => {
                openvswitch::add_port(&self.switch, bridge, &self.interface, vlans.as_ref())?;
            }
            Step::SwitchSource { bridge, mac } => {
                openflow::limit_source(&self.switch_flows, bridge, &self.interface, *mac)?;
            }
            Step::Rate { bits } => {
                let index = self.tap()?;
                self.rtnetlink.set_rate(index, bits / 8)?;
            }
            Step::Guard(guard) => self.guard(Some(guard))?,
            Step::Reserve { bridged, address } => {
                let reserved = Reserved {
                    bridged: *bridged,
                    address: *address,
                };
                self.reserve(&reserved);
            }
            Step::Up => self.set_up(true)?,
            Step::Address { address } => {
                let index = self.tap()?;
                self.rtnetlink.add_address(index, *address)?;
            }
            Step::Route { address, table } => {
                let route = Route::host(*address, self.tap()?, *table, PROTOCOL);
                self.rtnetlink.replace_route(&route)?;
            }
            Step::Refuse { ipv4, table } => {
                self.rtnetlink.add_route(&unreachable(*ipv4, *table))?;
            }
            Step::Rule { .. } => {
                if let Some(rule) = rule(step) {
                    self.rtnetlink.add_rule(&rule)?;
                }
            }
            Step::Neighbour { address, mac } => {
                let index = self.tap()?;
                self.rtnetlink.set_neighbour(index, *address, *mac)?;
            }
            Step::Proxy { interface, address } => {
                let index = self
                    .index_of(interface)?
                    .ok_or_else(|| Error::host("LINK", interface, "no such interface"))?;
                self.rtnetlink.add_proxy(index, *address)?;
            }
            Step::Masquerade { network } => masquerade::add(self.nftables()?, *network)?,
            Step::Binding { text } => {
                let wrong = |error: &dyn std::fmt::Display| Error::Record {
                    path: self.bindings.join(&self.interface),
                    reason: error.to_string(),
                };
                let binding = agents::binding::parse(text).map_err(|error| wrong(&error))?;
                agents::binding::save(&self.bindings, &self.interface, &binding)
                    .map_err(|error| wrong(&error))?;
            }
        }
        Ok(())
    }

    /// Takes a step back. What is not there any more is a success, above all when the
    /// interface itself is gone.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn revert(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Sysctl { name, before, .. } => {
                if let (Some(before), Some(_)) = (before, self.index)
                    && let Some(now) = sysctl::read(name)?
                    && now != *before
                {
                    sysctl::write(name, before)?;
                }
            }
            Step::Link { before, .. } => {
                let Some(index) = self.index else {
                    return Ok(());
                };
                let master = match &before.bridge {
                    None => None,
                    Some(bridge) => self.index_of(bridge)?,
                };
                let change = LinkChange {
                    mtu: Some(before.mtu),
                    mac: Some(before.mac),
                    master: Some(master.unwrap_or(0)),
                    ..LinkChange::default()
                };
                self.rtnetlink
                    .change_link(index, &self.interface, &change)?;
            }
            Step::NoLinkLocalLearn { bridge, before } => {
                if let Some(link) = self.rtnetlink.link_by_name(bridge)?
                    && !before
                    && link.no_linklocal_learn == Some(true)
                {
                    self.rtnetlink
                        .set_no_linklocal_learn(link.index, bridge, false)?;
                }
            }
            // These go with the TAP's place in the bridge.
            Step::Port { .. } | Step::Vlans(_) => {}
            // Unless the guest has left for another node: then its place went with it.
            Step::Forwarding { mac, bridge, vlans } => {
                let Some(bridge) = self.index_of(bridge)? else {
                    return Ok(());
                };
                for vlan in vlans.iter().copied().map(Some).chain([None]) {
                    if let Some(place) = self.rtnetlink.forwarding_of(bridge, *mac, vlan)?
                        && place.is_static()
                    {
                        self.rtnetlink
                            .delete_forwarding(place.interface, *mac, vlan)?;
                    }
                }
            }
            Step::SwitchSource { bridge, mac } => {
                openflow::lift_limit(&self.switch_flows, bridge, *mac)?;
            }
            Step::SwitchPort { bridge, .. } => {
                openvswitch::delete_port(&self.switch, bridge, &self.interface)?;
            }
            Step::Rate { .. } => {
                if let Some(index) = self.index {
                    self.rtnetlink.delete_rate(index)?;
                }
            }
            Step::Reserve { bridged, address } => {
                let reserved = Reserved {
                    bridged: *bridged,
                    address: *address,
                };
                // Of what was never said there is nothing to take back.
                let said = !self.unsaid.contains(&reserved);
                self.forget(&reserved);
                if said {
                    let mut batch = Batch::new();
                    install::reserve(&mut batch, &reserved, false);
                    self.change_guard(&batch)?;
                }
            }
            Step::Guard(guard) => {
                self.guarded = Some(guard.clone());
                self.guard(None)?;
            }
            Step::Up => {
                if self.index.is_some() {
                    self.set_up(false)?;
                }
            }
            Step::Address { address } => {
                if let Some(index) = self.index {
                    self.rtnetlink.delete_address(index, *address)?;
                }
            }
            Step::Route { address, table } => {
                if let Some(index) = self.index {
                    let route = Route::host(*address, index, *table, PROTOCOL);
                    self.rtnetlink.delete_route(&route)?;
                }
            }
            Step::Refuse { ipv4, table } => {
                self.rtnetlink.delete_route(&unreachable(*ipv4, *table))?;
            }
            Step::Rule { .. } => {
                if let Some(rule) = rule(step) {
                    self.rtnetlink.delete_rule(&rule)?;
                }
            }
            Step::Neighbour { address, .. } => {
                if let Some(index) = self.index {
                    self.rtnetlink.delete_neighbour(index, *address)?;
                }
            }
            Step::Proxy { interface, address } => {
                let index = if *interface == self.interface {
                    self.index
                } else {
                    self.index_of(interface)?
                };
                if let Some(index) = index {
                    self.rtnetlink.delete_proxy(index, *address)?;
                }
            }
            Step::Masquerade { network } => masquerade::delete(self.nftables()?, *network)?,
            Step::Binding { .. } => {
                agents::binding::remove(&self.bindings, &self.interface)
                    .map_err(|error| Error::file(self.bindings.join(&self.interface), error))?;
            }
        }
        Ok(())
    }

    fn set_up(&mut self, up: bool) -> Result<()> {
        let change = LinkChange {
            up: Some(up),
            ..LinkChange::default()
        };
        let index = self.tap()?;
        self.down = false;
        Ok(self
            .rtnetlink
            .change_link(index, &self.interface, &change)?)
    }
}

/// The rule that a step makes; none if it makes none.
pub fn rule(step: &Step) -> Option<Rule> {
    let Step::Rule {
        ipv4,
        priority,
        input,
        source,
        table,
    } = step
    else {
        return None;
    };
    Some(Rule {
        ipv4: *ipv4,
        priority: *priority,
        input: input.clone(),
        output: None,
        source: source.map(|address| (address, if address.is_ipv4() { 32 } else { 128 })),
        destination: None,
        table: *table,
        protocol: PROTOCOL,
    })
}

fn unreachable(ipv4: bool, table: u32) -> Route {
    let all = if ipv4 {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    Route {
        destination: all,
        prefix_length: 0,
        table,
        interface: None,
        gateway: None,
        source: None,
        metric: Some(LAST_METRIC),
        kind: RouteKind::Unreachable,
        scope: RouteScope::Universe,
        protocol: PROTOCOL,
        on_link: false,
    }
}
