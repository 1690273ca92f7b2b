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

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;

use agents::netlink::nftables::{
    Batch, Chain, Element, Family, Field, Hook, KeyType, Nftables, Set, Statement, Table,
    interface_name,
};

const BRIDGE: Table = Table::new(Family::Bridge, "nfdhcpd");
const INET: Table = Table::new(Family::Inet, "nfdhcpd");
const CHAIN: &str = "prerouting";
/// The set of either table.
const PORTS: &str = "interfaces";
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
    /// What the kernel's sets hold, as far as we know.
    present: BTreeMap<String, Attachment>,
    /// What they are to hold.
    wanted: BTreeMap<String, Attachment>,
}

impl Rules {
    /// Finds out what the kernel can do and loads the rules, for no interface yet; what was left
    /// of an earlier run is replaced. The queue must be bound before.
    ///
    /// # Errors
    /// What the kernel says, or that it can queue nothing at all.
    pub fn install(queue: u16, mark: u32) -> io::Result<Self> {
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
        let mut rules = Self {
            kernel,
            method,
            queue,
            mark,
            present: BTreeMap::new(),
            wanted: BTreeMap::new(),
        };
        rules.reload()?;
        Ok(rules)
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
        batch.add_rule(BRIDGE, CHAIN, &[not_ours, Statement::Accept]);
        for request in [DHCP4, DHCP6, ROUTER_SOLICITATION] {
            let ether_type: &[u8] = if request.ipv6 {
                &[0x86, 0xdd]
            } else {
                &[0x08, 0x00]
            };
            let mut rule = vec![Statement::equal(Field::ETHER_TYPE, ether_type)];
            rule.extend(request.matches());
            rule.extend([Statement::Counter, bridged.clone()]);
            batch.add_rule(BRIDGE, CHAIN, &rule);
        }
        if let Method::Target { .. } = self.method {
            let marked = Statement::equal(
                Field::Meta(agents::netlink::nftables::MetaKey::Mark),
                &self.mark.to_ne_bytes(),
            );
            batch.add_rule(
                INET,
                CHAIN,
                &[marked.clone(), Statement::Counter, routed.clone()],
            );
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
                Statement::equal(
                    Field::Meta(agents::netlink::nftables::MetaKey::Family),
                    &[family],
                ),
            ];
            rule.extend(request.matches());
            rule.extend([Statement::Counter, routed.clone()]);
            batch.add_rule(INET, CHAIN, &rule);
        }
    }

    /// Notes that the packets of this interface are wanted; [`apply`](Self::apply) does it.
    pub fn add(&mut self, interface: &str, attachment: Attachment) {
        self.wanted.insert(interface.to_owned(), attachment);
    }

    /// Notes that the packets of this interface are wanted no more.
    pub fn remove(&mut self, interface: &str) {
        self.wanted.remove(interface);
    }

    /// Makes the kernel's sets what is wanted.
    ///
    /// # Errors
    /// What the kernel says; nothing was changed then.
    pub fn apply(&mut self) -> io::Result<()> {
        if self.wanted == self.present {
            return Ok(());
        }
        let mut batch = Batch::new();
        for (interface, attachment) in &self.present {
            if self.wanted.get(interface) != Some(attachment) {
                let element = Element::key(interface_name(interface));
                batch.delete_elements(table(*attachment), PORTS, [element]);
            }
        }
        for (interface, attachment) in &self.wanted {
            if self.present.get(interface) != Some(attachment) {
                let element = Element::key(interface_name(interface));
                batch.add_elements(table(*attachment), PORTS, [element]);
            }
        }
        match self.kernel.commit(&batch) {
            Ok(()) => {
                self.present.clone_from(&self.wanted);
                Ok(())
            }
            // Somebody changed our tables: put them back whole.
            Err(error) if error.is_not_found() => self.reload(),
            Err(error) => Err(io::Error::other(error)),
        }
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
