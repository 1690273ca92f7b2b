//! The statements of a rule: what it looks at, and what it does.
//!
//! They are plain data, so that a rule can be printed and reasoned about as well as loaded.

use std::time::Duration;

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED};
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute,
    Lookup, Meta, MetaKey as RawMeta, Operator as RawOperator, Payload, Register,
    Verdict as RawVerdict, VerdictAttribute,
};

/// The header that an offset counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Base {
    /// The Ethernet header. A VLAN tag that the device took off is seen as if it were there.
    Link,
    /// The IP or ARP header.
    Network,
    /// The header after IP's. Not there in a fragment other than the first; after IPv6
    /// extension headers it is the upper-layer header.
    Transport,
}

/// What the kernel knows of a packet besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MetaKey {
    /// Name of the interface it came in by: 16 bytes.
    InputName,
    /// Name of the interface it goes out of: 16 bytes.
    OutputName,
    /// Name of the bridge whose port it came in by: 16 bytes.
    BridgeInputName,
    /// EtherType, without VLAN tags: 2 bytes.
    Protocol,
    /// Transport protocol, after IPv6 extension headers: 1 byte.
    TransportProtocol,
    /// `NFPROTO_*`, to tell IPv4 (2) from IPv6 (10) in an inet table: 1 byte.
    Family,
    /// Packet mark: 4 bytes in host order.
    Mark,
    /// Unicast to us 0, broadcast 1, multicast 2, to another 3: 1 byte.
    PacketType,
    /// Length: 4 bytes in host order.
    Length,
}

/// A field of a packet, with its length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// Something the kernel knows.
    Meta(MetaKey),
    /// Bytes of the packet.
    Payload {
        /// Header that `offset` counts from.
        base: Base,
        /// First byte.
        offset: u32,
        /// Number of bytes, at most 16.
        length: u32,
    },
    /// State of the connection, as bits in host order: 1 invalid, 2 established, 4 related,
    /// 8 new, 64 untracked. 4 bytes. Not in a bridge table unless the kernel tracks there.
    ConnectionState,
    /// Whether an IPv6 extension header of this number is there: 1 byte, 1 or 0.
    ExtensionHeader(u8),
    /// Bytes of an IPv6 extension header; does not match if there is none.
    Extension {
        /// Its number.
        header: u8,
        /// First byte.
        offset: u32,
        /// Number of bytes, at most 16.
        length: u32,
    },
}

impl Field {
    /// Name of the interface that the packet came in by.
    pub const INPUT_NAME: Self = Self::Meta(MetaKey::InputName);
    /// Name of the interface that the packet goes out of.
    pub const OUTPUT_NAME: Self = Self::Meta(MetaKey::OutputName);
    /// Destination of the frame.
    pub const ETHER_DESTINATION: Self = Self::link(0, 6);
    /// Source of the frame.
    pub const ETHER_SOURCE: Self = Self::link(6, 6);
    /// EtherType as it is in the frame: of a tagged frame, the tag's.
    pub const ETHER_TYPE: Self = Self::link(12, 2);
    /// Source of an IPv4 packet.
    pub const IPV4_SOURCE: Self = Self::network(12, 4);
    /// Destination of an IPv4 packet.
    pub const IPV4_DESTINATION: Self = Self::network(16, 4);
    /// Source of an IPv6 packet.
    pub const IPV6_SOURCE: Self = Self::network(8, 16);
    /// Destination of an IPv6 packet.
    pub const IPV6_DESTINATION: Self = Self::network(24, 16);

    /// Bytes of the Ethernet header.
    pub const fn link(offset: u32, length: u32) -> Self {
        Self::Payload {
            base: Base::Link,
            offset,
            length,
        }
    }

    /// Bytes from the IP or ARP header on.
    pub const fn network(offset: u32, length: u32) -> Self {
        Self::Payload {
            base: Base::Network,
            offset,
            length,
        }
    }

    /// Bytes from the transport header on.
    pub const fn transport(offset: u32, length: u32) -> Self {
        Self::Payload {
            base: Base::Transport,
            offset,
            length,
        }
    }

    /// Length in bytes.
    pub const fn length(self) -> u32 {
        match self {
            Self::Meta(key) => match key {
                MetaKey::InputName | MetaKey::OutputName | MetaKey::BridgeInputName => 16,
                MetaKey::Protocol => 2,
                MetaKey::TransportProtocol | MetaKey::Family | MetaKey::PacketType => 1,
                MetaKey::Mark | MetaKey::Length => 4,
            },
            Self::Payload { length, .. } | Self::Extension { length, .. } => length,
            Self::ConnectionState => 4,
            Self::ExtensionHeader(_) => 1,
        }
    }
}

