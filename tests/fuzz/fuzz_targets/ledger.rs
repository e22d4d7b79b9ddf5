//! Fuzz target `ledger`.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| postkeep_fuzz::ledger(octets));
