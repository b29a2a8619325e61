//! Manifests that differ from a good one in a few places, and any bytes: they are refused, or name
//! only what is theirs.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    starkeep::repository::check_manifest(&starkeep_fuzz::manifest(bytes));
    if let Ok(text) = std::str::from_utf8(bytes) {
        starkeep::repository::check_manifest(text);
    }
});
