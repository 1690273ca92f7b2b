//! Sets and maps.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{SetAttribute, SetDescription, SetFlags};

use super::Table;

/// What a key, or a part of one, is. The numbers are `nft`'s, which shows elements by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// An interface's name: 16 bytes, filled up with NUL.
    InterfaceName,
    /// A MAC address: 6 bytes.
    EtherAddress,
    /// An IPv4 address: 4 bytes.
    Ipv4,
    /// An IPv6 address: 16 bytes.
    Ipv6,
    /// An EtherType: 2 bytes.
    EtherType,
    /// A transport protocol: 1 byte.
    Protocol,
    /// A port: 2 bytes.
    Port,
    /// A packet mark: 4 bytes in host order.
    Mark,
}

impl KeyType {
    const fn number(self) -> u32 {
        match self {
            Self::InterfaceName => 41,
            Self::EtherAddress => 9,
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::EtherType => 10,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Mark => 19,
        }
    }

    /// Length in bytes.
    pub const fn length(self) -> usize {
        match self {
            Self::InterfaceName | Self::Ipv6 => 16,
            Self::EtherAddress => 6,
            Self::Ipv4 | Self::Mark => 4,
            Self::EtherType | Self::Port => 2,
            Self::Protocol => 1,
        }
    }

    /// `nft` keeps by this whether to show a key in host order.
    const fn host_order(self) -> bool {
        matches!(self, Self::InterfaceName | Self::Mark)
    }
}

/// What a map's elements map to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetData {
    /// Nothing: it is a set.
    None,
    /// A verdict.
    Verdict,
    /// A value.
    Value(KeyType),
}

/// A set or map to be made.
#[derive(Debug, Clone)]
pub struct Set<'a> {
    pub(super) table: Table,
    pub(super) name: &'a str,
    key: &'a [KeyType],
    data: SetData,
    size: Option<u32>,
    timeout: Option<std::time::Duration>,
    dynamic: bool,
    intervals: bool,
    counted: bool,
}

impl<'a> Set<'a> {
    /// A set whose keys are the concatenation of `key`.
    pub const fn new(table: Table, name: &'a str, key: &'a [KeyType]) -> Self {
        Self {
            table,
            name,
            key,
            data: SetData::None,
            size: None,
            timeout: None,
            dynamic: false,
            intervals: false,
            counted: false,
        }
    }

    /// The same as a map.
    #[must_use]
    pub const fn map(mut self, data: SetData) -> Self {
        self.data = data;
        self
    }

    /// At most so many elements; more are refused (ENFILE).
    #[must_use]
    pub const fn size(mut self, size: u32) -> Self {
        self.size = Some(size);
        self
    }

    /// Its elements go after this time, unless they say otherwise.
    #[must_use]
    pub const fn timeout(mut self, timeout: std::time::Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Rules may add to it ([`super::Statement::Learn`]); it needs a size.
    #[must_use]
    pub const fn dynamic(mut self) -> Self {
        self.dynamic = true;
        self
    }

    /// Its elements are ranges ([`super::Element::range`]).
    #[must_use]
    pub const fn intervals(mut self) -> Self {
        self.intervals = true;
        self
    }

    /// Each element counts the packets that matched it.
    #[must_use]
    pub const fn counted(mut self) -> Self {
        self.counted = true;
        self
    }

    pub(super) fn attributes(&self, id: u32) -> Vec<SetAttribute> {
        let mut flags = SetFlags::empty();
        let concatenated = self.key.len() > 1;
        let mut number = 0;
        let mut length = 0;
        for part in self.key {
            number = if concatenated {
                (number << 6) | part.number()
            } else {
                part.number()
            };
            length += if concatenated {
                part.length().next_multiple_of(4)
            } else {
                part.length()
            };
        }
        let mut attributes = vec![
            SetAttribute::Table(self.table.name.to_owned()),
            SetAttribute::Name(self.name.to_owned()),
            SetAttribute::KeyType(number),
            SetAttribute::KeyLen(u32::try_from(length).unwrap_or_default()),
            SetAttribute::Id(id),
        ];
        match self.data {
            SetData::None => {}
            SetData::Verdict => {
                flags |= SetFlags::Map;
                attributes.push(SetAttribute::DataType(0xffff_ff00));
                attributes.push(SetAttribute::DataLen(0));
            }
            SetData::Value(value) => {
                flags |= SetFlags::Map;
                attributes.push(SetAttribute::DataType(value.number()));
                let length = u32::try_from(value.length()).unwrap_or_default();
                attributes.push(SetAttribute::DataLen(length));
            }
        }
        if let Some(timeout) = self.timeout {
            flags |= SetFlags::Timeout;
            let milliseconds = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            attributes.push(SetAttribute::Timeout(milliseconds));
        }
        if self.dynamic {
            flags |= SetFlags::Eval;
        }
        if self.intervals {
            flags |= SetFlags::Interval;
        }
        let mut description = Vec::new();
        if let Some(size) = self.size {
            description.push(SetDescription::Size(size));
        }
        if self.intervals && concatenated {
            flags |= SetFlags::Concat;
            description.push(SetDescription::Concat(
                self.key.iter().map(|part| field_length(*part)).collect(),
            ));
        }
        if !description.is_empty() {
            attributes.push(SetAttribute::Description(description));
        }
        if self.counted {
            attributes.push(SetAttribute::Expression(
                netlink_packet_netfilter::nftables::ExpressionAttribute::Name("counter".to_owned()),
            ));
        }
        // NFTNL_UDATA_SET_KEYBYTEORDER: 1 host, 2 network.
        let order = if self.key.iter().all(|part| part.host_order()) {
            1u32
        } else {
            2
        };
        let mut user_data = vec![0, 4];
        user_data.extend(order.to_ne_bytes());
        attributes.push(SetAttribute::UserData(user_data));
        attributes.push(SetAttribute::Flags(flags));
        attributes
    }
}

/// NFTA_LIST_ELEM holding NFTA_SET_FIELD_LEN.
fn field_length(part: KeyType) -> DefaultNla {
    let length = u32::try_from(part.length()).unwrap_or_default();
    let mut value = vec![8, 0, 1, 0];
    value.extend(length.to_be_bytes());
    DefaultNla::new(1 | netlink_packet_core::NLA_F_NESTED, value)
}
