//! A table as it is live, to be made again elsewhere: message by message as the kernel tells
//! them, so that nothing is lost in between, whoever made it.

use netlink_packet_core::NLM_F_REQUEST;
use netlink_packet_netfilter::nftables::{
    ChainMessage, NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute, SetElementList,
    SetElementMessage, SetMessage,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage};

use super::{Batch, Nftables, Table};
use crate::netlink::socket::{Received, u32_at};
use crate::netlink::{Error, Result};

const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
/// `struct nfgenmsg`, and `struct nlattr` (linux/netlink.h).
const HEADER: usize = 4;
/// The attribute that names the table, of every kind of message.
const TABLE: u16 = 1;

/// One kind of message: its type, the flags to add it with, and which of its attributes (of
/// linux/netfilter/nf_tables.h) are the kernel's own and not taken from us.
struct Kind {
    flags: u16,
    own: &'static [u16],
}

/// `NFTA_CHAIN_HANDLE`, `USE`, `COUNTERS`, `FLAGS`, `ID`.
const CHAIN: Kind = Kind {
    flags: NLM_F_CREATE,
    own: &[2, 6, 8, 10, 11],
};
/// `NFTA_RULE_HANDLE`, `POSITION`, `ID`.
const RULE: Kind = Kind {
    flags: NLM_F_CREATE | NLM_F_APPEND,
    own: &[3, 6, 9],
};
/// `NFTA_SET_ID`, `HANDLE`, `TYPE`, `COUNT`.
const SET: Kind = Kind {
    flags: NLM_F_CREATE,
    own: &[10, 16, 19, 20],
};
/// `NFTA_RULE_EXPRESSIONS`, and of each the `NFTA_EXPR_NAME`.
const EXPRESSIONS: u16 = 4;
const EXPRESSION_NAME: u16 = 1;
const SET_ID: u16 = 10;
const SET_NAME: u16 = 2;
const ELEMENTS: Kind = Kind {
    flags: NLM_F_CREATE,
    own: &[],
};

/// A table with its sets, elements, chains and rules.
#[derive(Debug, Clone)]
pub struct Copy {
    table: Table,
    messages: Vec<(u16, u16, Vec<u8>)>,
}

