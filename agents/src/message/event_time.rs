//! The time of an event.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// When something happened, by the clock of the node that saw it: in JSON
/// `[seconds since 1970, microseconds]`, as Ganeti writes times in job files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTime {
    seconds: u64,
    microseconds: u32,
}

impl EventTime {
    /// A time of whole seconds and microseconds since 1970; `None` if there are a million
    /// microseconds or more.
    pub fn new(seconds: u64, microseconds: u32) -> Option<Self> {
        (microseconds < 1_000_000).then_some(Self {
            seconds,
            microseconds,
        })
    }

    /// Now, by this node's clock. A clock set before 1970 gives 1970.
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            seconds: since.as_secs(),
            microseconds: since.subsec_micros(),
        }
    }

    /// Seconds since 1970.
    pub fn seconds(self) -> u64 {
        self.seconds
    }

    /// The microseconds in that second, below a million.
    pub fn microseconds(self) -> u32 {
        self.microseconds
    }

    /// The time since 1970.
    pub fn since_epoch(self) -> Duration {
        Duration::new(self.seconds, self.microseconds.saturating_mul(1000))
    }
}

impl Serialize for EventTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.seconds, self.microseconds).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for EventTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (seconds, microseconds) = <(u64, u32)>::deserialize(deserializer)?;
        Self::new(seconds, microseconds).ok_or_else(|| {
            de::Error::custom(format_args!(
                "event time [{seconds}, {microseconds}]: a million microseconds or more"
            ))
        })
    }
}
