//! A batch: what is to happen at once or not at all.

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook as HookAttribute, HookNumber, InetHookNumber, ListAttribute,
    NfTablesMessage, RuleAttribute, RuleMessage, SetElementList, SetElementMessage, SetMessage,
    TableAttribute, TableMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};

use super::element::Element;
use super::set::Set;
use super::statement::{Statement, encode};
use super::{Family, Table};
use crate::netlink::socket::{Socket, serialize};

/// As many elements fit into one attribute (64 KiB) whatever they are.
const ELEMENTS_PER_MESSAGE: usize = 400;
const NFNL_SUBSYS_NFTABLES: u16 = 10;

/// Where a base chain hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// All that comes in. Of a bridge: before it learns the source address.
    Prerouting,
    /// For the host.
    Input,
    /// Passing through.
    Forward,
    /// From the host.
    Output,
    /// All that goes out.
    Postrouting,
}

/// What becomes of a packet that reaches the end of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// It passes.
    #[default]
    Accept,
    /// It does not.
    Drop,
}

/// The type of most base chains.
const FILTER: &str = "filter";

/// A chain to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain<'a> {
    table: Table,
    name: &'a str,
    base: Option<(Hook, i32, Policy)>,
    kind: &'static str,
}

impl<'a> Chain<'a> {
    /// A chain that is jumped to.
    pub const fn regular(table: Table, name: &'a str) -> Self {
        Self {
            table,
            name,
            base: None,
            kind: FILTER,
        }
    }

    /// A filter chain at a hook; of several there, the smallest priority is first.
    pub const fn base(table: Table, name: &'a str, hook: Hook, priority: i32) -> Self {
        Self {
            table,
            name,
            base: Some((hook, priority, Policy::Accept)),
            kind: FILTER,
        }
    }

    /// A chain at a hook that translates addresses: it sees the first packet of a connection.
    pub const fn nat(table: Table, name: &'a str, hook: Hook, priority: i32) -> Self {
        Self {
            kind: "nat",
            ..Self::base(table, name, hook, priority)
        }
    }

    /// The same with another policy.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        if let Some((_, _, of_base)) = &mut self.base {
            *of_base = policy;
        }
        self
    }
}

#[derive(Debug, Clone)]
struct Item {
    family: Family,
    flags: u16,
    what: &'static str,
    table: &'static str,
    name: String,
    message: NfTablesMessage,
}

