//! Networks whose guests speak to the outside in the host's name (tag `masq`): one rule for each,
//! in a table that is there only as long as there is one. A chain that translates addresses makes
//! the kernel track all of the host's connections: not for hosts that need none.

use agents::addr::Ipv4Net;
use agents::netlink::Result;
use agents::netlink::nftables::{
    Batch, Chain, DumpedRule, Family, Field, Hook, Nftables, Operator, Statement, Table,
};

/// The table.
pub const TABLE: Table = Table::new(Family::Ip, "snf");
const CHAIN: &str = "postrouting";
/// The usual one of source address translation (`srcnat` of `nft`).
const PRIORITY: i32 = 100;

/// From now on what the network's guests send elsewhere comes from the host.
///
/// # Errors
/// What the kernel says.
pub fn add(nftables: &mut Nftables, network: Ipv4Net) -> Result<()> {
    if find(&nftables.rules(TABLE)?, network).is_some() {
        return Ok(());
    }
    let mask = network.netmask().octets();
    let within =
        |field, operator| Statement::masked(field, &mask, operator, &network.network().octets());
    let mut batch = Batch::new();
    batch
        .add_table(TABLE)
        .add_chain(&Chain::nat(TABLE, CHAIN, Hook::Postrouting, PRIORITY))
        .add_rule_named(
            TABLE,
            CHAIN,
            &[
                within(Field::IPV4_SOURCE, Operator::Equal),
                within(Field::IPV4_DESTINATION, Operator::NotEqual),
                Statement::Masquerade,
            ],
            &name(network),
        );
    nftables.commit(&batch)
}

/// Ends [`add`]. One that is not there is a success.
///
/// # Errors
/// What the kernel says.
pub fn delete(nftables: &mut Nftables, network: Ipv4Net) -> Result<()> {
    let rules = nftables.rules(TABLE)?;
    let Some(rule) = find(&rules, network) else {
        return Ok(());
    };
    let mut batch = Batch::new();
    if rules.len() == 1 {
        batch.delete_table(TABLE);
    } else {
        batch.delete_rule(TABLE, CHAIN, rule.handle);
    }
    nftables.commit(&batch)
}

/// Whether the network's guests speak in the host's name.
///
/// # Errors
/// What the kernel says.
pub fn is_there(nftables: &mut Nftables, network: Ipv4Net) -> Result<bool> {
    Ok(find(&nftables.rules(TABLE)?, network).is_some())
}

fn name(network: Ipv4Net) -> String {
    network.trunc().to_string()
}

fn find(rules: &[DumpedRule], network: Ipv4Net) -> Option<&DumpedRule> {
    let name = name(network);
    rules
        .iter()
        .find(|rule| rule.chain == CHAIN && rule.comment == name)
}
