//! Messages of a client, and any bytes: the codec, the parser and the values' readers do not panic.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(
    // libFuzzer's hook would abort at panics of the decoder that the codec catches; those that
    // nobody catches abort all the same.
    init: std::panic::set_hook(Box::new(|_| {})),
    |bytes: &[u8]| {
        starkeep::wire::check_bytes(bytes);
        starkeep::wire::check_bytes(&starkeep_fuzz::messages(bytes));
    }
);