/// How a field is compared. The order is that of the bytes: big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    /// Equal.
    Equal,
    /// Not equal.
    NotEqual,
    /// Less.
    Less,
    /// Less or equal.
    AtMost,
    /// Greater.
    Greater,
    /// Greater or equal.
    AtLeast,
}

/// Unit of a [`Statement::Limit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitUnit {
    /// Packets.
    Packets,
    /// Bytes.
    Bytes,
}

/// What happens to a packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// It passes this base chain.
    Accept,
    /// It is dropped.
    Drop,
    /// The next rule decides.
    Continue,
    /// Back to where this chain was jumped to from.
    Return,
    /// On to that chain, and back.
    Jump(String),
    /// On to that chain for good.
    Goto(String),
}

impl Verdict {
    pub(super) fn read(attributes: &[VerdictAttribute]) -> Self {
        let chain = attributes.iter().find_map(|attribute| match attribute {
            VerdictAttribute::Chain(chain) => Some(chain.clone()),
            _ => None,
        });
        let code = attributes.iter().find_map(|attribute| match attribute {
            VerdictAttribute::Code(code) => Some(*code),
            _ => None,
        });
        match code {
            Some(RawVerdict::Jump) => Self::Jump(chain.unwrap_or_default()),
            Some(RawVerdict::Goto) => Self::Goto(chain.unwrap_or_default()),
            Some(RawVerdict::Return) => Self::Return,
            Some(RawVerdict::Other(0)) => Self::Drop,
            Some(RawVerdict::Other(1)) => Self::Accept,
            _ => Self::Continue,
        }
    }
}

/// A statement. A rule's statements are executed in order until one does not match or decides.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Statement {
    /// Goes on if the field, masked if there is a mask, compares so with the value.
    Match {
        /// Field.
        field: Field,
        /// Bits that count, as long as the field.
        mask: Option<Vec<u8>>,
        /// Comparison.
        operator: Operator,
        /// Value, as long as the field.
        value: Vec<u8>,
    },
    /// Goes on if the fields together are (or, inverted, are not) in the set. A field may be
    /// masked before.
    Lookup {
        /// Parts of the key, in order, each with the bits that count.
        key: Vec<(Field, Option<Vec<u8>>)>,
        /// Name of the set.
        set: String,
        /// Goes on if it is not there.
        inverted: bool,
    },
    /// Does what the map says for the fields; goes on if it says nothing.
    VerdictMap {
        /// Parts of the key, in order.
        key: Vec<Field>,
        /// Name of the map.
        map: String,
    },
    /// Adds the fields to the set, or renews their time there; goes on unless it is full.
    Learn {
        /// Parts of the key, in order.
        key: Vec<Field>,
        /// Name of the set.
        set: String,
        /// How long it stays.
        timeout: Option<Duration>,
        /// Renews the time if it is there; else one that is there does not match.
        update: bool,
    },
    /// Goes on for those beyond so many in a time, counted for each key in a set by itself.
    Meter {
        /// Parts of the key, in order.
        key: Vec<Field>,
        /// Name of the set; it must be dynamic.
        set: String,
        /// How many packets.
        rate: u64,
        /// In how many seconds.
        seconds: u64,
        /// How many more at once.
        burst: u32,
    },
    /// Goes on for so many in a time; with `over`, for those that are more.
    Limit {
        /// How many.
        rate: u64,
        /// In how many seconds.
        seconds: u64,
        /// Of what.
        unit: LimitUnit,
        /// How many more at once.
        burst: u32,
        /// Goes on for those beyond.
        over: bool,
    },
    /// Counts packets and bytes that come this far.
    Counter,
    /// Sets the packet's mark.
    SetMark(u32),
    /// The connection comes from the host's own address on the interface that it goes out of.
    Masquerade,
    /// Sends a copy to a `nfnetlink_log` group.
    Log {
        /// Group.
        group: u16,
        /// Text that comes with it.
        prefix: String,
        /// How many bytes of it.
        length: u32,
    },
    /// Gives the packet to user space, natively. Bypass: passes it if nobody listens.
    Queue {
        /// First queue.
        number: u16,
        /// So many queues, chosen by flow.
        total: u16,
        /// Pass if nobody listens.
        bypass: bool,
    },
    /// The same by the xtables target, for kernels without the native one: in inet, ip and ip6.
    TargetQueue {
        /// First queue.
        number: u16,
        /// So many queues, chosen by flow.
        total: u16,
        /// Pass if nobody listens.
        bypass: bool,
    },
    /// Drops it and tells the sender: ICMP administratively prohibited. In inet.
    Reject,
    /// It passes this base chain.
    Accept,
    /// It is dropped.
    Drop,
    /// Back to where this chain was jumped to from.
    Return,
    /// On to that chain, and back.
    Jump(String),
    /// On to that chain for good.
    Goto(String),
}

