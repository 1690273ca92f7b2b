//! Making the guard's tables, once for the host, and putting NICs into them.

use std::collections::{BTreeMap, BTreeSet};

use agents::addr::Ipv4Net;
use agents::netlink::Result;
use agents::netlink::nftables::{
    Batch, Chain, Element, Family, Field, Hook, KeyType, Nftables, Set, Statement, Table,
};

use super::chains::GuardChain;
use super::entry::{self, Guard, Reserved};
use super::profile::{Named, Tracking};
use super::{ARP, BRIDGE, INET, PRIORITY, chains, profile, sets};

const TABLES: [Table; 3] = [BRIDGE, INET, ARP];

/// The chains of a table: what guests may send, and what may come to them.
pub fn all_chains(table: Table, profiles: &[Named], tracked: bool) -> Vec<GuardChain> {
    let mut all = chains::all(table.family);
    if table.family != Family::Arp {
        all.extend(profile::chains(profiles, table.family, tracked));
    }
    all
}

/// A batch that makes a table with its sets and rules, and nothing of any NIC.
fn add_table(batch: &mut Batch, table: Table, profiles: &[Named], tracked: bool) {
    batch.add_table(table);
    sets::add(batch, table);
    if table.family != Family::Arp {
        for named in profiles {
            let name = profile::object(&named.name);
            batch.add_set(&Set::new(table, &name, &[KeyType::InterfaceName]));
        }
    }
    let all = all_chains(table, profiles, tracked);
    for chain in &all {
        let entry = match (table.family, chain.name.as_str()) {
            (Family::Arp, "input") => Some((Hook::Input, 0)),
            (_, chains::TO_BRIDGES) => Some((Hook::Input, PRIORITY)),
            (_, chains::ENTRY) => Some((Hook::Prerouting, PRIORITY)),
            (_, profile::ENTRY) => Some((Hook::Postrouting, 0)),
            _ => None,
        };
        match entry {
            Some((hook, priority)) => {
                batch.add_chain(&Chain::base(table, &chain.name, hook, priority));
            }
            None => {
                batch.add_chain(&Chain::regular(table, &chain.name));
            }
        }
    }
    for chain in &all {
        for rule in &chain.rules {
            batch.add_rule_named(table, &chain.name, &rule.statements, rule.comment);
        }
    }
}

/// Makes all tables anew, with these NICs in them, in one step: there is no moment without.
///
/// # Errors
/// What the kernel says; then everything is as before.
pub fn rebuild(nftables: &mut Nftables, profiles: &[Named], known: &Known) -> Result<()> {
    let tracked_bridge = tracks(nftables)?;
    let mut batch = Batch::new();
    for table in TABLES {
        if nftables.has_table(table)? {
            batch.delete_table(table);
        }
        let tracked = table.family != Family::Bridge || tracked_bridge;
        let profiles = known.profiles_in(table, profiles);
        add_table(&mut batch, table, profiles, tracked);
    }
    for reserved in &known.reserved {
        reserve(&mut batch, reserved, true);
    }
    for (interface, guard) in &known.nics {
        entry::change(&mut batch, interface, None, Some(guard));
    }
    nftables.commit(&batch)
}

/// Whether the kernel knows the state of connections on bridges.
///
/// # Errors
/// What it says.
pub fn tracks(nftables: &mut Nftables) -> Result<bool> {
    nftables.supports(Family::Bridge, Hook::Postrouting, &[tracking()])
}

/// The sets that rules look something up in.
pub fn set_names(chains: &[GuardChain]) -> BTreeSet<String> {
    let statements = chains
        .iter()
        .flat_map(|chain| &chain.rules)
        .flat_map(|rule| &rule.statements);
    statements
        .filter_map(|statement| match statement {
            Statement::Lookup { set, .. } => Some(set.clone()),
            _ => None,
        })
        .collect()
}

/// A statement that only a table that knows the state of connections takes.
fn tracking() -> Statement {
    Statement::equal(Field::ConnectionState, &2_u32.to_ne_bytes())
}

/// What the guard is to know.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// NICs by interface.
    pub nics: Vec<(String, Guard)>,
    /// Addresses that no guest can take.
    pub reserved: Vec<Reserved>,
    /// Networks whose guests speak to the outside in the host's name.
    pub masqueraded: Vec<Ipv4Net>,
}

impl Known {
    /// Which of the profiles a table has. Rules that ask for the state of connections make the
    /// kernel track all of the host's: not for hosts that route no guest with a profile.
    pub fn profiles_in<'a>(&self, table: Table, all: &'a [Named]) -> &'a [Named] {
        let routed = |guard: &Guard| !guard.bridged && guard.profile.is_some();
        if table.family == Family::Bridge || self.nics.iter().any(|(_, guard)| routed(guard)) {
            all
        } else {
            &[]
        }
    }
}

/// Puts into a batch that nobody can take an address, or no longer.
pub fn reserve(batch: &mut Batch, reserved: &Reserved, add: bool) {
    let member = reserved.member();
    if add {
        batch.add_elements(member.table, &member.set, [member.element]);
    } else {
        batch.delete_elements(member.table, &member.set, [member.element]);
    }
}

/// Whether a table has all chains and rules that it should have.
///
/// # Errors
/// What the kernel says.
pub fn is_whole(nftables: &mut Nftables, profiles: &[Named], table: Table) -> Result<bool> {
    let found = nftables.rules(table)?;
    let is_as = |tracked: bool| {
        all_chains(table, profiles, tracked).iter().all(|chain| {
            let comments = found
                .iter()
                .filter(|rule| rule.chain == chain.name)
                .map(|rule| rule.comment.as_str());
            comments.eq(chain.rules.iter().map(|rule| rule.comment))
        })
    };
    Ok(is_as(true) || (table.family == Family::Bridge && is_as(false)))
}

/// Returns how the profiles of a table's rules, as they are in the kernel, tell answers.
///
/// # Errors
/// The kernel's answer.
pub fn tracking_of(nftables: &mut Nftables, table: Table) -> Result<Option<Tracking>> {
    let rules = nftables.rules(table)?;
    let of_profiles = rules
        .iter()
        .filter(|rule| rule.chain.starts_with(profile::PREFIX));
    Ok(Tracking::of_rules(
        of_profiles.map(|rule| rule.comment.as_str()),
    ))
}

/// Whether all tables have their rules, and all that is known is in their sets.
///
/// # Errors
/// What the kernel says.
pub fn is_complete(nftables: &mut Nftables, profiles: &[Named], known: &Known) -> Result<bool> {
    for table in TABLES {
        if !is_whole(nftables, known.profiles_in(table, profiles), table)? {
            return Ok(false);
        }
    }
    let mut wanted: BTreeMap<(Table, String), BTreeSet<Element>> = BTreeMap::new();
    let nics = known.nics.iter();
    let members = nics.flat_map(|(interface, guard)| guard.members(interface));
    for member in members.chain(known.reserved.iter().map(Reserved::member)) {
        let set = wanted.entry((member.table, member.set)).or_default();
        set.insert(member.element);
    }
    for ((table, set), elements) in wanted {
        let found: BTreeSet<Element> = nftables.elements(table, &set)?.into_iter().collect();
        if !elements.is_subset(&found) {
            return Ok(false);
        }
    }
    Ok(true)
}
