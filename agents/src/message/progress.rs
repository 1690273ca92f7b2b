//! The messages of an image deployment.

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};

use super::EventTime;

/// Every image deployment's `type` begins with this.
pub(super) const TYPE_PREFIX: &str = "image-";

/// Something that an image deployment (the OS definition on the node) told: the object it
/// wrote, with the instance and the time added.
///
/// `image-copy-progress` has `progress` (percent), `position` and `total` (bytes);
/// `image-error`, `image-warning`, `image-info` have `messages` or the like;
/// `image-helper` has `subtype` and more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProgressMessage {
    /// What it is: `image-copy-progress`.
    #[serde(rename = "type", deserialize_with = "image_type")]
    pub kind: String,
    /// When the node read it, by the node's clock (not the master's: it must not be compared
    /// with the times of other messages).
    pub event_time: EventTime,
    /// The instance's name.
    pub instance: String,
    /// All other fields, as they came.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl ProgressMessage {
    /// The percentage of the image that is in place, if this message says; between 0 and 100.
    pub fn percent(&self) -> Option<u8> {
        if self.kind != "image-copy-progress" {
            return None;
        }
        let value = self.fields.get("progress")?;
        let whole = match value {
            Value::Number(number) => number.as_f64()?,
            Value::String(text) => text.trim().parse().ok()?,
            _ => return None,
        };
        // NaN cannot come out of JSON; a string can still say it.
        (0.0..=100.0).contains(&whole).then(|| {
            (0..=100u8)
                .rev()
                .find(|percent| f64::from(*percent) <= whole)
                .unwrap_or_default()
        })
    }
}

fn image_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let kind = String::deserialize(deserializer)?;
    if kind.starts_with(TYPE_PREFIX) {
        Ok(kind)
    } else {
        Err(de::Error::custom(format_args!(
            "type {kind:?} does not begin with {TYPE_PREFIX:?}"
        )))
    }
}
