//! Which field of a body is wrong: serde's own text says where in the text it gave up, which
//! helps nobody who has a message of some kilobytes in a dead-letter queue.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

/// So much of a wrong value is shown.
const SHOWN: usize = 80;

/// A field with a value that it cannot have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongField {
    /// Its place: `jobId`, `instance_nics[0].mac`.
    pub path: String,
    /// Its value as JSON, cut off after a few words.
    pub value: String,
}

impl WrongField {
    /// Looks for the field that makes a body no `T`; `None` if no value is wrong, but
    /// something is missing, or it is no JSON.
    pub(super) fn find<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<Self> {
        let mut json = serde_json::Deserializer::from_slice(body);
        let error = serde_path_to_error::deserialize::<_, T>(&mut json).err()?;
        if !error.inner().is_data() {
            return None;
        }
        let whole: Value = serde_json::from_slice(body).ok()?;
        let value = look_up(&whole, error.path())?;
        // a value that lacks a field is right as far as it goes
        let lacks = value.is_object() && error.inner().to_string().starts_with("missing field");
        if error.path().iter().next().is_none() || lacks {
            return None;
        }
        let value = value.to_string();
        let mut shown: String = value.chars().take(SHOWN).collect();
        if shown.len() < value.len() {
            shown.push('…');
        }
        Some(Self {
            path: error.path().to_string(),
            value: shown,
        })
    }
}

impl fmt::Display for WrongField {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} = {}", self.path, self.value)
    }
}

fn look_up<'a>(whole: &'a Value, path: &Path) -> Option<&'a Value> {
    let mut value = whole;
    for segment in path {
        value = match segment {
            Segment::Map { key } => value.get(key)?,
            Segment::Seq { index } => value.get(index)?,
            Segment::Enum { .. } | Segment::Unknown => return None,
        };
    }
    Some(value)
}
