//! Which rule decides about a frame, and why: the rules as data, read as the kernel reads them.
//!
//! It is the same rules that are loaded ([`super::chains`], [`super::profile`]); what they look
//! up is asked of the kernel's sets as they are now. Nothing is learned or counted.

use std::collections::BTreeMap;
use std::fmt;

use agents::netlink::nftables::{
    Base, Element, Field, MetaKey, Operator, Statement, concat, interface_name,
};

use super::chains::GuardChain;

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It passes.
    Passes,
    /// It is dropped.
    Dropped,
}

/// How it came to that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What becomes of it.
    pub outcome: Outcome,
    /// The rules that matched, in order: chain, and what the rule is for.
    pub path: Vec<(String, &'static str)>,
    /// What the kernel remembers because of it: set and element.
    pub learned: Vec<(String, Element)>,
}

impl Explanation {
    /// Of a frame of an interface that nothing is checked of.
    pub const fn unguarded() -> Self {
        Self {
            outcome: Outcome::Passes,
            path: Vec::new(),
            learned: Vec::new(),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (chain, comment) in &self.path {
            writeln!(f, "{chain}: {comment}")?;
        }
        match (self.outcome, self.path.last()) {
            (Outcome::Dropped, Some((_, reason))) => writeln!(f, "dropped: {reason}"),
            (Outcome::Dropped, None) => writeln!(f, "dropped"),
            (Outcome::Passes, Some((_, reason))) => writeln!(f, "passes: {reason}"),
            (Outcome::Passes, None) => writeln!(f, "passes: no rule is for this interface"),
        }
    }
}

/// The elements of sets, by name.
pub type Sets = BTreeMap<String, Vec<Element>>;

const IPV6: u16 = 0x86dd;

/// A frame as netfilter sees it on a bridge or, if it is IP, behind a routed TAP.
pub struct Packet<'a> {
    frame: &'a [u8],
    interface: Vec<u8>,
    outgoing: bool,
    /// EtherType behind a VLAN tag that the kernel takes off.
    protocol: u16,
    network: usize,
    /// Number of the transport protocol, and where its header is, from the network header on;
    /// that is none in a further fragment.
    transport: Option<(u8, Option<usize>)>,
}

impl<'a> Packet<'a> {
    /// A frame that comes in by an interface or, if `outgoing`, goes out of it. None if it is
    /// shorter than its Ethernet header.
    pub fn new(frame: &'a [u8], interface: &str, outgoing: bool) -> Option<Self> {
        let mut protocol = number(frame, 12)?;
        let mut network = 14;
        if matches!(protocol, 0x8100 | 0x88a8) {
            // Of a tag that is cut off the kernel takes nothing, and the rules nothing either.
            if frame.len() >= 20 {
                protocol = number(frame, 16)?;
            }
            network = 18;
        }
        let packet = frame.get(network..).unwrap_or_default();
        let transport = match protocol {
            0x0800 => ipv4_transport(packet),
            0x86dd => ipv6_transport(packet),
            _ => None,
        };
        Some(Self {
            frame,
            interface: interface_name(interface),
            outgoing,
            protocol,
            network,
            transport,
        })
    }