impl Nftables {
    /// Reads a table; none if it is not there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn copy(&mut self, table: Table) -> Result<Option<Copy>> {
        if !self.has_table(table)? {
            return Ok(None);
        }
        let mut copy = Copy {
            table,
            messages: Vec::new(),
        };
        let of_table = |attribute| vec![attribute];
        let sets = self.raw(
            table,
            NfTablesMessage::GetSet(SetMessage {
                attributes: of_table(SetAttribute::Table(table.name.to_owned())),
            }),
        )?;
        let mut number = 0_u32;
        for set in &sets {
            number += 1;
            copy.add(set, &SET);
            if let Some((_, _, payload)) = copy.messages.last_mut() {
                // the kernel asks for a number, by which rules of the same batch could name it
                payload.extend([8, 0]);
                payload.extend(SET_ID.to_ne_bytes());
                payload.extend(number.to_be_bytes());
            }
        }
        for set in &sets {
            let name = Attributes::new(&set.payload).find(|found| found.kind == SET_NAME);
            let name = name.map(|found| crate::netlink::link::text(found.value));
            let elements = NfTablesMessage::GetSetElement(SetElementMessage {
                attributes: vec![
                    SetElementList::Table(table.name.to_owned()),
                    SetElementList::Set(name.unwrap_or_default()),
                ],
            });
            for part in self.raw(table, elements)? {
                copy.add(&part, &ELEMENTS);
            }
        }
        let chains = NfTablesMessage::GetChain(ChainMessage {
            attributes: Vec::new(),
        });
        for chain in self.raw(table, chains)? {
            copy.add(&chain, &CHAIN);
        }
        let rules = NfTablesMessage::GetRule(RuleMessage {
            attributes: vec![RuleAttribute::Table(table.name.to_owned())],
        });
        for rule in self.raw(table, rules)? {
            copy.add(&rule, &RULE);
        }
        Ok(Some(copy))
    }

    /// Makes the table, which must not be there yet.
    ///
    /// # Errors
    /// What the kernel refuses first.
    pub fn make(&mut self, copy: &Copy) -> Result<()> {
        let mut batch = Batch::new();
        batch.add_table(copy.table);
        let (mut bytes, first) = batch.serialize(&mut self.socket);
        // The end of the batch comes after the rest: it is the last message, of 20 bytes.
        let end = bytes.split_off(bytes.len().saturating_sub(20));
        for (kind, flags, payload) in &copy.messages {
            let length = u32::try_from(16 + payload.len()).unwrap_or(u32::MAX);
            bytes.extend(length.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
            bytes.extend(self.socket.next_sequence().to_ne_bytes());
            bytes.extend(0_u32.to_ne_bytes());
            bytes.extend(payload);
        }
        bytes.extend(end);
        let failures = self.socket.batch(&bytes, "nftables copy")?;
        match failures.into_iter().min_by_key(|failure| failure.sequence) {
            None => Ok(()),
            Some(failure) => {
                let index = failure.sequence.wrapping_sub(first);
                let source = std::io::Error::from_raw_os_error(failure.errno);
                let what = format!("nftables: copy of table {}, message {index}", copy.table);
                Err(Error::new(what, source).explained(failure.explanation))
            }
        }
    }

    /// Messages of this table, as they came.
    fn raw(&mut self, table: Table, message: NfTablesMessage) -> Result<Vec<Received>> {
        let header = NetfilterHeader::new(table.family.protocol(), 0, 0);
        let message = NetfilterMessage::new(header, message);
        let found = self
            .socket
            .dump(message, || format!("nftables: copy of table {table}"))?;
        let name = table.name.as_bytes();
        Ok(found
            .into_iter()
            .filter(|received| {
                Attributes::new(&received.payload).any(|found| {
                    found.kind == TABLE && found.value.strip_suffix(&[0]) == Some(name)
                })
            })
            .collect())
    }
}

/// Whether a rule asks for the state of connections.
fn tracks(rule: &[u8]) -> bool {
    Attributes::new(rule)
        .filter(|found| found.kind == EXPRESSIONS)
        .flat_map(|list| Attributes(list.value))
        .flat_map(|expression| Attributes(expression.value))
        .any(|part| part.kind == EXPRESSION_NAME && part.value == b"ct\0")
}

impl Copy {
    /// The same without the rules that ask for the state of connections: one such rule makes
    /// the kernel track them all, and put fragments together that would pass one by one.
    #[must_use]
    pub fn without_tracking(mut self) -> Self {
        self.messages.retain(|(_, _, payload)| !tracks(payload));
        self
    }

    fn add(&mut self, received: &Received, kind: &Kind) {
        let mut payload = received.payload.get(..HEADER).unwrap_or_default().to_vec();
        for attribute in Attributes::new(&received.payload) {
            if !kind.own.contains(&attribute.kind) {
                payload.extend(attribute.whole);
                payload.resize(payload.len().next_multiple_of(4), 0);
            }
        }
        self.messages.push((received.kind, kind.flags, payload));
    }
}

struct Attribute<'a> {
    kind: u16,
    value: &'a [u8],
    /// With its header.
    whole: &'a [u8],
}

/// The attributes behind the header; ends at the first that is not whole.
struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    fn new(payload: &'a [u8]) -> Self {
        Self(payload.get(HEADER..).unwrap_or_default())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        // length and kind, 16 bits each
        let head = u32_at(self.0, 0)?.to_ne_bytes();
        let [a, b, c, d] = head;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let whole = self.0.get(..length)?;
        let value = whole.get(HEADER..)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Attribute {
            // without the flags "nested" and "network order"
            kind: u16::from_ne_bytes([c, d]) & 0x3fff,
            value,
            whole,
        })
    }
}
