//! libFuzzer's way into [`lazaret_fuzz::policy_text`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lazaret_fuzz::policy_text(data));
