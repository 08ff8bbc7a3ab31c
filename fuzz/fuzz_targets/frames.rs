//! Arbitrary bytes as the journal's group headers, tables and frame heads.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| millstream_log::fuzzing::decode(bytes));