    /// The bytes of a field; none if the kernel would not find it, so that no rule matches.
    fn field(&self, field: Field) -> Option<Vec<u8>> {
        let at = |start: usize, offset: u32, length: u32| -> Option<Vec<u8>> {
            let start = start.checked_add(usize::try_from(offset).ok()?)?;
            let end = start.checked_add(usize::try_from(length).ok()?)?;
            self.frame.get(start..end).map(<[u8]>::to_vec)
        };
        match field {
            Field::Payload {
                base,
                offset,
                length,
            } => match base {
                Base::Link => at(0, offset, length),
                Base::Network => at(self.network, offset, length),
                Base::Transport => at(self.network + self.transport?.1?, offset, length),
            },
            Field::Meta(MetaKey::InputName) => (!self.outgoing).then(|| self.interface.clone()),
            Field::Meta(MetaKey::OutputName) => self.outgoing.then(|| self.interface.clone()),
            Field::Meta(MetaKey::Protocol) => Some(self.protocol.to_be_bytes().to_vec()),
            Field::Meta(MetaKey::TransportProtocol) => Some(vec![self.transport?.0]),
            Field::Meta(MetaKey::Family) => match self.protocol {
                0x0800 => Some(vec![2]),
                0x86dd => Some(vec![10]),
                _ => None,
            },
            Field::Extension {
                header,
                offset,
                length,
            } => {
                let start = extension(self.frame.get(self.network..)?, header)?;
                at(self.network + start, offset, length)
            }
            // Whether a connection is known depends on packets before this one: taken for new.
            Field::ConnectionState => Some(8_u32.to_ne_bytes().to_vec()),
            Field::ExtensionHeader(header) => {
                let packet = self.frame.get(self.network..)?;
                let found = self.protocol == IPV6 && extension(packet, header).is_some();
                Some(vec![u8::from(found)])
            }
            Field::Meta(MetaKey::Length) => {
                let length = self.frame.len().checked_sub(self.network)?;
                Some(u32::try_from(length).ok()?.to_ne_bytes().to_vec())
            }
            Field::Meta(_) => None,
        }
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(pair.try_into().ok()?))
}

/// As `nft_set_pktinfo_ipv4_validate`: a header that cannot be has no transport.
fn ipv4_transport(packet: &[u8]) -> Option<(u8, Option<usize>)> {
    let first = *packet.first()?;
    let header = usize::from(first & 0x0f) * 4;
    let length = usize::from(number(packet, 2)?);
    if first >> 4 != 4 || header < 20 || packet.len() < length || length < header {
        return None;
    }
    let later = number(packet, 6)? & 0x1fff != 0;
    Some((*packet.get(9)?, (!later).then_some(header)))
}

/// As `nft_set_pktinfo_ipv6_validate` and `ipv6_find_hdr`, which stops at an authentication
/// header.
fn ipv6_transport(packet: &[u8]) -> Option<(u8, Option<usize>)> {
    if packet.first()? >> 4 != 6 || usize::from(number(packet, 4)?) + 40 > packet.len() {
        return None;
    }
    let mut next = *packet.get(6)?;
    let mut at = 40_usize;
    loop {
        match next {
            0 | 43 | 60 => {
                let length = usize::from(*packet.get(at + 1)?) * 8 + 8;
                next = *packet.get(at)?;
                at += length;
            }
            44 => {
                let offset = number(packet, at + 2)? & 0xfff8;
                let following = *packet.get(at)?;
                if offset != 0 {
                    let is_extension = matches!(following, 0 | 43 | 44 | 51 | 60);
                    return (!is_extension).then_some((following, None));
                }
                next = following;
                at += 8;
            }
            _ => return Some((next, Some(at))),
        }
    }
}

/// Returns the place of the first extension header of this number, from the IPv6 header on, as
/// `ipv6_find_hdr` looks for it.
fn extension(packet: &[u8], wanted: u8) -> Option<usize> {
    let mut next = *packet.get(6)?;
    let mut at = 40_usize;
    loop {
        let found = next == wanted;
        if !matches!(next, 0 | 43 | 44 | 51 | 60) {
            return found.then_some(at);
        }
        let words = usize::from(*packet.get(at + 1)?);
        if next == 44 && number(packet, at + 2)? & 0xfff8 != 0 {
            return found.then_some(at);
        }
        if found {
            return Some(at);
        }
        let length = match next {
            44 => 8,
            51 => (words + 2) * 4,
            _ => words * 8 + 8,
        };
        next = *packet.get(at)?;
        at += length;
    }
}

/// What a rule says of a packet.
enum Step {
    Next,
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

/// Jumps that follow one another at most, as in the kernel.
const DEEPEST: usize = 16;

/// Walks through the chains from `entry` on.
pub fn explain(
    chains: &[GuardChain],
    entry: &str,
    packet: &Packet<'_>,
    sets: &Sets,
) -> Explanation {
    let mut walk = Walk {
        chains,
        packet,
        sets,
        found: Explanation::unguarded(),
    };
    let decided = walk.chain(entry, 0);
    let mut found = walk.found;
    found.outcome = decided.unwrap_or(Outcome::Passes);
    found
}

struct Walk<'a> {
    chains: &'a [GuardChain],
    packet: &'a Packet<'a>,
    sets: &'a Sets,
    found: Explanation,
}

