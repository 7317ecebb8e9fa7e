//! Messages of Django Channels' layers, in either format, with and without prefix and encryption. The first
//! byte chooses.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use tidegate::internals::msgpack::MAX_GROWTH;
use tidegate::internals::{LayerSerializer, Secret, Serializer};

/// The ways to read: bit 0 JSON, bit 1 a prefix, bit 2 encrypted, bit 3 without `type`.
static SERIALIZERS: LazyLock<Vec<Serializer>> = LazyLock::new(|| {
    let with = |choice: u8, bit: u8| choice & bit != 0;
    let serializer = |choice| {
        let format = if with(choice, 1) { LayerSerializer::Json } else { LayerSerializer::MsgPack };
        let serializer = Serializer::new(format).with_type(!with(choice, 8));
        let serializer = if with(choice, 2) { serializer.with_prefix(12) } else { serializer };
        let keys = ["other", "sekrit"].map(Secret::new);
        if with(choice, 4) { serializer.with_keys(&keys, None) } else { serializer }
    };
    (0..16).map(serializer).collect()
});

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, payload)) = bytes.split_first() else { return };
    let serializer = &SERIALIZERS[usize::from(choice % 16)];
    let Ok(message) = serializer.read(payload) else { return };
    assert!(message.json.len() <= payload.len() * MAX_GROWTH);
    let json = str::from_utf8(&message.json).expect("UTF-8");
    assert!(json.starts_with('{') && json.ends_with('}'), "{json}");
    serde_json::from_str::<IgnoredAny>(json).expect("JSON");
    let members: usize = message.members.iter().map(String::len).sum();
    assert!(members <= payload.len());
});
