//! The corpus of the fuzz targets (fuzz/corpus), replayed without a fuzzer.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // a test may fail

#[path = "../../fuzz/body/binding.rs"]
mod binding;
#[path = "../../fuzz/body/config_data.rs"]
mod config_data;
#[path = "../../fuzz/body/hook_environment.rs"]
mod hook_environment;
#[path = "../../fuzz/body/job.rs"]
mod job;
#[path = "../../fuzz/body/message.rs"]
mod message;
#[path = "../../fuzz/body/nic_environment.rs"]
mod nic_environment;
#[path = "../../fuzz/body/outbox.rs"]
mod outbox;
#[path = "../../fuzz/body/ssconf.rs"]
mod ssconf;

use harness::corpus::replay;

#[test]
fn the_corpus_of_binding() {
    replay("binding", binding::run);
}

#[test]
fn the_corpus_of_config_data() {
    replay("config_data", config_data::run);
}

#[test]
fn the_corpus_of_hook_environment() {
    replay("hook_environment", hook_environment::run);
}

#[test]
fn the_corpus_of_job() {
    replay("job", job::run);
}

#[test]
fn the_corpus_of_message() {
    replay("message", message::run);
}

#[test]
fn the_corpus_of_nic_environment() {
    replay("nic_environment", nic_environment::run);
}

#[test]
fn the_corpus_of_outbox() {
    replay("outbox", outbox::run);
}

#[test]
fn the_corpus_of_ssconf() {
    replay("ssconf", ssconf::run);
}
