//! MessagePack: whatever is accepted becomes JSON that parses and that is no larger than documented.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use tidegate::internals::msgpack::{MAX_GROWTH, to_json};

fuzz_target!(|bytes: &[u8]| {
    let mut json = Vec::new();
    if to_json(bytes, &mut json).is_err() {
        return;
    }
    assert!(json.len() <= bytes.len() * MAX_GROWTH, "{} of {}", json.len(), bytes.len());
    let json = str::from_utf8(&json).expect("UTF-8");
    serde_json::from_str::<IgnoredAny>(json).expect("JSON");
});
