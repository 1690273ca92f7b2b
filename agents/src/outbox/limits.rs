//! Keeping an outbox within bounds while the broker is away.

use std::fs;
use std::io;
use std::time::Duration;

use super::{Class, FileName, Kind, Outbox};
use crate::message::EventTime;

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in files.
    pub bytes: u64,
    /// The age at which what is not final is dropped even if there is room.
    pub age: Duration,
}

/// What was dropped to stay within the limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Messages that said how something was going.
    pub progress: usize,
    /// Messages about states on the way.
    pub status: usize,
    /// The bytes that are still above the limit: final states, which are never dropped.
    pub above: u64,
}

impl Trimmed {
    /// How many messages were dropped.
    pub fn messages(&self) -> usize {
        self.progress.saturating_add(self.status)
    }
}

impl Outbox {
    /// Drops messages until the limits are kept: first the oldest progress, then the oldest
    /// states on the way; final states never. Files that `in_use` names (they are being
    /// published) are left alone.
    ///
    /// # Errors
    /// The folder cannot be read or a file cannot be written.
    pub fn trim(&self, limits: Limits, in_use: impl Fn(&FileName) -> bool) -> io::Result<Trimmed> {
        let mut trimmed = Trimmed::default();
        let mut waiting = Vec::new();
        let mut bytes = 0u64;
        for name in self.list()? {
            // A producer may have taken it back by now.
            let Ok(file) = fs::metadata(self.path(&name)) else {
                continue;
            };
            bytes = bytes.saturating_add(file.len());
            if !in_use(&name) {
                waiting.push((name, file.len()));
            }
        }
        let now = EventTime::now().since_epoch();
        let too_old = now.saturating_sub(limits.age).as_micros();
        let old = |name: &FileName| u128::from(name.time) < too_old;
        for class in [Class::Progress, Class::Status] {
            for (name, length) in &mut waiting {
                if bytes <= limits.bytes && !old(name) {
                    break; // the rest is younger
                }
                let (dropped, left) = self.drop_class(name, class, *length)?;
                bytes = bytes.saturating_sub(length.saturating_sub(left));
                *length = left;
                match class {
                    Class::Progress => trimmed.progress = trimmed.progress.saturating_add(dropped),
                    _ => trimmed.status = trimmed.status.saturating_add(dropped),
                }
            }
        }
        trimmed.above = bytes.saturating_sub(limits.bytes);
        Ok(trimmed)
    }

    /// Drops the messages of a class from a file: how many, and the bytes that are left.
    fn drop_class(&self, name: &FileName, class: Class, length: u64) -> io::Result<(usize, u64)> {
        match name.kind {
            _ if length == 0 => Ok((0, 0)),
            Kind::One(own) if own == class => {
                self.remove(name)?;
                Ok((1, 0))
            }
            Kind::One(_) => Ok((0, length)),
            Kind::Batch => {
                let Ok(entries) = self.read(name) else {
                    return Ok((0, length)); // the reader will set it aside
                };
                let before = entries.len();
                let kept: Vec<_> = entries
                    .into_iter()
                    .filter(|entry| entry.class != class)
                    .collect();
                let dropped = before.saturating_sub(kept.len());
                if dropped == 0 {
                    return Ok((0, length));
                }
                Ok((dropped, self.keep(name, &kept)?))
            }
        }
    }
}
