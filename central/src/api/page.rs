//! What lists have in common: `limit`, `marker`, `changes-since`.

use axum::extract::{FromRequestParts, RawQuery};
use axum::http::request::Parts;

use super::fault::Fault;
use crate::model::moment;

/// The most that one page has.
pub const LIMIT: u64 = 1000;

/// The parameters of a query string.
pub struct Parameters(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let RawQuery(query) = RawQuery::from_request_parts(parts, state)
            .await
            .unwrap_or_else(|never| match never {});
        let pairs = url_pairs(query.as_deref().unwrap_or_default());
        for (name, value) in &pairs {
            if value.contains('\0') || name.contains('\0') {
                return Err(Fault::field(name, "…", "has a NUL character"));
            }
        }
        Ok(Self(pairs))
    }
}

fn url_pairs(query: &str) -> Vec<(String, String)> {
    // `reqwest::Url` has the form decoder that everybody uses.
    reqwest::Url::parse(&format!("http://x/?{query}"))
        .map(|url| url.query_pairs().into_owned().collect())
        .unwrap_or_default()
}

impl Parameters {
    /// The first value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// A whole number that is not negative.
    pub fn number(&self, name: &str) -> Result<Option<i64>, Fault> {
        self.get(name)
            .map(|text| {
                text.parse::<i64>()
                    .ok()
                    .filter(|number| *number >= 0)
                    .ok_or_else(|| Fault::field(name, text, "must be a whole number from 0 on"))
            })
            .transpose()
    }

    /// `true` or `false`.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, Fault> {
        self.get(name)
            .map(|text| match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "t" | "yes" => Ok(true),
                "false" | "0" | "f" | "no" => Ok(false),
                _ => Err(Fault::field(name, text, "must be true or false")),
            })
            .transpose()
    }

    /// How many rows are wanted: at most [`LIMIT`].
    pub fn limit(&self) -> Result<u64, Fault> {
        let wanted = self.number("limit")?;
        Ok(wanted
            .and_then(|limit| u64::try_from(limit).ok())
            .map_or(LIMIT, |limit| limit.min(LIMIT)))
    }

    /// A point in time.
    pub fn time(&self, name: &str) -> Result<Option<i64>, Fault> {
        self.get(name)
            .map(|text| {
                moment::parse_iso(text).ok_or_else(|| {
                    Fault::field(name, text, "must be a time, as 2026-11-22T18:02:26Z")
                })
            })
            .transpose()
    }

    /// Since when changes are wanted.
    pub fn changes_since(&self) -> Result<Option<i64>, Fault> {
        let name = "changes-since";
        let (Some(text), Some(since)) = (self.get(name), self.time(name)?) else {
            return Ok(None);
        };
        // A client whose clock is a little ahead is no reason to refuse.
        if since > moment::now().saturating_add(60_000_000) {
            return Err(Fault::field(name, text, "is in the future"));
        }
        Ok(Some(since))
    }
}