impl Statement {
    /// The field is this.
    pub fn equal(field: Field, value: &[u8]) -> Self {
        Self::compare(field, Operator::Equal, value)
    }

    /// The field is not this.
    pub fn not_equal(field: Field, value: &[u8]) -> Self {
        Self::compare(field, Operator::NotEqual, value)
    }

    /// The field compares so with this.
    pub fn compare(field: Field, operator: Operator, value: &[u8]) -> Self {
        Self::Match {
            field,
            mask: None,
            operator,
            value: value.to_vec(),
        }
    }

    /// The bits that count compare so with this.
    pub fn masked(field: Field, mask: &[u8], operator: Operator, value: &[u8]) -> Self {
        Self::Match {
            field,
            mask: Some(mask.to_vec()),
            operator,
            value: value.to_vec(),
        }
    }

    /// The fields together are in the set.
    pub fn in_set(key: &[Field], set: &str) -> Self {
        Self::Lookup {
            key: key.iter().map(|field| (*field, None)).collect(),
            set: set.to_owned(),
            inverted: false,
        }
    }

    /// The fields together are not in the set.
    pub fn not_in_set(key: &[Field], set: &str) -> Self {
        Self::Lookup {
            key: key.iter().map(|field| (*field, None)).collect(),
            set: set.to_owned(),
            inverted: true,
        }
    }

    /// Does what the map says for the fields.
    pub fn verdict_map(key: &[Field], map: &str) -> Self {
        Self::VerdictMap {
            key: key.to_vec(),
            map: map.to_owned(),
        }
    }
}

/// The first of the sixteen 4-byte registers; they hold the parts of a key side by side.
const FIRST_REGISTER: u32 = 8;

fn register(number: u32) -> Register {
    Register::from(number)
}

fn expression(data: Expressions, name: &str) -> ListAttribute<ExpressionAttribute> {
    ListAttribute::Element(vec![
        ExpressionAttribute::Name(name.to_owned()),
        ExpressionAttribute::Data(data),
    ])
}

/// An expression that the crate has no type for: its attributes by number.
fn other(name: &str, attributes: Vec<DefaultNla>) -> ListAttribute<ExpressionAttribute> {
    expression(
        Expressions::Other {
            expression_type: name.to_owned(),
            attributes,
        },
        name,
    )
}

fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

fn long(kind: u16, value: u64) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

fn short(kind: u16, value: u16) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

fn word(kind: u16, value: &str) -> DefaultNla {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    DefaultNla::new(kind, bytes)
}

