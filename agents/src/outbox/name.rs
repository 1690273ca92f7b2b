//! The names of files in the outbox.

use std::fmt;

use super::Class;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// One message of this class.
    One(Class),
    /// Messages of any class, one a line.
    Batch,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::One(Class::Progress) => "progress",
            Self::One(Class::Status) => "status",
            Self::One(Class::Final) => "final",
            Self::Batch => "batch",
        }
    }
}

/// The name of a file in the outbox: `<time>-<producer>-<number>.<kind>.json`. Names sort by
/// time (microseconds since 1970), then by producer, then by number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName {
    /// Microseconds since 1970.
    pub time: u64,
    /// The process that wrote it.
    pub producer: u32,
    /// Its how manieth file.
    pub number: u32,
    /// What it holds.
    pub kind: Kind,
}

impl fmt::Display for FileName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:016}-{:010}-{:06}.{}.json",
            self.time,
            self.producer,
            self.number,
            self.kind.word()
        )
    }
}

impl FileName {
    /// Reads a name; `None` if it is not one of an outbox.
    pub fn parse(name: &str) -> Option<Self> {
        let stem = name.strip_suffix(".json")?;
        let (numbers, kind) = stem.split_once('.')?;
        let kind = match kind {
            "progress" => Kind::One(Class::Progress),
            "status" => Kind::One(Class::Status),
            "final" => Kind::One(Class::Final),
            "batch" => Kind::Batch,
            _ => return None,
        };
        let mut numbers = numbers.split('-');
        let parsed = Self {
            time: number(numbers.next()?)?,
            producer: number(numbers.next()?)?,
            number: number(numbers.next()?)?,
            kind,
        };
        // One name for one file, so that what is listed can be opened by its parsed name.
        (numbers.next().is_none() && parsed.to_string() == name).then_some(parsed)
    }
}

fn number<T: std::str::FromStr>(digits: &str) -> Option<T> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written_and_sorts_by_time() {
        let early = FileName {
            time: 1_795_364_206_646_829,
            producer: 4_194_304,
            number: 7,
            kind: Kind::One(Class::Final),
        };
        let late = FileName {
            time: early.time + 1,
            producer: 1,
            number: 0,
            kind: Kind::Batch,
        };
        for name in [&early, &late] {
            assert_eq!(FileName::parse(&name.to_string()).as_ref(), Some(name));
        }
        assert!(early < late);
        assert!(early.to_string() < late.to_string());
    }

    #[test]
    fn other_names_are_not_ours() {
        for name in [
            "",
            ".json",
            ".1795364206646829-0000000001-000001.final.json",
            "1-2-3.final.json",
            "1795364206646829-0000000001-000001.final",
            "1795364206646829-0000000001-000001.other.json",
            "1795364206646829-0000000001-000001-1.final.json",
            "+795364206646829-0000000001-000001.final.json",
            "bad",
        ] {
            assert_eq!(FileName::parse(name), None, "{name:?}");
        }
    }
}
