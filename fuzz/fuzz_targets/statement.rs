//! Any text: the parser does not panic, and what it reads it can print and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| starkeep::statement::check_round_trip(text));
