//! Any bytes of a client: the codec, the parser and the values' readers do not panic.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| starkeep::wire::check_bytes(bytes));
