//! The places of guests in the forwarding tables of bridges, followed while guests move from node
//! to node.
//!
//! A guest's entry is static and sticky: no frame that comes in elsewhere moves it. So it is made
//! only when the guest is here, and unmade when the guest has left:
//!
//! - A guest that the bridge knows elsewhere when its NIC is connected is *awaited*. Its port
//!   learns until the guest is heard, which is from its own address alone, since the guard drops
//!   all others before the bridge learns. So the guest is found with its first frame, by the bridge
//!   itself; then the entry is made static and sticky, and learning ends.
//! - A guest whose address is heard on a port that is no guest's (the uplink: what a hypervisor
//!   announces a guest with that has moved, RFC 903, ARP, neighbour discovery) has left. It is
//!   awaited again, in case it comes back; the bridge then finds it where it speaks.

pub mod claim;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use agents::addr::MacAddr;
use agents::netlink::monitor::LinkEvent;
use agents::netlink::{Link, Neighbour, Rtnetlink};

use crate::config::Config;
use crate::error::Result;
use crate::record::Record;
use crate::run;
use claim::ClaimSocket;

/// After a claim that proved false, others about the same NIC are not heeded for so long: somebody
/// pretends to be the guest, or the network sends its frames back.
const DISTRUST: Duration = Duration::from_secs(60);

/// A NIC whose guest has one place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Nic {
    interface: String,
    instance: String,
    mac: MacAddr,
    /// Index of its bridge.
    bridge: u32,
    awaited: bool,
}

/// The places of the guests on all bridges.
#[derive(Debug, Default)]
pub struct Places {
    /// By index of the TAP.
    nics: BTreeMap<u32, Nic>,
    /// Ports of bridges that are no guest's, with their names and bridges, by index.
    ports: BTreeMap<u32, (String, u32)>,
    sockets: BTreeMap<u32, ClaimSocket>,
    /// NICs that are awaited because of a claim.
    released: BTreeSet<u32>,
    distrusted: BTreeMap<u32, Instant>,
}

