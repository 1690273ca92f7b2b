//! The corpus of the fuzz targets (fuzz/corpus), replayed without a fuzzer.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // a test may fail

#[path = "../../fuzz/body/cursor.rs"]
mod cursor;
#[path = "../../fuzz/body/job_events.rs"]
mod job_events;

use harness::corpus::replay;

#[test]
fn the_corpus_of_cursor() {
    replay("cursor", cursor::run);
}

#[test]
fn the_corpus_of_job_events() {
    replay("job_events", job_events::run);
}
