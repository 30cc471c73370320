//! libFuzzer's way into [`lazaret_fuzz::oci_json`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lazaret_fuzz::oci_json(data));
