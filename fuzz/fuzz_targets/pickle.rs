//! Pickles: nothing panics, what is read is small, and its JSON is written and read again unchanged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tidegate::internals::pickle::{MAX_BYTES, MAX_JSON_BYTES, read, write_json};

fuzz_target!(|bytes: &[u8]| {
    let Ok(pickle) = read(bytes) else { return };
    let _ = pickle.as_int();
    let _ = pickle.as_text_set();
    let _ = pickle.fields().map(Iterator::count);
    let Ok(json) = pickle.to_json() else { return };
    assert!(weight(&json) <= MAX_JSON_BYTES, "more than is allowed");
    let written = write_json(&json);
    if written.len() <= MAX_BYTES {
        assert_eq!(read(&written).expect("what is written is read").to_json().expect("data"), json);
    }
});

/// The bytes of all texts except keys, which may be numbers that are longer as text.
fn weight(json: &Value) -> usize {
    match json {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(members) => members.values().map(weight).sum(),
        _ => 0,
    }
}