impl Walk<'_> {
    /// What the chain decides; none if it comes back undecided.
    fn chain(&mut self, name: &str, depth: usize) -> Option<Outcome> {
        if depth > DEEPEST {
            return Some(Outcome::Dropped);
        }
        let chains = self.chains;
        let chain = chains.iter().find(|chain| chain.name == name)?;
        for rule in &chain.rules {
            let step = self.rule(&rule.statements);
            if !matches!(step, Step::Next) {
                self.found.path.push((name.to_owned(), rule.comment));
            }
            match step {
                Step::Next => {}
                Step::Accept => return Some(Outcome::Passes),
                Step::Drop => return Some(Outcome::Dropped),
                Step::Return => return None,
                Step::Goto(to) => return self.chain(&to, depth + 1),
                Step::Jump(to) => {
                    if let Some(outcome) = self.chain(&to, depth + 1) {
                        return Some(outcome);
                    }
                }
            }
        }
        None
    }

    fn rule(&mut self, statements: &[Statement]) -> Step {
        for statement in statements {
            let goes_on = match statement {
                Statement::Match {
                    field,
                    mask,
                    operator,
                    value,
                } => self.packet.field(*field).is_some_and(|found| {
                    let found = masked(found, mask.as_deref());
                    match operator {
                        Operator::Equal => found == *value,
                        Operator::NotEqual => found != *value,
                        Operator::Less => found < *value,
                        Operator::AtMost => found <= *value,
                        Operator::Greater => found > *value,
                        Operator::AtLeast => found >= *value,
                    }
                }),
                Statement::Lookup { key, set, inverted } => {
                    let key = key.iter().map(|(field, mask)| (*field, mask.as_deref()));
                    let parts = self.parts(key);
                    parts.is_some_and(|parts| holds(self.sets.get(set), &parts) != *inverted)
                }
                Statement::Learn { key, set, .. } => {
                    match self.parts(key.iter().map(|field| (*field, None))) {
                        Some(parts) => {
                            let element = Element::key(joined(&parts));
                            self.found.learned.push((set.clone(), element));
                            true
                        }
                        None => false,
                    }
                }
                Statement::Counter | Statement::Log { .. } => true,
                // No guest is taken to be too fast.
                Statement::Limit { over, .. } => !over,
                Statement::Accept => return Step::Accept,
                Statement::Drop | Statement::Reject => return Step::Drop,
                Statement::Return => return Step::Return,
                Statement::Jump(to) => return Step::Jump(to.clone()),
                Statement::Goto(to) => return Step::Goto(to.clone()),
                _ => false,
            };
            if !goes_on {
                return Step::Next;
            }
        }
        Step::Next
    }

    fn parts<'b>(
        &self,
        key: impl Iterator<Item = (Field, Option<&'b [u8]>)>,
    ) -> Option<Vec<Vec<u8>>> {
        key.map(|(field, mask)| Some(masked(self.packet.field(field)?, mask)))
            .collect()
    }
}

fn masked(mut bytes: Vec<u8>, mask: Option<&[u8]>) -> Vec<u8> {
    for (byte, bits) in bytes.iter_mut().zip(mask.unwrap_or_default()) {
        *byte &= bits;
    }
    bytes
}

fn joined(parts: &[Vec<u8>]) -> Vec<u8> {
    match parts {
        [one] => one.clone(),
        several => {
            let slices: Vec<&[u8]> = several.iter().map(Vec::as_slice).collect();
            concat(&slices)
        }
    }
}

fn holds(set: Option<&Vec<Element>>, parts: &[Vec<u8>]) -> bool {
    let key = joined(parts);
    set.into_iter()
        .flatten()
        // No guest is taken to be too fast.
        .filter(|element| element.beyond.is_none())
        .any(|element| match &element.key_end {
            None => element.key == key,
            Some(end) => within(&element.key, end, &key, parts),
        })
}

