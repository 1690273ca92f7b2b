#![no_main]
#[path = "../body/nic_request.rs"]
mod body;
libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
