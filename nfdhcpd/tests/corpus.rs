//! The corpus of the fuzz targets (fuzz/corpus), replayed without a fuzzer.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // a test may fail

#[path = "../../fuzz/body/dhcp4.rs"]
mod dhcp4;
#[path = "../../fuzz/body/dhcp6.rs"]
mod dhcp6;
#[path = "../../fuzz/body/legacy_config.rs"]
mod legacy_config;
#[path = "../../fuzz/body/packet.rs"]
mod packet;
#[path = "../../fuzz/body/queue.rs"]
mod queue;
#[path = "../../fuzz/body/respond.rs"]
mod respond;

use harness::corpus::replay;

#[test]
fn the_corpus_of_dhcp4() {
    replay("dhcp4", dhcp4::run);
}

#[test]
fn the_corpus_of_dhcp6() {
    replay("dhcp6", dhcp6::run);
}

#[test]
fn the_corpus_of_legacy_config() {
    replay("legacy_config", legacy_config::run);
}

#[test]
fn the_corpus_of_packet() {
    replay("packet", packet::run);
}

#[test]
fn the_corpus_of_queue() {
    replay("queue", queue::run);
}

#[test]
fn the_corpus_of_respond() {
    replay("respond", respond::run);
}