/// A range of several parts holds what is within it in each part.
fn within(first: &[u8], last: &[u8], key: &[u8], parts: &[Vec<u8>]) -> bool {
    let mut at = 0;
    parts.iter().all(|part| {
        let end = at + part.len();
        let inside = match (first.get(at..end), last.get(at..end), key.get(at..end)) {
            (Some(first), Some(last), Some(found)) => first <= found && found <= last,
            _ => false,
        };
        at = end.next_multiple_of(4);
        inside
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use agents::netlink::nftables::Family;

    use super::*;
    use crate::guard::corpus::{self, Cast};
    use crate::guard::entry::{Guard, Reserved, Scope};
    use crate::guard::{chains, sets};

    fn cast() -> Cast {
        Cast {
            mac: "aa:00:00:e1:87:fc".parse().unwrap(),
            ipv4: "10.66.1.7".parse().unwrap(),
            ipv6: "fd66:1::a800:ff:fee1:87fc".parse().unwrap(),
            other_mac: "aa:00:00:00:00:09".parse().unwrap(),
            other_ipv4: "10.66.1.9".parse().unwrap(),
            other_ipv6: "fd66:1::a800:ff:fe00:9".parse().unwrap(),
            router_ipv4: "10.66.1.1".parse().unwrap(),
            router_ipv6: "fd66:1::1".parse().unwrap(),
        }
    }

    /// The sets as they are with this one guest.
    fn sets_of(cast: &Cast) -> Sets {
        let guard = Guard {
            bridged: true,
            scope: Scope::All,
            profile: None,
            mac: cast.mac,
            addresses: vec![
                cast.ipv4.into(),
                cast.ipv6.into(),
                agents::addr::link_local(cast.mac).into(),
            ],
            nets: Vec::new(),
            prefixes: vec!["fd66:1::/64".parse().unwrap(), "fe80::/64".parse().unwrap()],
            mac_prefix: None,
            vrrp: Vec::new(),
            trunk: false,
            isolated: None,
            rate: None,
        };
        let reserved = Reserved {
            bridged: true,
            address: cast.router_ipv6,
        };
        let mut found: Sets = BTreeMap::new();
        for member in guard.members("tap0").into_iter().chain([reserved.member()]) {
            found.entry(member.set).or_default().push(member.element);
        }
        for (name, elements) in sets::constant() {
            found.insert(name.to_owned(), elements);
        }
        found
    }

    #[test]
    fn each_frame_of_the_corpus_is_judged_as_the_kernel_does() {
        // The corpus is proven on the kernel: tests/guard.rs.
        let cast = cast();
        let mut sets = sets_of(&cast);
        let rules = chains::all(Family::Bridge);
        for case in corpus::bridged(&cast) {
            let packet = Packet::new(&case.frame, "tap0", false).unwrap();
            let found = explain(&rules, chains::ENTRY, &packet, &sets);
            assert_eq!(
                found.outcome == Outcome::Passes,
                case.passes,
                "{}: {found}",
                case.name
            );
            assert!(!found.path.is_empty());
            for (set, element) in found.learned {
                sets.entry(set).or_default().push(element);
            }
        }
    }

    #[test]
    fn any_bytes_are_judged_without_a_panic() {
        let cast = cast();
        let sets = sets_of(&cast);
        let rules = chains::all(Family::Bridge);
        // Every frame of the corpus, cut off anywhere, and with each byte of its head changed.
        for case in corpus::bridged(&cast) {
            for length in 0..case.frame.len() {
                let part = case.frame.get(..length).unwrap();
                if let Some(packet) = Packet::new(part, "tap0", false) {
                    explain(&rules, chains::ENTRY, &packet, &sets);
                }
            }
            for at in 12..case.frame.len().min(70) {
                for value in [0, 1, 0x2c, 0x3c, 0x33, 0x7f, 0xff] {
                    let mut bent = case.frame.clone();
                    bent[at] = value;
                    let packet = Packet::new(&bent, "tap0", false).unwrap();
                    explain(&rules, chains::ENTRY, &packet, &sets);
                }
            }
        }
    }
}
