#![no_main]
#[path = "../body/dhcp4.rs"]
mod body;
libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
