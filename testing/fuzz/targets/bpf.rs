//! libFuzzer's way into [`lazaret_fuzz::bpf`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lazaret_fuzz::bpf(data));
