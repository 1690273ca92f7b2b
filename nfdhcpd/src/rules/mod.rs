//! The nftables rules that queue guests' packets to us, and nothing else.
//!
//! They are in two tables of our own, `bridge nfdhcpd` and `inet nfdhcpd`. An interface is an
//! element of a set, so that adding one costs the same however many there are. What is queued is
//! only what we answer, only from interfaces with a binding, and with `bypass`: without a
//! listener packets go on.
//!
//! Bridged interfaces need `queue` in the bridge family. A kernel without it has the xtables
//! target in the inet family, which sees bridged packets if br_netfilter hands them there; but
//! then their interface is the bridge. So the bridge family marks what is to be queued, by port,
//! and the inet family queues by the mark.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::time::Duration;

use agents::netlink::nftables::{
    Batch, Chain, Element, Family, Field, Hook, KeyType, LimitUnit, MetaKey, Nftables, Set,
    Statement, Table, interface_name,
};

use crate::limit::Rate;

const BRIDGE: Table = Table::new(Family::Bridge, "nfdhcpd");
const INET: Table = Table::new(Family::Inet, "nfdhcpd");
const CHAIN: &str = "prerouting";
/// The set of either table.
const PORTS: &str = "interfaces";
/// The chain of either table for the packets that we answer.
const ASK: &str = "ask";
/// The set of either table in which the kernel keeps each interface's rate, for how long, and how
/// many at most.
const RATES: &str = "rates";
const FORGET: Duration = Duration::from_secs(60);
const RATES_SIZE: u32 = 65_536;
/// The comment of the rules that drop what is over the rate.
const OVER: &str = "over the rate of one guest";
/// Behind the anti-spoofing rules of ifup (-310), before br_netfilter and connection tracking.
const PRIORITY: i32 = -290;

/// How an interface's packets reach us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// It is a port of a bridge.
    Bridged,
    /// The host routes for it.
    Routed,
}

/// What this kernel can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `queue` in all families.
    Native,
    /// The xtables target `NFQUEUE`, and br_netfilter for bridged interfaces.
    Target {
        /// Whether br_netfilter could be turned on.
        bridged: bool,
    },
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native queue",
            Self::Target { bridged: true } => "xtables NFQUEUE, bridged interfaces by br_netfilter",
            Self::Target { bridged: false } => "xtables NFQUEUE, routed interfaces only",
        })
    }
}

/// Our rules in the kernel.
pub struct Rules {
    kernel: Nftables,
    method: Method,
    queue: u16,
    mark: u32,
    can_limit: bool,
    rate: Option<Rate>,
    /// Packets over the rate: in all, and of them those that the rules at hand have counted.
    limited_before: u64,
    limited_now: u64,
    /// What the kernel's sets hold, as far as we know.
    present: BTreeMap<String, Attachment>,
    /// What they are to hold.
    wanted: BTreeMap<String, Attachment>,
    /// The interfaces for which the two may differ: with thousands of interfaces, looking at all
    /// would cost more than anything else that is done for a packet.
    touched: BTreeSet<String>,
}

