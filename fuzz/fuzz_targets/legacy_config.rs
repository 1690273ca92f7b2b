#![no_main]
#[path = "../body/legacy_config.rs"]
mod body;
libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
