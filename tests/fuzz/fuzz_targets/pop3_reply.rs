//! Fuzz target `pop3_reply`.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| postkeep_fuzz::pop3_reply(octets));
