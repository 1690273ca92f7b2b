//! The corpus of the fuzz targets (fuzz/corpus), replayed without a fuzzer.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // a test may fail

#[path = "../../fuzz/body/progress.rs"]
mod progress;

use harness::corpus::replay;

#[test]
fn the_corpus_of_progress() {
    replay("progress", progress::run);
}
