//! Links to an object.

use serde_json::{Value, json};

use super::caller::Caller;

/// `self` and `bookmark`.
pub fn of(caller: &Caller, path: &str) -> Value {
    let href = caller.url(path);
    json!([{"rel": "self", "href": href}, {"rel": "bookmark", "href": href}])
}
