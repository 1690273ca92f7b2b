//! Making the guard's tables, once for the host, and putting NICs into them.

use std::collections::{BTreeMap, BTreeSet};

use agents::netlink::Result;
use agents::netlink::nftables::{Batch, Chain, Element, Family, Hook, Nftables, Table};

use super::entry::{self, Guard, Reserved};
use super::{ARP, BRIDGE, INET, PRIORITY, chains, sets};

const TABLES: [Table; 3] = [BRIDGE, INET, ARP];

/// A batch that makes a table with its sets and rules, and nothing of any NIC.
fn add_table(batch: &mut Batch, table: Table) {
    batch.add_table(table);
    sets::add(batch, table);
    let all = chains::all(table.family);
    for chain in &all {
        let entry = match (table.family, chain.name) {
            (Family::Arp, "input") => Some((Hook::Input, 0)),
            (_, chains::ENTRY) => Some((Hook::Prerouting, PRIORITY)),
            _ => None,
        };
        match entry {
            Some((hook, priority)) => {
                batch.add_chain(&Chain::base(table, chain.name, hook, priority));
            }
            None => {
                batch.add_chain(&Chain::regular(table, chain.name));
            }
        }
    }
    for chain in &all {
        for rule in &chain.rules {
            batch.add_rule_named(table, chain.name, &rule.statements, rule.comment);
        }
    }
}

/// Makes all tables anew, with these NICs in them, in one step: there is no moment without.
///
/// # Errors
/// What the kernel says; then everything is as before.
pub fn rebuild(nftables: &mut Nftables, known: &Known) -> Result<()> {
    let mut batch = Batch::new();
    for table in TABLES {
        if nftables.has_table(table)? {
            batch.delete_table(table);
        }
        add_table(&mut batch, table);
    }
    for reserved in &known.reserved {
        reserve(&mut batch, reserved, true);
    }
    for (interface, guard) in &known.nics {
        entry::change(&mut batch, interface, None, Some(guard));
    }
    nftables.commit(&batch)
}

/// What the guard is to know.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// NICs by interface.
    pub nics: Vec<(String, Guard)>,
    /// Addresses that no guest can take.
    pub reserved: Vec<Reserved>,
}

/// Puts into a batch that nobody can take an address, or no longer.
pub fn reserve(batch: &mut Batch, reserved: &Reserved, add: bool) {
    let member = reserved.member();
    if add {
        batch.add_elements(member.table, member.set, [member.element]);
    } else {
        batch.delete_elements(member.table, member.set, [member.element]);
    }
}

/// Whether a table has all chains and rules that it should have.
///
/// # Errors
/// What the kernel says.
pub fn is_whole(nftables: &mut Nftables, table: Table) -> Result<bool> {
    let found = nftables.rules(table)?;
    Ok(chains::all(table.family).iter().all(|chain| {
        let comments = found
            .iter()
            .filter(|rule| rule.chain == chain.name)
            .map(|rule| rule.comment.as_str());
        comments.eq(chain.rules.iter().map(|rule| rule.comment))
    }))
}

/// Whether all tables have their rules, and all that is known is in their sets.
///
/// # Errors
/// What the kernel says.
pub fn is_complete(nftables: &mut Nftables, known: &Known) -> Result<bool> {
    for table in TABLES {
        if !is_whole(nftables, table)? {
            return Ok(false);
        }
    }
    let mut wanted: BTreeMap<(Table, &str), BTreeSet<Element>> = BTreeMap::new();
    let nics = known.nics.iter();
    let members = nics.flat_map(|(interface, guard)| guard.members(interface));
    for member in members.chain(known.reserved.iter().map(Reserved::member)) {
        let set = wanted.entry((member.table, member.set)).or_default();
        set.insert(member.element);
    }
    for ((table, set), elements) in wanted {
        let found: BTreeSet<Element> = nftables.elements(table, set)?.into_iter().collect();
        if !elements.is_subset(&found) {
            return Ok(false);
        }
    }
    Ok(true)
}
