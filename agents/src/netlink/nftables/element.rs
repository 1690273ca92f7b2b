//! Elements of sets and maps.

use std::time::Duration;

use netlink_packet_core::{DefaultNla, Nla as _};
use netlink_packet_netfilter::nftables::{
    DataAttribute, ExpressionAttribute, Expressions, ListAttribute, SetElementAttribute,
    SetElementFlags,
};

use super::statement::{Statement, Verdict, encode, verdict_data};

/// What an element of a map maps to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Data {
    /// A verdict.
    Verdict(Verdict),
    /// A value.
    Value(Vec<u8>),
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Element {
    /// The key, its parts each filled up to four bytes if there are several ([`concat`]).
    pub key: Vec<u8>,
    /// The key that ends the range, inclusive, if it is one.
    pub key_end: Option<Vec<u8>>,
    /// What it maps to, if it is of a map.
    pub data: Option<Data>,
    /// It goes after this time.
    pub timeout: Option<Duration>,
    /// It matches only what is beyond so many bytes a second, and counts that.
    pub beyond: Option<u64>,
}

impl Element {
    /// An element of a set.
    pub const fn key(key: Vec<u8>) -> Self {
        Self {
            key,
            key_end: None,
            data: None,
            timeout: None,
            beyond: None,
        }
    }

    /// All keys from `first` to `last`, of a set with [`super::Set::intervals`] and several parts.
    pub const fn range(first: Vec<u8>, last: Vec<u8>) -> Self {
        Self {
            key: first,
            key_end: Some(last),
            data: None,
            timeout: None,
            beyond: None,
        }
    }

    /// An element of a map.
    pub const fn pair(key: Vec<u8>, data: Data) -> Self {
        Self {
            key,
            key_end: None,
            data: Some(data),
            timeout: None,
            beyond: None,
        }
    }

    /// The same for what is beyond so many bytes a second, of a set. The bucket holds what
    /// comes in a second and [`Element::BURST`] more.
    #[must_use]
    pub const fn beyond(mut self, bytes: u64) -> Self {
        self.beyond = Some(bytes);
        self
    }

    /// More than the largest packet has, in bytes, so that each fits in once.
    pub const BURST: u32 = 1 << 17;

    /// The same for a limited time.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    pub(super) fn attributes(&self) -> Vec<SetElementAttribute> {
        let mut attributes = vec![SetElementAttribute::Key(DataAttribute::Value(
            self.key.clone(),
        ))];
        if let Some(end) = &self.key_end {
            attributes.push(SetElementAttribute::KeyEnd(vec![DefaultNla::new(
                1,
                end.clone(),
            )]));
        }
        match &self.data {
            None => {}
            Some(Data::Value(value)) => {
                attributes.push(SetElementAttribute::Data(DataAttribute::Value(
                    value.clone(),
                )));
            }
            Some(Data::Verdict(verdict)) => {
                attributes.push(SetElementAttribute::Data(verdict_data(verdict)));
            }
        }
        if let Some(timeout) = self.timeout {
            let milliseconds = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            attributes.push(SetElementAttribute::Timeout(milliseconds));
        }
        if let Some(bytes) = self.beyond {
            let limit = Statement::Limit {
                rate: bytes,
                seconds: 1,
                unit: super::LimitUnit::Bytes,
                burst: Self::BURST,
                over: true,
            };
            let both = [limit, Statement::Counter];
            attributes.push(SetElementAttribute::ListExpressions(
                both.iter().flat_map(encode).collect(),
            ));
        }
        attributes
    }

    /// Reads an element of a dump; `None` for the catch-all and the ends of intervals.
    pub(super) fn read(attributes: &[SetElementAttribute]) -> Option<Self> {
        let mut element = Self::key(Vec::new());
        for attribute in attributes {
            match attribute {
                SetElementAttribute::Key(DataAttribute::Value(key)) => element.key.clone_from(key),
                SetElementAttribute::KeyEnd(parts) => {
                    element.key_end = parts.first().map(|part| {
                        let mut value = vec![0; part.value_len()];
                        part.emit_value(&mut value);
                        value
                    });
                }
                SetElementAttribute::Data(DataAttribute::Value(value)) => {
                    element.data = Some(Data::Value(value.clone()));
                }
                SetElementAttribute::Data(DataAttribute::Verdict(verdict)) => {
                    element.data = Some(Data::Verdict(Verdict::read(verdict)));
                }
                SetElementAttribute::ListExpressions(list) => element.beyond = rate(list),
                SetElementAttribute::Flags(flags) if *flags != SetElementFlags::empty() => {
                    return None;
                }
                _ => {}
            }
        }
        Some(element)
    }
}

/// The rate of a limit, if one is among these.
fn rate(list: &[ListAttribute<ExpressionAttribute>]) -> Option<u64> {
    list.iter().find_map(|item| {
        let ListAttribute::Element(parts) = item else {
            return None;
        };
        parts.iter().find_map(|part| match part {
            ExpressionAttribute::Data(Expressions::Other {
                expression_type,
                attributes,
            }) if expression_type == "limit" => {
                let rate = attributes.iter().find(|nla| nla.kind() == 1)?;
                let mut bytes = [0; 8];
                if rate.value_len() != bytes.len() {
                    return None;
                }
                rate.emit_value(&mut bytes);
                Some(u64::from_be_bytes(bytes))
            }
            _ => None,
        })
    })
}

/// An interface's name as a key: 16 bytes, filled up with NUL; cut off after 15.
pub fn interface_name(name: &str) -> Vec<u8> {
    let mut key = vec![0; 16];
    for (to, from) in key.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    key
}

/// Several parts as one key: each filled up to a multiple of four bytes.
pub fn concat(parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(40);
    for part in parts {
        key.extend_from_slice(part);
        key.resize(key.len().next_multiple_of(4), 0);
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_as_the_kernel_holds_them() {
        assert_eq!(interface_name("tap0")[..5], *b"tap0\0");
        assert_eq!(interface_name("tap0").len(), 16);
        assert_eq!(interface_name("a-name-of-20-letters")[15], 0);
        let key = concat(&[&interface_name("x"), &[1, 2, 3, 4, 5, 6], &[7, 8, 9, 10]]);
        assert_eq!(key.len(), 28);
        assert_eq!(key[16..], [1, 2, 3, 4, 5, 6, 0, 0, 7, 8, 9, 10]);
    }
}