impl Rules {
    /// Finds out what the kernel can do and loads the rules, for no interface yet; what was left
    /// of an earlier run is replaced. The queue must be bound before.
    /// More than `rate` of one guest is dropped by the rules.
    ///
    /// # Errors
    /// What the kernel says, or that it can queue nothing at all.
    pub fn install(queue: u16, mark: u32, rate: Option<Rate>) -> io::Result<Self> {
        let mut kernel = Nftables::open().map_err(io::Error::other)?;
        let native = Statement::Queue {
            number: queue,
            total: 1,
            bypass: true,
        };
        let target = Statement::TargetQueue {
            number: queue,
            total: 1,
            bypass: true,
        };
        let mut supports = |family, statement: &Statement| {
            kernel
                .supports(family, Hook::Prerouting, std::slice::from_ref(statement))
                .map_err(io::Error::other)
        };
        let method = if supports(Family::Bridge, &native)? && supports(Family::Inet, &native)? {
            Method::Native
        } else if supports(Family::Inet, &target)? {
            Method::Target {
                bridged: enable_br_netfilter(),
            }
        } else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the kernel has neither nft_queue nor xt_NFQUEUE",
            ));
        };
        let limit = Statement::Limit {
            rate: 1,
            seconds: 1,
            unit: LimitUnit::Packets,
            burst: 1,
            over: true,
        };
        let can_limit = supports(Family::Bridge, &limit)? && supports(Family::Inet, &limit)?;
        if rate.is_some() && !can_limit {
            tracing::warn!(
                "the kernel has no nft_limit: a guest's rate is limited by the daemon alone"
            );
        }
        let mut rules = Self {
            kernel,
            method,
            queue,
            mark,
            can_limit,
            rate: rate.filter(|_| can_limit),
            limited_before: 0,
            limited_now: 0,
            present: BTreeMap::new(),
            wanted: BTreeMap::new(),
            touched: BTreeSet::new(),
        };
        rules.reload()?;
        Ok(rules)
    }

    /// Holds guests to another rate.
    ///
    /// # Errors
    /// What the kernel says; the old rate stays then.
    pub fn set_rate(&mut self, rate: Option<Rate>) -> io::Result<()> {
        let rate = rate.filter(|_| self.can_limit);
        if rate == self.rate {
            return Ok(());
        }
        let old = std::mem::replace(&mut self.rate, rate);
        self.reload().inspect_err(|_| self.rate = old)
    }

    /// How packets reach us on this kernel.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Loads tables, chains and the interfaces that were wanted so far, in one piece.
    ///
    /// # Errors
    /// What the kernel says; nothing was changed then.
    pub fn reload(&mut self) -> io::Result<()> {
        let mut batch = Batch::new();
        for table in [BRIDGE, INET] {
            // "Add" first, so that deleting what is not there does not fail.
            batch.add_table(table).delete_table(table).add_table(table);
            batch.add_set(&Set::new(table, PORTS, &[KeyType::InterfaceName]));
            batch.add_set(
                &Set::new(table, RATES, &[KeyType::InterfaceName])
                    .dynamic()
                    .timeout(FORGET)
                    .size(RATES_SIZE),
            );
            batch.add_chain(&Chain::regular(table, ASK));
            batch.add_chain(&Chain::base(table, CHAIN, Hook::Prerouting, PRIORITY));
        }
        self.add_rules(&mut batch);
        for (interface, attachment) in &self.wanted {
            batch.add_elements(
                table(*attachment),
                PORTS,
                [Element::key(interface_name(interface))],
            );
        }
        self.kernel.commit(&batch).map_err(io::Error::other)?;
        self.present.clone_from(&self.wanted);
        self.touched.clear();
        Ok(())
    }

    fn add_rules(&self, batch: &mut Batch) {
        let ours = Statement::in_set(&[Field::INPUT_NAME], PORTS);
        let not_ours = Statement::not_in_set(&[Field::INPUT_NAME], PORTS);
        let (bridged, routed) = match self.method {
            Method::Native => {
                let queue = Statement::Queue {
                    number: self.queue,
                    total: 1,
                    bypass: true,
                };
                (queue.clone(), queue)
            }
            Method::Target { .. } => (
                Statement::SetMark(self.mark),
                Statement::TargetQueue {
                    number: self.queue,
                    total: 1,
                    bypass: true,
                },
            ),
        };
        self.add_ask_chain(BRIDGE, bridged, batch);
        self.add_ask_chain(INET, routed.clone(), batch);

        batch.add_rule(BRIDGE, CHAIN, &[not_ours, Statement::Accept]);
        for request in [DHCP4, DHCP6, ROUTER_SOLICITATION] {
            let ether_type: &[u8] = if request.ipv6 {
                &[0x86, 0xdd]
            } else {
                &[0x08, 0x00]
            };
            let mut rule = vec![Statement::equal(Field::ETHER_TYPE, ether_type)];
            rule.extend(request.matches());
            rule.push(Statement::Goto(ASK.to_owned()));
            batch.add_rule(BRIDGE, CHAIN, &rule);
        }
        if let Method::Target { .. } = self.method {
            let marked = Statement::equal(Field::Meta(MetaKey::Mark), &self.mark.to_ne_bytes());
            batch.add_rule(INET, CHAIN, &[marked.clone(), routed]);
            // Nobody listened: the mark has done its work, and is nobody else's business.
            batch.add_rule(INET, CHAIN, &[marked, Statement::SetMark(0)]);
        }
        for request in [DHCP4, DHCP6, ROUTER_SOLICITATION, NEIGHBOR_SOLICITATION] {
            let family = if request.ipv6 {
                libc::NFPROTO_IPV6
            } else {
                libc::NFPROTO_IPV4
            };
            let family = u8::try_from(family).unwrap_or_default();
            let mut rule = vec![
                ours.clone(),
                Statement::equal(Field::Meta(MetaKey::Family), &[family]),
            ];
            rule.extend(request.matches());
            rule.push(Statement::Goto(ASK.to_owned()));
            batch.add_rule(INET, CHAIN, &rule);
        }
    }

    /// The chain for what we answer: what is more than a guest's rate ends here, before it costs us
    /// anything, and the rest comes to us.
    fn add_ask_chain(&self, table: Table, queue: Statement, batch: &mut Batch) {
        if let Some(rate) = self.rate {
            batch.add_rule_named(
                table,
                ASK,
                &[
                    Statement::Meter {
                        key: vec![Field::INPUT_NAME],
                        set: RATES.to_owned(),
                        rate: rate.events.into(),
                        seconds: 1,
                        burst: rate.burst,
                    },
                    Statement::Counter,
                    Statement::Drop,
                ],
                OVER,
            );
        }
        batch.add_rule(table, ASK, &[Statement::Counter, queue]);
    }

    /// How many packets the rules have dropped since guests sent more than they may.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn limited(&mut self) -> io::Result<u64> {
        let mut now = 0;
        for table in [BRIDGE, INET] {
            let rules = self.kernel.rules(table).map_err(io::Error::other)?;
            let over = rules.iter().filter(|rule| rule.comment == OVER);
            now += over
                .filter_map(|rule| rule.counter)
                .map(|(packets, _)| packets)
                .sum::<u64>();
        }
        // Rules that were loaded anew count from 0.
        self.limited_before += now.checked_sub(self.limited_now).unwrap_or(now);
        self.limited_now = now;
        Ok(self.limited_before)
    }

    /// Notes that the packets of this interface are wanted; [`apply`](Self::apply) does it.
    pub fn add(&mut self, interface: &str, attachment: Attachment) {
        if self.wanted.get(interface) != Some(&attachment) {
            self.wanted.insert(interface.to_owned(), attachment);
            self.touched.insert(interface.to_owned());
        }
    }

    /// Notes that the packets of this interface are wanted no more.
    pub fn remove(&mut self, interface: &str) {
        if self.wanted.remove(interface).is_some() {
            self.touched.insert(interface.to_owned());
        }
    }

    /// Makes the kernel's sets what is wanted.
    ///
    /// # Errors
    /// What the kernel says; nothing was changed then, and the next call tries again.
    pub fn apply(&mut self) -> io::Result<()> {
        if self.touched.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        let changed =
            |interface: &&String| self.present.get(*interface) != self.wanted.get(*interface);
        for interface in self.touched.iter().filter(changed) {
            let element = || [Element::key(interface_name(interface))];
            if let Some(attachment) = self.present.get(interface) {
                batch.delete_elements(table(*attachment), PORTS, element());
            }
            if let Some(attachment) = self.wanted.get(interface) {
                batch.add_elements(table(*attachment), PORTS, element());
            }
        }
        match self.kernel.commit(&batch) {
            Ok(()) => {}
            // Somebody changed our tables: put them back whole.
            Err(error) if error.is_not_found() => return self.reload(),
            Err(error) => return Err(io::Error::other(error)),
        }
        for interface in std::mem::take(&mut self.touched) {
            match self.wanted.get(&interface) {
                Some(attachment) => self.present.insert(interface, *attachment),
                None => self.present.remove(&interface),
            };
        }
        Ok(())
    }

    /// Takes our tables out of the kernel.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn uninstall(mut self) -> io::Result<()> {
        let mut batch = Batch::new();
        for table in [BRIDGE, INET] {
            batch.add_table(table).delete_table(table);
        }
        self.kernel.commit(&batch).map_err(io::Error::other)
    }

    /// Whether our tables are in the kernel.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn are_present(&mut self) -> io::Result<bool> {
        for table in [BRIDGE, INET] {
            if self
                .kernel
                .chains(table)
                .map_err(io::Error::other)?
                .is_empty()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn table(attachment: Attachment) -> Table {
    match attachment {
        Attachment::Bridged => BRIDGE,
        Attachment::Routed => INET,
    }
}

/// A kind of packet that we answer, as a rule sees it.
#[derive(Clone, Copy)]
struct Request {
    ipv6: bool,
    /// The transport protocol, directly behind the IP header.
    protocol: u8,
    /// Offset in the transport header, and what is there.
    at: u32,
    value: &'static [u8],
}

const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const DHCP4: Request = Request {
    ipv6: false,
    protocol: UDP,
    at: 2,
    value: &67_u16.to_be_bytes(),
};
const DHCP6: Request = Request {
    ipv6: true,
    protocol: UDP,
    at: 2,
    value: &547_u16.to_be_bytes(),
};
const ROUTER_SOLICITATION: Request = Request {
    ipv6: true,
    protocol: ICMPV6,
    at: 0,
    value: &[133],
};
const NEIGHBOR_SOLICITATION: Request = Request {
    ipv6: true,
    protocol: ICMPV6,
    at: 0,
    value: &[135],
};

impl Request {
    fn matches(self) -> [Statement; 2] {
        let protocol_at = if self.ipv6 { 6 } else { 9 };
        let length = u32::try_from(self.value.len()).unwrap_or_default();
        [
            Statement::equal(Field::network(protocol_at, 1), &[self.protocol]),
            Statement::equal(Field::transport(self.at, length), self.value),
        ]
    }
}

/// Lets the inet family see bridged packets. Says whether it does.
fn enable_br_netfilter() -> bool {
    ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"].iter().all(|name| {
        let path = format!("/proc/sys/net/bridge/{name}");
        match fs::read_to_string(&path) {
            Ok(value) if value.trim() == "1" => true,
            Ok(_) => match fs::write(&path, "1") {
                Ok(()) => {
                    tracing::warn!(
                        "set net.bridge.{name}=1: this kernel cannot queue bridged packets else; \
                         the host's other iptables and inet rules see bridged packets too now"
                    );
                    true
                }
                Err(error) => {
                    tracing::error!("{path}: {error}: bridged interfaces get no answers");
                    false
                }
            },
            Err(error) => {
                tracing::error!(
                    "{path}: {error}: load br_netfilter, else bridged interfaces get no answers"
                );
                false
            }
        }
    })
}
