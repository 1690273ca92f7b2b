//! Firewall profiles: what may come to a guest.
//!
//! A profile is a chain of each table, made from the configuration; a NIC is in the profile's
//! set. On the way to the guest an inet table knows connections; a bridge's only where the
//! kernel tracks them there. Elsewhere the classic stateless rules stand for "established":
//! TCP that does not open a connection, and datagrams from the ports of DNS and NTP.

use agents::netlink::nftables::{Family, Field, MetaKey, Operator, Statement};
use serde::{Deserialize, Serialize};

use super::chains::{GuardChain, GuardRule};

/// What a profile lets in. What is an answer, and what a link needs to work (ARP, neighbour
/// discovery, errors, leases), always comes in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// Everything.
    pub all: bool,
    /// Echo requests.
    pub ping: bool,
    /// TCP connections to these ports.
    pub tcp: Vec<u16>,
    /// UDP datagrams to these ports.
    pub udp: Vec<u16>,
}

/// The means by which a table's rules tell answers from unsolicited packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tracking {
    /// By the state of connections.
    Stateful,
    /// By the packet alone: TCP without SYN, UDP from the ports of DNS and NTP.
    Stateless,
}

impl Tracking {
    /// Returns the variant that rules with these comments are of; none if no profile in the
    /// table holds anything back.
    pub fn of_rules<'a>(mut comments: impl Iterator<Item = &'a str>) -> Option<Self> {
        comments.find_map(|comment| match comment {
            STATEFUL => Some(Self::Stateful),
            STATELESS => Some(Self::Stateless),
            _ => None,
        })
    }

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stateful => "stateful",
            Self::Stateless => "stateless",
        }
    }
}

const STATEFUL: &str = "answers";
const STATELESS: &str = "TCP that opens no connection";

/// A profile with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Name, as tags have it.
    pub name: String,
    /// What it lets in.
    pub profile: Profile,
}

/// The beginning of the names of profiles' chains and sets.
pub const PREFIX: &str = "to-";

/// The name of a profile's chain and set.
pub fn object(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// Whether a name can be a profile's: it becomes part of the names of a chain and a set.
pub fn is_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

const TRANSPORT: Field = Field::Meta(MetaKey::TransportProtocol);
const TRANSPORT_TYPE: Field = Field::transport(0, 1);
const ANY_FRAGMENT_BUT_THE_FIRST: [u8; 2] = [0x1f, 0xff];

/// The chains of the profiles, and last the one that hangs at the hook.
///
/// `tracked`: the table knows the state of connections.
pub fn chains(profiles: &[Named], family: Family, tracked: bool) -> Vec<GuardChain> {
    let mut chains: Vec<GuardChain> = profiles
        .iter()
        .map(|named| chain(named, family, tracked))
        .collect();
    let mut rules = super::chains::first_of(family, false);
    rules.extend(profiles.iter().map(|named| GuardRule {
        comment: "by profile",
        statements: vec![
            Statement::in_set(&[Field::OUTPUT_NAME], &object(&named.name)),
            Statement::Goto(object(&named.name)),
        ],
    }));
    chains.push(GuardChain {
        name: ENTRY.to_owned(),
        rules,
    });
    chains
}

/// The chain that hangs at the hook.
pub const ENTRY: &str = "postrouting";

fn chain(named: &Named, family: Family, tracked: bool) -> GuardChain {
    let mut rules = Vec::new();
    let mut accept = |comment: &'static str, mut statements: Vec<Statement>| {
        statements.push(Statement::Accept);
        rules.push(GuardRule {
            comment,
            statements,
        });
    };
    let profile = &named.profile;
    if profile.all {
        accept("everything", Vec::new());
    } else {
        let four = || ip(family, true);
        let six = || ip(family, false);
        let with = |first: Statement, rest: &[Statement]| {
            let mut all = vec![first];
            all.extend_from_slice(rest);
            all
        };
        let transport = |number: u8| Statement::equal(TRANSPORT, &[number]);
        if family == Family::Bridge {
            accept("ARP", vec![Statement::equal(Field::ETHER_TYPE, &[8, 6])]);
        }
        for kind in [0, 3, 11, 12] {
            let kind = Statement::equal(TRANSPORT_TYPE, &[kind]);
            accept(
                "ICMP answers and errors",
                with(four(), &[transport(1), kind]),
            );
        }
        for (first, last) in [(1, 4), (129, 136), (143, 143)] {
            let from = Statement::compare(TRANSPORT_TYPE, Operator::AtLeast, &[first]);
            let to = Statement::compare(TRANSPORT_TYPE, Operator::AtMost, &[last]);
            accept(
                "ICMPv6 answers and errors, neighbour discovery, listeners",
                with(six(), &[transport(58), from, to]),
            );
        }
        if profile.ping {
            let echo = |number| Statement::equal(TRANSPORT_TYPE, &[number]);
            accept("ping", with(four(), &[transport(1), echo(8)]));
            accept("ping", with(six(), &[transport(58), echo(128)]));
        }
        let ports = |from: u16, to: u16| {
            let mut ports = from.to_be_bytes().to_vec();
            ports.extend(to.to_be_bytes());
            Statement::equal(Field::transport(0, 4), &ports)
        };
        // To a routed guest nfdhcpd's answers go past these rules, straight into the interface,
        // and those to its renewals are answers; what comes from port 67 else comes from outside.
        if family == Family::Bridge {
            accept("leases", with(four(), &[transport(17), ports(67, 68)]));
            accept("leases", with(six(), &[transport(17), ports(547, 546)]));
        }
        if tracked {
            // Established 2, related 4: the bits are in host order.
            let mask = 6_u32.to_ne_bytes();
            let state =
                Statement::masked(Field::ConnectionState, &mask, Operator::NotEqual, &[0; 4]);
            accept(STATEFUL, vec![state]);
        } else {
            // SYN without ACK opens a connection.
            let opens_not = Statement::masked(
                Field::transport(13, 1),
                &[0x12],
                Operator::NotEqual,
                &[0x02],
            );
            accept(STATELESS, vec![transport(6), opens_not]);
            for port in [53_u16, 123] {
                let source = Statement::equal(Field::transport(0, 2), &port.to_be_bytes());
                accept("answers of DNS and NTP", vec![transport(17), source]);
            }
            let later = Statement::masked(
                Field::network(6, 2),
                &ANY_FRAGMENT_BUT_THE_FIRST,
                Operator::NotEqual,
                &[0, 0],
            );
            accept("further fragments", with(four(), &[later]));
            let offset = Field::Extension {
                header: 44,
                offset: 2,
                length: 2,
            };
            let later = Statement::masked(offset, &[0xff, 0xf8], Operator::NotEqual, &[0, 0]);
            accept("further fragments", with(six(), &[later]));
        }
        for (number, ports) in [(6, &profile.tcp), (17, &profile.udp)] {
            for port in ports {
                let to = Statement::equal(Field::transport(2, 2), &port.to_be_bytes());
                accept("a port of the profile", vec![transport(number), to]);
            }
        }
        rules.push(GuardRule {
            comment: "not in the profile",
            statements: vec![Statement::Counter, Statement::Drop],
        });
    }
    GuardChain {
        name: object(&named.name),
        rules,
    }
}

fn ip(family: Family, four: bool) -> Statement {
    if family == Family::Bridge {
        let kind = if four { [0x08, 0x00] } else { [0x86, 0xdd] };
        Statement::equal(Field::Meta(MetaKey::Protocol), &kind)
    } else {
        Statement::equal(Field::Meta(MetaKey::Family), &[if four { 2 } else { 10 }])
    }
}
