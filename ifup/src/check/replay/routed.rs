//! Guests behind a router: what gets past the guard, before the host does anything with it.

use std::io::Write as _;

use agents::addr::MacAddr;
use agents::netlink::nftables::{
    Batch, Chain, Family, Field, Hook, Nftables, Statement, Table, interface_name,
};
use agents::netlink::{LinkChange, Rtnetlink};

use super::super::tap;
use super::{Guest, Misjudged};
use crate::error::Result;
use crate::guard::PRIORITY;
use crate::sysctl;

/// Tables that count, behind the guard's at its own hooks.
const SEEN: [(Table, Hook, i32); 2] = [
    (
        Table::new(Family::Inet, "snf-seen"),
        Hook::Prerouting,
        PRIORITY + 1,
    ),
    (Table::new(Family::Arp, "snf-seen"), Hook::Input, 1),
];
const CHAIN: &str = "seen";
const ARP: [u8; 2] = [0x08, 0x06];

pub(super) fn misjudged(
    guest: &Guest,
    router: MacAddr,
    rtnetlink: &mut Rtnetlink,
    nftables: &mut Nftables,
    wrong: &mut Vec<(String, Misjudged)>,
) -> Result<()> {
    let interface = guest.interface.as_str();
    let (tap, index) = tap::plug(interface, rtnetlink)?;
    // Else the kernel takes no IPv6 while it looks for another with its address.
    let no_search = format!("net/ipv6/conf/{interface}/accept_dad");
    if sysctl::read(&no_search)?.is_some() {
        sysctl::write(&no_search, "0")?;
    }
    let change = LinkChange {
        mac: Some(router),
        up: Some(true),
        ..LinkChange::default()
    };
    rtnetlink.change_link(index, interface, &change)?;
    let mut batch = Batch::new();
    for (table, hook, priority) in SEEN {
        batch
            .add_table(table)
            .add_chain(&Chain::base(table, CHAIN, hook, priority))
            .flush_chain(table, CHAIN)
            .add_rule(
                table,
                CHAIN,
                &[
                    Statement::equal(Field::INPUT_NAME, &interface_name(interface)),
                    Statement::Counter,
                ],
            );
    }
    nftables.commit(&batch)?;
    let [mut inet, mut arp] = SEEN.map(|(table, ..)| (table, 0));
    for case in &guest.cases {
        let is_arp = case.frame.get(12..14) == Some(&ARP);
        // The kernel has done all that the frame brings about when this returns.
        let sent = (&tap).write(&case.frame).is_ok();
        let (table, before) = if is_arp { &mut arp } else { &mut inet };
        let rules = nftables.rules(*table)?;
        let now = rules
            .iter()
            .find_map(|rule| rule.counter)
            .map_or(0, |(packets, _)| packets);
        let passes = sent && now > *before;
        *before = now;
        if passes != case.passes {
            wrong.push((guest.interface.clone(), Misjudged::Passing(case.name)));
        }
    }
    Ok(())
}
