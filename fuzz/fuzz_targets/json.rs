//! Publications: the validator agrees with serde_json, up to its depth, and what clients get is JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use tidegate::internals::json::{has_lone_surrogate, json_members, json_text, published_object};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let by_serde = serde_json::from_str::<&RawValue>(text).ok().map(RawValue::get);
    match json_text(text) {
        Some(json) => {
            let is_unchanged = matches!(json, std::borrow::Cow::Borrowed(_));
            assert_eq!(by_serde.is_some(), is_unchanged);
            assert!(!is_unchanged || by_serde == Some(&*json));
            serde_json::from_str::<&RawValue>(&json).expect("JSON");
            let is_readable = serde_json::from_str::<String>(&json).is_ok();
            assert!(!json.starts_with('"') || is_readable != has_lone_surrogate(&json));
            let members = json_members(&json).map(|(name, value)| format!("{name}:{value}"));
            let rebuilt = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
            if json.starts_with('{') {
                serde_json::from_str::<&RawValue>(&rebuilt).expect("JSON again");
            }
        }
        None => assert!(by_serde.is_none_or(|json| depth(json) > 512)),
    }
    let object = published_object(text).json;
    assert!(object.starts_with('{'));
    serde_json::from_str::<&RawValue>(&object).expect("JSON");
});

/// At least the depth of a JSON text.
fn depth(json: &str) -> usize {
    json.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count()
}
