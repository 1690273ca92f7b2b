//! Points in time: microseconds since 1970 in the database, ISO 8601 towards people.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The time now, in microseconds since 1970 (UTC).
pub fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// `2026-11-22T18:02:26Z`; an empty text for a time that no calendar has.
pub fn iso(micros: i64) -> String {
    OffsetDateTime::from_unix_timestamp(micros.div_euclid(1_000_000))
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// `2026-11-22T18:02:26.000000Z`, as the identity service of OpenStack writes it.
pub fn iso_micros(micros: i64) -> String {
    let seconds = iso(micros);
    let fraction = micros.rem_euclid(1_000_000);
    match seconds.strip_suffix('Z') {
        Some(body) => format!("{body}.{fraction:06}Z"),
        None => seconds,
    }
}

/// Reads what [`iso`] writes, also with a fraction, another zone, or none (UTC is meant).
pub fn parse_iso(text: &str) -> Option<i64> {
    let text = text.trim().replace(' ', "+");
    let parsed = OffsetDateTime::parse(&text, &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(&format!("{text}Z"), &Rfc3339))
        .ok()?;
    i64::try_from(parsed.unix_timestamp_nanos() / 1000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read() {
        let micros = 1_795_364_201_971_093;
        assert_eq!(iso(micros), "2026-11-22T16:16:41Z");
        assert_eq!(iso_micros(micros), "2026-11-22T16:16:41.971093Z");
        assert_eq!(parse_iso("2026-11-22T16:16:41.971093Z"), Some(micros));
        assert_eq!(parse_iso("2026-11-22T16:16:41.971093"), Some(micros));
        // A plus sign that came through a query string unescaped.
        assert_eq!(parse_iso("2026-11-22T17:16:41.971093 01:00"), Some(micros));
    }

    #[test]
    fn what_is_no_time_is_not_read() {
        for text in ["", "yesterday", "2026-13-01T00:00:00Z", "1795364201"] {
            assert_eq!(parse_iso(text), None, "{text}");
        }
        assert_eq!(iso(i64::MAX), "");
    }
}
