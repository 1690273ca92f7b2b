//! The corpus of the fuzz targets (fuzz/corpus), replayed without a fuzzer.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // a test may fail

#[path = "../../fuzz/body/nic_request.rs"]
mod nic_request;

use harness::corpus::replay;

#[test]
fn the_corpus_of_nic_request() {
    replay("nic_request", nic_request::run);
}