impl Places {
    /// Looks at all links and records anew, and at what the bridges have learned meanwhile.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn look(&mut self, config: &Config) -> Result<()> {
        let mut rtnetlink = Rtnetlink::open()?;
        let links = rtnetlink.links()?;
        let there: BTreeSet<u32> = links.iter().map(|link| link.index).collect();
        self.nics.retain(|index, _| there.contains(index));
        self.ports.retain(|index, _| there.contains(index));
        self.released.retain(|index| there.contains(index));
        let now = Instant::now();
        self.distrusted
            .retain(|index, until| there.contains(index) && *until > now);
        for link in &links {
            self.note(link, config);
        }
        self.listen();
        self.look_for_awaited(&mut rtnetlink, config)
    }

    /// Follows what happened to an interface.
    pub fn link(&mut self, event: &LinkEvent, config: &Config) {
        match event {
            LinkEvent::Present(link) => {
                self.note(link, config);
                self.listen();
                // What was said before this was heard.
                if self.nics.get(&link.index).is_some_and(|nic| nic.awaited) {
                    let looked = Rtnetlink::open()
                        .map_err(Into::into)
                        .and_then(|mut rtnetlink| self.look_for_awaited(&mut rtnetlink, config));
                    if let Err(error) = looked {
                        tracing::warn!(interface = link.name, %error, "forwarding table");
                    }
                }
            }
            LinkEvent::Gone(link) => {
                self.nics.remove(&link.index);
                self.ports.remove(&link.index);
                self.released.remove(&link.index);
                self.distrusted.remove(&link.index);
                self.listen();
            }
        }
    }

    /// Follows what a bridge has learned: fixes the place of a guest that was awaited there.
    pub fn learned(&mut self, entry: &Neighbour, config: &Config) {
        let index = entry.interface;
        let Some(nic) = self.nics.get_mut(&index) else {
            return;
        };
        if !nic.awaited || entry.mac != Some(nic.mac) {
            return;
        }
        let (interface, instance) = (nic.interface.as_str(), nic.instance.as_str());
        match run::settle(interface, index, config) {
            Ok(true) => {
                tracing::info!(interface, instance, "the guest is here; its place is fixed");
                nic.awaited = false;
                if self.released.remove(&index) {
                    let until = Instant::now() + DISTRUST;
                    self.distrusted.insert(index, until);
                    tracing::warn!(
                        interface,
                        instance,
                        mac = %nic.mac,
                        "its address was used elsewhere though the guest is here"
                    );
                }
            }
            Ok(false) => nic.awaited = false,
            Err(error) => {
                tracing::warn!(interface, instance, %error, "its place could not be fixed");
            }
        }
    }

    /// The descriptors to be polled for [`Places::claims`].
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.values().map(ClaimSocket::as_fd)
    }

    /// Hears which guests have spoken elsewhere, and awaits them. Never waits.
    pub fn claims(&mut self, config: &Config) {
        let heard: Vec<(u32, MacAddr)> = self
            .sockets
            .iter()
            .flat_map(|(port, socket)| socket.sources().into_iter().map(|mac| (*port, mac)))
            .collect();
        for (port, mac) in heard {
            self.claimed(port, mac, config);
        }
    }

    fn claimed(&mut self, port: u32, mac: MacAddr, config: &Config) {
        let Some((name, bridge)) = self.ports.get(&port) else {
            return;
        };
        let now = Instant::now();
        let distrusted = &self.distrusted;
        let of_this = |index: &u32, nic: &Nic| {
            nic.mac == mac
                && nic.bridge == *bridge
                && !nic.awaited
                && distrusted.get(index).is_none_or(|until| *until <= now)
        };
        let Some((index, nic)) = self
            .nics
            .iter_mut()
            .find(|(index, nic)| of_this(index, nic))
        else {
            return;
        };
        let (interface, instance) = (nic.interface.as_str(), nic.instance.as_str());
        match run::release(interface, *index, config) {
            Ok(true) => {
                tracing::info!(
                    interface,
                    instance,
                    port = name,
                    "the guest is heard elsewhere; its place is given up"
                );
                nic.awaited = true;
                self.released.insert(*index);
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(interface, instance, %error, "its place could not be given up");
            }
        }
    }

    /// Notes what an interface is: a NIC of ours, a port that is no guest's, or neither.
    fn note(&mut self, link: &Link, config: &Config) {
        self.nics.remove(&link.index);
        self.ports.remove(&link.index);
        let Some(bridge) = link.master else {
            return;
        };
        if link.port_kind.as_deref() != Some("bridge") {
            return;
        }
        if link.kind.as_deref() != Some("tun") {
            self.ports.insert(link.index, (link.name.clone(), bridge));
            return;
        }
        let record = match Record::load(&config.state, &link.name) {
            Ok(Some(record)) if record.index == link.index => record,
            _ => return,
        };
        let awaited = record.awaits_guest();
        let mac = record
            .place()
            .or_else(|| record.guard().filter(|_| awaited).map(|guard| guard.mac));
        if let Some(mac) = mac {
            let nic = Nic {
                interface: record.interface,
                instance: record.instance,
                mac,
                bridge,
                awaited,
            };
            self.nics.insert(link.index, nic);
        }
    }

    /// Listens on the ports of bridges that have guests of ours, and on no others.
    fn listen(&mut self) {
        let bridges: BTreeSet<u32> = self.nics.values().map(|nic| nic.bridge).collect();
        let ports = &self.ports;
        let wanted = |port: &u32| {
            ports
                .get(port)
                .is_some_and(|(_, bridge)| bridges.contains(bridge))
        };
        self.sockets.retain(|port, _| wanted(port));
        for (port, (name, _)) in ports {
            if !wanted(port) || self.sockets.contains_key(port) {
                continue;
            }
            match ClaimSocket::open(*port) {
                Ok(socket) => {
                    self.sockets.insert(*port, socket);
                }
                Err(error) => tracing::warn!(
                    interface = name,
                    %error,
                    "not listened on: a guest that leaves by it is found when its TAP is gone"
                ),
            }
        }
    }

    /// Fixes the places of awaited guests that the bridges have learned already.
    fn look_for_awaited(&mut self, rtnetlink: &mut Rtnetlink, config: &Config) -> Result<()> {
        if !self.nics.values().any(|nic| nic.awaited) {
            return Ok(());
        }
        for entry in rtnetlink.forwarding()? {
            self.learned(&entry, config);
        }
        Ok(())
    }
}
