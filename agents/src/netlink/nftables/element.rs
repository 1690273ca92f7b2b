//! Elements of sets and maps.

use std::time::Duration;

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{DataAttribute, SetElementAttribute, SetElementFlags};

use super::statement::{Verdict, verdict_data};

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
}

impl Element {
    /// An element of a set.
    pub const fn key(key: Vec<u8>) -> Self {
        Self {
            key,
            key_end: None,
            data: None,
            timeout: None,
        }
    }

    /// All keys from `first` to `last`, of a set with [`super::Set::intervals`] and several parts.
    pub const fn range(first: Vec<u8>, last: Vec<u8>) -> Self {
        Self {
            key: first,
            key_end: Some(last),
            data: None,
            timeout: None,
        }
    }

    /// An element of a map.
    pub const fn pair(key: Vec<u8>, data: Data) -> Self {
        Self {
            key,
            key_end: None,
            data: Some(data),
            timeout: None,
        }
    }

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
                        let mut value = vec![0; netlink_packet_core::Nla::value_len(part)];
                        netlink_packet_core::Nla::emit_value(part, &mut value);
                        value
                    });
                }
                SetElementAttribute::Data(DataAttribute::Value(value)) => {
                    element.data = Some(Data::Value(value.clone()));
                }
                SetElementAttribute::Data(DataAttribute::Verdict(verdict)) => {
                    element.data = Some(Data::Verdict(Verdict::read(verdict)));
                }
                SetElementAttribute::Flags(flags) if *flags != SetElementFlags::empty() => {
                    return None;
                }
                _ => {}
            }
        }
        Some(element)
    }
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