/// The expressions that a statement is to the kernel.
pub(super) fn encode(statement: &Statement) -> Vec<ListAttribute<ExpressionAttribute>> {
    match statement {
        Statement::Match {
            field,
            mask,
            operator,
            value,
        } => {
            let mut list = vec![load(*field, FIRST_REGISTER)];
            if let Some(mask) = mask {
                list.push(masking(mask, FIRST_REGISTER));
            }
            list.push(expression(
                Expressions::Cmp(vec![
                    Cmp::SourceRegister(register(FIRST_REGISTER)),
                    Cmp::Op(match operator {
                        Operator::Equal => RawOperator::Equal,
                        Operator::NotEqual => RawOperator::NotEqual,
                        Operator::Less => RawOperator::LessThan,
                        Operator::AtMost => RawOperator::LessThanEqual,
                        Operator::Greater => RawOperator::GreaterThan,
                        Operator::AtLeast => RawOperator::GreatherThanEqual,
                    }),
                    Cmp::Data(DataAttribute::Value(value.clone())),
                ]),
                "cmp",
            ));
            list
        }
        Statement::Lookup { key, set, inverted } => {
            let mut list = load_key(key.iter().map(|(field, mask)| (*field, mask.as_deref())));
            let mut attributes = vec![
                Lookup::Set(set.clone()),
                Lookup::SourceRegister(register(FIRST_REGISTER)),
            ];
            if *inverted {
                attributes.push(Lookup::Flags(1));
            }
            list.push(expression(Expressions::Lookup(attributes), "lookup"));
            list
        }
        Statement::VerdictMap { key, map } => {
            let mut list = load_key(key.iter().map(|field| (*field, None)));
            list.push(expression(
                Expressions::Lookup(vec![
                    Lookup::Set(map.clone()),
                    Lookup::SourceRegister(register(FIRST_REGISTER)),
                    Lookup::DestinationRegister(Register::Verdict),
                ]),
                "lookup",
            ));
            list
        }
        Statement::Learn {
            key,
            set,
            timeout,
            update,
        } => {
            let mut list = load_key(key.iter().map(|field| (*field, None)));
            let mut attributes = vec![
                word(1, set),
                number(3, u32::from(*update)),
                number(4, FIRST_REGISTER),
            ];
            if let Some(timeout) = timeout {
                let milliseconds = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                attributes.push(long(6, milliseconds));
            }
            list.push(other("dynset", attributes));
            list
        }
        Statement::Meter {
            key,
            set,
            rate,
            seconds,
            burst,
        } => {
            let mut list = load_key(key.iter().map(|field| (*field, None)));
            let limit = limit(*rate, *seconds, LimitUnit::Packets, *burst, true);
            list.push(other(
                "dynset",
                vec![
                    word(1, set),
                    // NFT_DYNSET_OP_UPDATE; NFTA_DYNSET_EXPR: the limit that each element has
                    number(3, 1),
                    number(4, FIRST_REGISTER),
                    nested(7, &[word(1, "limit"), nested(2, &limit)]),
                ],
            ));
            list
        }
        Statement::Limit {
            rate,
            seconds,
            unit,
            burst,
            over,
        } => vec![other("limit", limit(*rate, *seconds, *unit, *burst, *over))],
        Statement::Counter => vec![other("counter", vec![long(1, 0), long(2, 0)])],
        Statement::Masquerade => vec![other("masq", Vec::new())],
        Statement::SetMark(mark) => vec![
            immediate(FIRST_REGISTER, &mark.to_ne_bytes()),
            expression(
                Expressions::Meta(vec![
                    Meta::Key(RawMeta::Mark),
                    Meta::SourceRegister(register(FIRST_REGISTER)),
                ]),
                "meta",
            ),
        ],
        Statement::Log {
            group,
            prefix,
            length,
        } => vec![other(
            "log",
            vec![short(1, *group), word(2, prefix), number(3, *length)],
        )],
        Statement::Queue {
            number,
            total,
            bypass,
        } => vec![other(
            "queue",
            vec![
                short(1, *number),
                short(2, (*total).max(1)),
                short(3, u16::from(*bypass)),
            ],
        )],
        Statement::TargetQueue {
            number,
            total,
            bypass,
        } => vec![target_queue(*number, *total, *bypass)],
        Statement::Reject => vec![other(
            // NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_ADMIN_PROHIBITED
            "reject",
            vec![number(1, 2), DefaultNla::new(2, vec![3])],
        )],
        Statement::Accept => vec![verdict(&Verdict::Accept)],
        Statement::Drop => vec![verdict(&Verdict::Drop)],
        Statement::Return => vec![verdict(&Verdict::Return)],
        Statement::Jump(chain) => vec![verdict(&Verdict::Jump(chain.clone()))],
        Statement::Goto(chain) => vec![verdict(&Verdict::Goto(chain.clone()))],
    }
}

fn limit(rate: u64, seconds: u64, unit: LimitUnit, burst: u32, over: bool) -> Vec<DefaultNla> {
    vec![
        long(1, rate),
        long(2, seconds),
        number(3, burst),
        number(4, u32::from(unit == LimitUnit::Bytes)),
        number(5, u32::from(over)),
    ]
}

fn nested(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    DefaultNla::new(kind | NLA_F_NESTED, bytes)
}

fn load_key<'a>(
    key: impl Iterator<Item = (Field, Option<&'a [u8]>)>,
) -> Vec<ListAttribute<ExpressionAttribute>> {
    let mut list = Vec::new();
    let mut at = FIRST_REGISTER;
    for (field, mask) in key {
        list.push(load(field, at));
        if let Some(mask) = mask {
            list.push(masking(mask, at));
        }
        at += field.length().div_ceil(4);
    }
    list
}

