//! Fuzz target `pop3_command`.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| postkeep_fuzz::pop3_command(octets));
