//! The identity of an event.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

/// The identity of an event: the AMQP `message_id`, 32 hexadecimal digits.
///
/// It is a hash of what the event is, not of who saw it: a master fail-over, a restart or a
/// repeated delivery repeats an id instead of inventing one, and a consumer drops an id that
/// it has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId([u8; 16]);

impl EventId {
    /// The id of a status, or of a new log line, of an operation in a Ganeti job.
    ///
    /// `op` is the operation's place in the job, `log` the number of lines that its log had.
    /// `object` tells apart the several messages that one operation gives if it is on several
    /// instances; it is empty for an operation on one object.
    pub fn of_job(
        cluster: &str,
        job: u64,
        op: usize,
        status: &str,
        log: usize,
        object: &str,
    ) -> Self {
        let (job, op, log) = (job.to_string(), op.to_string(), log.to_string());
        Self::hash(&["job", cluster, &job, &op, status, &log, object])
    }

    /// The id of something that is in no job file: `parts` must tell it apart from all else
    /// that ever happens (a hook takes the cluster, its path, the instance and the time).
    pub fn of_parts(parts: &[&str]) -> Self {
        let mut all = Vec::with_capacity(parts.len().saturating_add(1));
        all.push("parts");
        all.extend_from_slice(parts);
        Self::hash(&all)
    }

    fn hash(parts: &[&str]) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            // The length goes first, so that ("a", "bc") and ("ab", "c") differ.
            let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
            hasher.update(length.to_be_bytes());
            hasher.update(part.as_bytes());
        }
        let digest = hasher.finalize();
        let mut id = [0; 16];
        for (to, from) in id.iter_mut().zip(digest.iter()) {
            *to = *from;
        }
        Self(id)
    }

    /// Reads 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut id = [0; 16];
        let digits = text.as_bytes();
        if digits.len() != 32 {
            return None;
        }
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            let mut value = 0u8;
            for digit in pair {
                let nibble = char::from(*digit).to_digit(16)?;
                value = value << 4 | u8::try_from(nibble).ok()?;
            }
            *byte = value;
        }
        Some(Self(id))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(formatter, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| de::Error::custom(format_args!("event id {text:?}: not 32 hex digits")))
    }
}