fn load(field: Field, at: u32) -> ListAttribute<ExpressionAttribute> {
    match field {
        Field::Meta(key) => expression(
            Expressions::Meta(vec![
                Meta::Key(match key {
                    MetaKey::InputName => RawMeta::Iifname,
                    MetaKey::OutputName => RawMeta::Oifname,
                    MetaKey::BridgeInputName => RawMeta::BriIifname,
                    MetaKey::Protocol => RawMeta::EtherTypeProtocol,
                    MetaKey::TransportProtocol => RawMeta::L4Proto,
                    MetaKey::Family => RawMeta::Nfproto,
                    MetaKey::Mark => RawMeta::Mark,
                    MetaKey::PacketType => RawMeta::PacketType,
                    MetaKey::Length => RawMeta::Length,
                }),
                Meta::DestinationRegister(register(at)),
            ]),
            "meta",
        ),
        Field::Payload {
            base,
            offset,
            length,
        } => expression(
            Expressions::Payload(vec![
                Payload::DestinationRegister(register(at)),
                Payload::Base(match base {
                    Base::Link => 0,
                    Base::Network => 1,
                    Base::Transport => 2,
                }),
                Payload::Offset(offset),
                Payload::Len(length),
            ]),
            "payload",
        ),
        Field::ConnectionState => other("ct", vec![number(1, at), number(2, 0)]),
        // NFT_EXTHDR_F_PRESENT
        Field::ExtensionHeader(header) => extension(header, 0, 1, 1, at),
        Field::Extension {
            header,
            offset,
            length,
        } => extension(header, offset, length, 0, at),
    }
}

fn extension(
    header: u8,
    offset: u32,
    length: u32,
    flags: u32,
    at: u32,
) -> ListAttribute<ExpressionAttribute> {
    other(
        "exthdr",
        vec![
            number(1, at),
            DefaultNla::new(2, vec![header]),
            number(3, offset),
            number(4, length),
            number(5, flags),
            // NFT_EXTHDR_OP_IPV6
            number(6, 0),
        ],
    )
}

fn masking(mask: &[u8], at: u32) -> ListAttribute<ExpressionAttribute> {
    expression(
        Expressions::Bitwise(vec![
            Bitwise::SourceRegister(register(at)),
            Bitwise::DestinationRegister(register(at)),
            Bitwise::Length(u32::try_from(mask.len()).unwrap_or_default()),
            Bitwise::Op(0),
            Bitwise::Mask(DataAttribute::Value(mask.to_vec())),
            Bitwise::Xor(DataAttribute::Value(vec![0; mask.len()])),
        ]),
        "bitwise",
    )
}

fn immediate(at: u32, value: &[u8]) -> ListAttribute<ExpressionAttribute> {
    expression(
        Expressions::Immediate(vec![
            Immediate::DestinationRegister(register(at)),
            Immediate::Data(DataAttribute::Value(value.to_vec())),
        ]),
        "immediate",
    )
}

fn verdict(verdict: &Verdict) -> ListAttribute<ExpressionAttribute> {
    expression(
        Expressions::Immediate(vec![
            Immediate::DestinationRegister(Register::Verdict),
            Immediate::Data(verdict_data(verdict)),
        ]),
        "immediate",
    )
}

/// A verdict as data. Accept and drop are netfilter's own numbers, the rest nftables'.
pub(super) fn verdict_data(verdict: &Verdict) -> DataAttribute {
    let (code, chain) = match verdict {
        Verdict::Drop => (RawVerdict::Other(0), None),
        Verdict::Accept => (RawVerdict::Other(1), None),
        Verdict::Continue => (RawVerdict::Continue, None),
        Verdict::Return => (RawVerdict::Return, None),
        Verdict::Jump(chain) => (RawVerdict::Jump, Some(chain)),
        Verdict::Goto(chain) => (RawVerdict::Goto, Some(chain)),
    };
    let mut attributes = vec![VerdictAttribute::Code(code)];
    attributes.extend(chain.cloned().map(VerdictAttribute::Chain));
    DataAttribute::Verdict(attributes)
}

/// `struct xt_NFQ_info_v3`: number, total, flags (1 bypass), in host order, filled up to 8.
fn target_queue(number: u16, total: u16, bypass: bool) -> ListAttribute<ExpressionAttribute> {
    let mut info = Vec::with_capacity(8);
    for value in [number, total.max(1), u16::from(bypass), 0] {
        info.extend(value.to_ne_bytes());
    }
    other(
        "target",
        vec![
            word(1, "NFQUEUE"),
            DefaultNla::new(2, 3u32.to_be_bytes().to_vec()),
            DefaultNla::new(3, info),
        ],
    )
}