/// A list of changes for [`super::Nftables::commit`], in order.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    items: Vec<Item>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it would do nothing.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The number of messages that it is.
    pub fn len(&self) -> u32 {
        u32::try_from(self.items.len()).unwrap_or(u32::MAX)
    }

    /// Makes a table unless it is there.
    pub fn add_table(&mut self, table: Table) -> &mut Self {
        let message = NfTablesMessage::NewTable(table_message(table));
        self.push(table, NLM_F_CREATE, "add table", "", message)
    }

    /// Deletes a table with all that is in it.
    pub fn delete_table(&mut self, table: Table) -> &mut Self {
        let message = NfTablesMessage::DeleteTable(table_message(table));
        self.push(table, 0, "delete table", "", message)
    }

    /// Makes a chain unless it is there.
    pub fn add_chain(&mut self, chain: &Chain<'_>) -> &mut Self {
        let mut attributes = vec![
            ChainAttribute::Table(chain.table.name.to_owned()),
            ChainAttribute::Name(chain.name.to_owned()),
        ];
        if let Some((hook, priority, policy)) = chain.base {
            attributes.push(ChainAttribute::Hook(vec![
                HookAttribute::Number(match (chain.table.family, hook) {
                    // linux/netfilter_arp.h: ARP has numbers of its own.
                    (Family::Arp, Hook::Input) => HookNumber::Other(0),
                    (Family::Arp, Hook::Output) => HookNumber::Other(1),
                    (_, Hook::Prerouting) => InetHookNumber::PreRouting.into(),
                    (_, Hook::Input) => InetHookNumber::LocalIn.into(),
                    (_, Hook::Forward) => InetHookNumber::Forward.into(),
                    (_, Hook::Output) => InetHookNumber::LocalOut.into(),
                    (_, Hook::Postrouting) => InetHookNumber::PostRouting.into(),
                }),
                HookAttribute::Priority(priority.cast_unsigned()),
            ]));
            attributes.push(ChainAttribute::Policy(match policy {
                Policy::Drop => 0,
                Policy::Accept => 1,
            }));
            attributes.push(ChainAttribute::Type(chain.kind.to_owned()));
        }
        let message = NfTablesMessage::NewChain(ChainMessage { attributes });
        self.push(chain.table, NLM_F_CREATE, "add chain", chain.name, message)
    }

    /// Deletes a chain; it must be empty of rules, and nothing may jump to it.
    pub fn delete_chain(&mut self, table: Table, name: &str) -> &mut Self {
        let message = NfTablesMessage::DeleteChain(ChainMessage {
            attributes: vec![
                ChainAttribute::Table(table.name.to_owned()),
                ChainAttribute::Name(name.to_owned()),
            ],
        });
        self.push(table, 0, "delete chain", name, message)
    }

    /// Deletes all rules of a chain.
    pub fn flush_chain(&mut self, table: Table, name: &str) -> &mut Self {
        let message = NfTablesMessage::DeleteRule(RuleMessage {
            attributes: vec![
                RuleAttribute::Table(table.name.to_owned()),
                RuleAttribute::Chain(name.to_owned()),
            ],
        });
        self.push(table, 0, "flush chain", name, message)
    }

    /// Deletes the rule with this handle ([`super::DumpedRule::handle`]).
    pub fn delete_rule(&mut self, table: Table, chain: &str, handle: u64) -> &mut Self {
        let message = NfTablesMessage::DeleteRule(RuleMessage {
            attributes: vec![
                RuleAttribute::Table(table.name.to_owned()),
                RuleAttribute::Chain(chain.to_owned()),
                RuleAttribute::Handle(handle),
            ],
        });
        self.push(table, 0, "delete rule", chain, message)
    }

    /// Adds a rule at the end of a chain.
    pub fn add_rule(&mut self, table: Table, chain: &str, statements: &[Statement]) -> &mut Self {
        self.add_rule_named(table, chain, statements, "")
    }

    /// The same with a comment, which [`super::DumpedRule`] and `nft list` show: at most 128
    /// bytes, the rest is cut off.
    pub fn add_rule_named(
        &mut self,
        table: Table,
        chain: &str,
        statements: &[Statement],
        comment: &str,
    ) -> &mut Self {
        let mut attributes = vec![
            RuleAttribute::Table(table.name.to_owned()),
            RuleAttribute::Chain(chain.to_owned()),
            RuleAttribute::Expressions(statements.iter().flat_map(encode).collect()),
        ];
        if !comment.is_empty() {
            attributes.push(RuleAttribute::UserData(comment_data(comment)));
        }
        let message = NfTablesMessage::NewRule(RuleMessage { attributes });
        let flags = NLM_F_CREATE | NLM_F_APPEND;
        self.push(table, flags, "add rule to chain", chain, message)
    }

    /// Makes a set or map unless it is there.
    pub fn add_set(&mut self, set: &Set<'_>) -> &mut Self {
        let id = self.len();
        let message = NfTablesMessage::NewSet(SetMessage {
            attributes: set.attributes(id),
        });
        self.push(set.table, NLM_F_CREATE, "add set", set.name, message)
    }

    /// Deletes a set or map; no rule may use it.
    pub fn delete_set(&mut self, table: Table, name: &str) -> &mut Self {
        use netlink_packet_netfilter::nftables::SetAttribute;
        let message = NfTablesMessage::DeleteSet(SetMessage {
            attributes: vec![
                SetAttribute::Table(table.name.to_owned()),
                SetAttribute::Name(name.to_owned()),
            ],
        });
        self.push(table, 0, "delete set", name, message)
    }

    /// Adds elements to a set or map. One that is there is a success, unless it maps to
    /// something else.
    pub fn add_elements(
        &mut self,
        table: Table,
        set: &str,
        elements: impl IntoIterator<Item = Element>,
    ) -> &mut Self {
        self.elements(table, set, elements, true)
    }

    /// Deletes elements. One that is not there fails the batch.
    pub fn delete_elements(
        &mut self,
        table: Table,
        set: &str,
        elements: impl IntoIterator<Item = Element>,
    ) -> &mut Self {
        self.elements(table, set, elements, false)
    }

    /// Deletes all elements of a set or map.
    pub fn flush_set(&mut self, table: Table, set: &str) -> &mut Self {
        let message = NfTablesMessage::DeleteSetElement(SetElementMessage {
            attributes: element_list(table, set),
        });
        self.push(table, 0, "flush set", set, message)
    }

    fn elements(
        &mut self,
        table: Table,
        set: &str,
        elements: impl IntoIterator<Item = Element>,
        add: bool,
    ) -> &mut Self {
        let elements: Vec<Element> = elements.into_iter().collect();
        for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let mut attributes = element_list(table, set);
            attributes.push(SetElementList::Elements(
                chunk
                    .iter()
                    .map(|element| ListAttribute::Element(element.attributes()))
                    .collect(),
            ));
            let message = SetElementMessage { attributes };
            if add {
                let message = NfTablesMessage::NewSetElement(message);
                self.push(table, NLM_F_CREATE, "add elements to set", set, message);
            } else {
                let message = NfTablesMessage::DeleteSetElement(message);
                self.push(table, 0, "delete elements of set", set, message);
            }
        }
        self
    }

    fn push(
        &mut self,
        table: Table,
        flags: u16,
        what: &'static str,
        name: &str,
        message: NfTablesMessage,
    ) -> &mut Self {
        self.items.push(Item {
            family: table.family,
            flags,
            what,
            table: table.name,
            name: name.to_owned(),
            message,
        });
        self
    }

    /// Of the messages as [`Batch::serialize`] numbers them: what the one at `index` is.
    pub(super) fn describe(&self, index: u32) -> String {
        let item = index
            .checked_sub(1)
            .and_then(|index| self.items.get(usize::try_from(index).ok()?));
        match item {
            Some(item) => format!(
                "nftables: {} {} {} {}",
                item.what,
                item.family.name(),
                item.table,
                item.name
            )
            .trim_end()
            .to_owned(),
            None => "nftables: batch".to_owned(),
        }
    }

    pub(super) fn index_of_last_rule(&self) -> u32 {
        let rule = |item: &Item| matches!(item.message, NfTablesMessage::NewRule(_));
        let position = self.items.iter().rposition(rule).unwrap_or_default();
        u32::try_from(position).map_or(u32::MAX, |position| position + 1)
    }

    /// The whole datagram, and the sequence number of its first message, the "begin".
    pub(super) fn serialize(&self, socket: &mut Socket) -> (Vec<u8>, u32) {
        let control = |message: ControlMessage| {
            let header =
                NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFNL_SUBSYS_NFTABLES);
            NetfilterMessage::new(header, message)
        };
        let first = socket.next_sequence();
        let mut bytes = serialize(control(ControlMessage::BatchBegin), NLM_F_REQUEST, first);
        for item in &self.items {
            let header = NetfilterHeader::new(item.family.protocol(), 0, 0);
            let message = NetfilterMessage::new(header, item.message.clone());
            let flags = NLM_F_REQUEST | item.flags;
            bytes.extend(serialize(message, flags, socket.next_sequence()));
        }
        let last = socket.next_sequence();
        bytes.extend(serialize(
            control(ControlMessage::BatchEnd),
            NLM_F_REQUEST,
            last,
        ));
        (bytes, first)
    }
}

fn table_message(table: Table) -> TableMessage {
    TableMessage {
        attributes: vec![TableAttribute::Name(table.name.to_owned())],
    }
}

fn element_list(table: Table, set: &str) -> Vec<SetElementList> {
    vec![
        SetElementList::Table(table.name.to_owned()),
        SetElementList::Set(set.to_owned()),
    ]
}

/// User data as `nft` writes a comment: type 0, length, text with its NUL.
fn comment_data(comment: &str) -> Vec<u8> {
    let end = comment.floor_char_boundary(128.min(comment.len()));
    let text = comment.get(..end).unwrap_or_default();
    let mut data = vec![0, u8::try_from(text.len() + 1).unwrap_or(u8::MAX)];
    data.extend(text.as_bytes());
    data.push(0);
    data
}
