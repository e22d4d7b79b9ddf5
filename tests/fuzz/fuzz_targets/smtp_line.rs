//! Fuzz target `smtp_line`.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| postkeep_fuzz::smtp_line(octets));
