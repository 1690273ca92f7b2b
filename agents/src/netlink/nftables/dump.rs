//! Reading back: which chains, rules and elements are there.

use netlink_packet_core::{DefaultNla, Nla, ParseableParametrized};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, ExpressionAttribute, Expressions, ListAttribute, NfTablesMessage,
    RuleAttribute, RuleMessage, SetElementList, SetElementMessage, TableAttribute, TableMessage,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner};

use super::element::Element;
use super::{Family, Nftables, Table};
use crate::netlink::Result;
use crate::netlink::socket::Received;

/// A chain as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpedChain {
    /// Name.
    pub name: String,
    /// Hangs at a hook.
    pub base: bool,
}

/// A rule as it is, as far as it can be told apart by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpedRule {
    /// Name of its chain.
    pub chain: String,
    /// Its number in the table.
    pub handle: u64,
    /// Its comment, empty if none.
    pub comment: String,
    /// Packets and bytes counted, if it counts.
    pub counter: Option<(u64, u64)>,
    /// The names of its expressions, in order.
    pub expressions: Vec<String>,
}

impl Nftables {
    fn get(
        &mut self,
        family: Family,
        message: NfTablesMessage,
        what: &str,
    ) -> Result<Vec<NfTablesMessage>> {
        let header = NetfilterHeader::new(family.protocol(), 0, 0);
        let message = NetfilterMessage::new(header, message);
        match self
            .socket
            .dump(message, || format!("nftables: list {what}"))
        {
            Ok(answers) => Ok(answers.iter().filter_map(read).collect()),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Whether the table is there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn has_table(&mut self, table: Table) -> Result<bool> {
        let message = NfTablesMessage::GetTable(TableMessage {
            attributes: Vec::new(),
        });
        let tables = self.get(table.family, message, "tables")?;
        Ok(tables.iter().any(|message| {
            matches!(message, NfTablesMessage::NewTable(found) if found
                .attributes
                .contains(&TableAttribute::Name(table.name.to_owned())))
        }))
    }

    /// The chains of a table; none if it is not there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn chains(&mut self, table: Table) -> Result<Vec<DumpedChain>> {
        let message = NfTablesMessage::GetChain(ChainMessage {
            attributes: Vec::new(),
        });
        let found = self.get(table.family, message, "chains")?;
        Ok(found
            .into_iter()
            .filter_map(|message| {
                let NfTablesMessage::NewChain(chain) = message else {
                    return None;
                };
                let mut dumped = DumpedChain {
                    name: String::new(),
                    base: false,
                };
                let mut ours = false;
                for attribute in chain.attributes {
                    match attribute {
                        ChainAttribute::Table(name) => ours = name == table.name,
                        ChainAttribute::Name(name) => dumped.name = name,
                        ChainAttribute::Hook(_) => dumped.base = true,
                        _ => {}
                    }
                }
                ours.then_some(dumped)
            })
            .collect())
    }

    /// The rules of a table, of each chain in order; none if it is not there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn rules(&mut self, table: Table) -> Result<Vec<DumpedRule>> {
        let message = NfTablesMessage::GetRule(RuleMessage {
            attributes: vec![RuleAttribute::Table(table.name.to_owned())],
        });
        let found = self.get(table.family, message, "rules")?;
        Ok(found
            .into_iter()
            .filter_map(|message| match message {
                NfTablesMessage::NewRule(rule) => read_rule(&rule, table),
                _ => None,
            })
            .collect())
    }

    /// The elements of a set or map, in no order; none if it is not there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn elements(&mut self, table: Table, set: &str) -> Result<Vec<Element>> {
        let message = NfTablesMessage::GetSetElement(SetElementMessage {
            attributes: vec![
                SetElementList::Table(table.name.to_owned()),
                SetElementList::Set(set.to_owned()),
            ],
        });
        let found = self.get(table.family, message, "elements")?;
        let mut elements = Vec::new();
        for message in found {
            let NfTablesMessage::NewSetElement(message) = message else {
                continue;
            };
            for attribute in &message.attributes {
                let SetElementList::Elements(list) = attribute else {
                    continue;
                };
                elements.extend(list.iter().filter_map(|item| match item {
                    ListAttribute::Element(attributes) => Element::read(attributes),
                    _ => None,
                }));
            }
        }
        Ok(elements)
    }
}

fn read(received: &Received) -> Option<NfTablesMessage> {
    let message = NetfilterMessage::parse_with_param(&received.payload, received.kind).ok()?;
    match message.inner {
        NetfilterMessageInner::NfTables(message) => Some(message),
        _ => None,
    }
}

fn read_rule(rule: &RuleMessage, table: Table) -> Option<DumpedRule> {
    let mut dumped = DumpedRule {
        chain: String::new(),
        handle: 0,
        comment: String::new(),
        counter: None,
        expressions: Vec::new(),
    };
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Table(name) if name != table.name => return None,
            RuleAttribute::Chain(name) => dumped.chain.clone_from(name),
            RuleAttribute::Handle(handle) => dumped.handle = *handle,
            RuleAttribute::UserData(data) => dumped.comment = read_comment(data),
            RuleAttribute::Expressions(list) => {
                for item in list {
                    let ListAttribute::Element(parts) = item else {
                        continue;
                    };
                    for part in parts {
                        match part {
                            ExpressionAttribute::Name(name) => {
                                dumped.expressions.push(name.clone());
                            }
                            ExpressionAttribute::Data(Expressions::Other {
                                expression_type,
                                attributes,
                            }) if expression_type == "counter" => {
                                dumped.counter = read_counter(attributes);
                            }
                            _ => {}
                        }
                    }
                }
            }
            _ => {}
        }
    }
    Some(dumped)
}

fn read_counter(attributes: &[DefaultNla]) -> Option<(u64, u64)> {
    let value = |kind: u16| {
        let attribute = attributes.iter().find(|nla| nla.kind() == kind)?;
        let mut bytes = [0; 8];
        if attribute.value_len() != bytes.len() {
            return None;
        }
        attribute.emit_value(&mut bytes);
        Some(u64::from_be_bytes(bytes))
    };
    Some((value(2)?, value(1)?))
}

fn read_comment(data: &[u8]) -> String {
    match data {
        [0, length, text @ ..] => {
            let text = text.get(..usize::from(*length)).unwrap_or_default();
            crate::netlink::link::text(text)
        }
        _ => String::new(),
    }
}
