//! A text with structure, and the same bytes as a text: the parser does not panic, and what it
//! reads it can print and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    starkeep::statement::check_round_trip(&starkeep_fuzz::statement(bytes));
    if let Ok(text) = std::str::from_utf8(bytes) {
        starkeep::statement::check_round_trip(text);
    }
});
