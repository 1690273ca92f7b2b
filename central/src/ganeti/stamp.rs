//! The stamp: a tag of a cluster that says which database uses the cluster, how far that
//! database was, and up to which numbers it has given out names.
//!
//! `snf-central:<prefix>:<uuid>:<generation>:<server>.<network>.<nic>.<volume>`, of characters
//! that Ganeti allows in a tag (`A-Za-z0-9_.+*/:@-`, at most 128 of them, `lib/objects.py`).

use std::fmt;

use crate::model::ids::Ids;

/// The first words of every stamp.
const KIND: &str = "snf-central";
/// The most characters of a tag in Ganeti (`constants.MAX_TAG_LEN`).
pub const LIMIT: usize = 128;

/// One stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The prefix of the names that the database gives out.
    pub prefix: String,
    /// The database.
    pub uuid: String,
    /// Grows with every stamp that the database writes.
    pub generation: i64,
    /// No number above these has been given out when the stamp was read by nobody else.
    pub reserved: Ids,
}

impl fmt::Display for Stamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ids {
            server,
            network,
            nic,
            volume,
        } = self.reserved;
        write!(
            formatter,
            "{KIND}:{}:{}:{}:{server}.{network}.{nic}.{volume}",
            self.prefix, self.uuid, self.generation
        )
    }
}

impl Stamp {
    /// Reads a tag; none: it is no stamp of this prefix.
    pub fn parse(tag: &str, prefix: &str) -> Option<Self> {
        let mut words = tag.split(':');
        if words.next() != Some(KIND) || words.next() != Some(prefix) {
            return None;
        }
        let uuid = words.next()?;
        if uuid.len() != 32 || !uuid.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let generation = number(words.next()?)?;
        let mut numbers = words.next()?.split('.').map(number);
        let mut next = || numbers.next().flatten();
        let reserved = Ids {
            server: next()?,
            network: next()?,
            nic: next()?,
            volume: next()?,
        };
        if next().is_some() || words.next().is_some() {
            return None;
        }
        Some(Self {
            prefix: prefix.to_owned(),
            uuid: uuid.to_owned(),
            generation,
            reserved,
        })
    }
}

fn number(text: &str) -> Option<i64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stamp(generation: i64, number: i64) -> Stamp {
        Stamp {
            prefix: "snf".to_owned(),
            uuid: "0123456789abcdef0123456789abcdef".to_owned(),
            generation,
            reserved: Ids {
                server: number,
                network: 2,
                nic: 3,
                volume: 4,
            },
        }
    }

    #[test]
    fn a_stamp_is_a_tag_that_ganeti_takes() {
        let mut long = stamp(1 << 40, 1 << 40);
        long.prefix = "p".repeat(32);
        let tag = long.to_string();
        assert!(tag.len() <= LIMIT, "{tag}");
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+*/:@-".contains(&byte);
        assert!(tag.bytes().all(allowed), "{tag}");
        assert_eq!(Stamp::parse(&tag, &long.prefix), Some(long));
    }

    #[test]
    fn another_tag_is_no_stamp() {
        let good = stamp(1, 1).to_string();
        for tag in [
            "",
            "labtag",
            "snf-central:snf",
            &good.replace(":snf:", ":other:"),
            &good.replace("0123", "012z"),
            &good.replace("0123", "0"),
            &good.replace(".3.4", ".3"),
            &good.replace(".3.4", ".3.-4"),
            &good.replace(".3.4", ".3.+4"),
            &format!("{good}.5"),
            &format!("{good}:5"),
            &good.replace("2.3", "99999999999999999999.3"),
        ] {
            assert_eq!(Stamp::parse(tag, "snf"), None, "{tag}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(tag in ".*") {
            let _ = Stamp::parse(&tag, "snf");
        }

        #[test]
        fn what_is_written_is_read(generation in 0..i64::MAX, number in 0..i64::MAX) {
            let stamp = stamp(generation, number);
            prop_assert_eq!(Stamp::parse(&stamp.to_string(), "snf"), Some(stamp));
        }
    }
}
