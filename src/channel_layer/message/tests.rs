//! Tests of parsing messages, with payloads that channels_redis wrote.

use proptest::prelude::*;

use super::*;
use crate::msgpack::MAX_GROWTH;

const MEMBER: &str = "specific.0123456789abcdef0123456789abcdef!gw.conv-1";

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().map(|b| (b as char).to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn core(format: LayerSerializer) -> Serializer {
    Serializer::new(format).with_prefix(12)
}

fn json_of(message: &LayerMessage) -> &str {
    str::from_utf8(&message.json).unwrap()
}

/// Payloads that channels_redis 4.3.0 put into a mailbox.
#[test]
fn captures_of_the_core_layer_are_read() {
    for (hex, json) in [
        (
            "35d5f11afdd1246c7a54635884a474797065ac636861742e6d657373616765a56576656e74b270726f636573\
             73696e675f73746172746564af636f6e766572736174696f6e5f6964a6636f6e762d31b05f5f617367695f63\
             68616e6e656c5f5f91d93373706563696669632e303132333435363738396162636465663031323334353637\
             38396162636465662167772e636f6e762d31",
            r#"{"type":"chat.message","event":"processing_started","conversation_id":"conv-1"}"#,
        ),
        (
            "7c8349fbb8e542394d0ba74f86a474797065ac636861742e6d657373616765a56576656e74a56368756e6ba5\
             6368756e6baa436166c3a920f09f9a80af636f6e766572736174696f6e5f6964a6636f6e762d31a373657100\
             b05f5f617367695f6368616e6e656c5f5f91d93373706563696669632e303132333435363738396162636465\
             66303132333435363738396162636465662167772e636f6e762d31",
            r#"{"type":"chat.message","event":"chunk","chunk":"Café 🚀","conversation_id":"conv-1","seq":0}"#,
        ),
        (
            "6f6ed484267a2930194945ea86a474797065ac636861742e6d657373616765a56576656e74a8746f6f6c5f65\
             6e64a4746f6f6cac66696e645f636f6e74656e74a66f757470757488a773756363657373c3a573636f7265cb\
             3fe0000000000000a16efda3626967cf0000010000000000a178c0a4746167739201a161a362696ec40200ff\
             07a7696e742d6b6579af636f6e766572736174696f6e5f6964a6636f6e762d31b05f5f617367695f6368616e\
             6e656c5f5f91d93373706563696669632e303132333435363738396162636465663031323334353637383961\
             62636465662167772e636f6e762d31",
            r#"{"type":"chat.message","event":"tool_end","tool":"find_content","output":{"success":true,"score":0.5,"n":-3,"big":1099511627776,"x":null,"tags":[1,"a"],"bin":"AP8=","7":"int-key"},"conversation_id":"conv-1"}"#,
        ),
    ] {
        let message = core(LayerSerializer::MsgPack).read(&unhex(hex)).unwrap();
        assert_eq!(json_of(&message), json);
        assert_eq!(message.message_type.as_deref(), Some("chat.message"));
        assert_eq!(message.members, [MEMBER]);
        let without_type =
            core(LayerSerializer::MsgPack).with_type(false).read(&unhex(hex)).unwrap();
        assert_eq!(json_of(&without_type), json.replace(r#""type":"chat.message","#, ""));
        assert_eq!(without_type.message_type, message.message_type);
    }
}

/// Payloads of the pub/sub layer have neither a prefix nor `__asgi_channel__`.
#[test]
fn a_capture_of_the_pubsub_layer_is_read() {
    let payload = unhex(
        "83a474797065ac636861742e6d657373616765a56576656e74b270726f63657373696e675f73746172746564af636f\
         6e766572736174696f6e5f6964a6636f6e762d31",
    );
    let message = Serializer::new(LayerSerializer::MsgPack).read(&payload).unwrap();
    assert!(json_of(&message).starts_with(r#"{"type":"chat.message","event":"#));
    assert!(message.members.is_empty());
}

#[test]
fn encrypted_messages_are_read() {
    let pubsub = "gAAAAABrBNGXGsh4oddItLQ5t7O7_7yqHoDaoG4mE4r45JHMZRG2Vd3gmFL6aH_WdIaSCrTeXtLhjNe2LkIb\
        MDRKaYqSQbOegQzGKd1F2Co_SwjdiQiwO9qaqqjsTPzqLzNgWPr6-HiWWtx_n7owlPSgbZh4eKQUwqjPOqDSpmYR_BscQovFIsQ=";
    let keys = ["new", "sekrit"].map(Secret::new);
    let open = |keys: &[Secret]| {
        Serializer::new(LayerSerializer::MsgPack).with_keys(keys, None).read(pubsub.as_bytes())
    };
    assert!(json_of(&open(&keys).unwrap()).contains("processing_started"));
    assert_eq!(open(&keys[..1]), Err(BadMessage::Sealed));
    // This was written by the core layer of channels_redis 4.3.0, at the Unix time 1795478000.
    let core_payload = unhex(
        "12cd7f6500a7d49d890a8abe6741414141414272424e48776b46556479714d496c4f6d6a645f3639362d52567035776\
         9526f36334331756e4f77525472455839735467587a55674d614b666d446d4d7a6f757434563632454a46755f306b68\
         4263444e31354277466b4751575241487377696d515762735047454d4839345068616e354734686d565657495255674\
         f536f306a54486d684c566d766f534a7174534868662d51652d3848537a32673d3d",
    );
    let layer = core(LayerSerializer::MsgPack).with_keys(&keys, Some(Duration::from_secs(70)));
    let message = layer.read_at(&core_payload, 1_795_478_070).unwrap();
    assert_eq!(json_of(&message), r#"{"type":"chat.message","event":"x"}"#);
    assert_eq!(message.members, ["specific.a!b"]);
    assert_eq!(layer.read_at(&core_payload, 1_795_478_071), Err(BadMessage::Sealed));
    assert_eq!(layer.read_at(&core_payload[12..], 1_795_478_000), Err(BadMessage::Sealed));
}

#[test]
fn json_of_python_is_read() {
    let text = r#"{"type": "chat.message", "event": "chunk", "chunk": "Caf\u00e9 \ud83d\ude80", "x": NaN, "y": [Infinity, -Infinity], "s": "NaN, \" -Infinity", "__asgi_channel__": ["specific.a!b", "specific.a!c"]}"#;
    let payload = [b"twelve bytes", text.as_bytes()].concat();
    let message = core(LayerSerializer::Json).read(&payload).unwrap();
    assert_eq!(
        json_of(&message),
        r#"{"type":"chat.message","event":"chunk","chunk":"Caf\u00e9 \ud83d\ude80","x":"NaN","y":["Infinity", "-Infinity"],"s":"NaN, \" -Infinity"}"#
    );
    assert_eq!(message.members, ["specific.a!b", "specific.a!c"]);
    assert_eq!(message.message_type.as_deref(), Some("chat.message"));
    let short = core(LayerSerializer::Json).with_type(false).read(&payload).unwrap();
    assert!(json_of(&short).starts_with(r#"{"event":"chunk","#));
}

#[test]
fn special_members_are_removed_at_any_position() {
    let read =
        |text: &str| Serializer::new(LayerSerializer::Json).with_type(false).read(text.as_bytes());
    for (text, json) in [
        ("{}", "{}"),
        (r#"{"type":"t"}"#, "{}"),
        (r#"{"type":"t","a":1}"#, r#"{"a":1}"#),
        (r#"{"a":1,"type":"t"}"#, r#"{"a":1}"#),
        (r#"{"a":1,"type":"t","b":2,"__asgi_channel__":"x","c":3}"#, r#"{"a":1,"b":2,"c":3}"#),
        (
            r#"{"nested":{"type":1,"__asgi_channel__":1}}"#,
            r#"{"nested":{"type":1,"__asgi_channel__":1}}"#,
        ),
    ] {
        assert_eq!(json_of(&read(text).unwrap()), json);
    }
    assert_eq!(read(r#"{"type":7}"#).unwrap().message_type, None);
}

#[test]
fn invalid_payloads_are_distinguished() {
    use BadMessage::{Malformed, Members, NotAMap};
    let msgpack = Serializer::new(LayerSerializer::MsgPack);
    for (payload, why) in [
        (&b""[..], Malformed),
        (b"\xc0", NotAMap),
        (b"\x91\x01", NotAMap),
        (b"\x81\xa1a", Malformed),
        (b"\x80\x80", Malformed),
        (b"\x81\xb0__asgi_channel__\x01", Members),
        (b"\x81\xb0__asgi_channel__\x91\x01", Members),
        (b"\x81\xb0__asgi_channel__\xa1\xff", Members),
    ] {
        assert_eq!(msgpack.read(payload), Err(why), "{payload:x?}");
    }
    let json = Serializer::new(LayerSerializer::Json);
    for (payload, why) in [
        (&b""[..], NotAMap),
        (b"[]", NotAMap),
        (b"NaN", NotAMap),
        (b"{", Malformed),
        (b"{} x", Malformed),
        (b"{\"a\":\"\xff\"}", Malformed),
        (b"{\"a\":-NaN}", Malformed),
        (b"{\"__asgi_channel__\":{}}", Members),
    ] {
        assert_eq!(json.read(payload), Err(why), "{payload:x?}");
    }
    assert_eq!(core(LayerSerializer::MsgPack).read(b"eleven byte"), Err(Malformed));
}

proptest! {
    #[test]
    fn no_payload_panics(
        body in proptest::collection::vec(any::<u8>(), 0..200),
        entries in 0u8..16,
        prefix in 0usize..16,
    ) {
        let payload = [&[0x80 | entries], &body[..]].concat();
        let keys = [Secret::new("k")];
        for format in [LayerSerializer::MsgPack, LayerSerializer::Json] {
            let layer = Serializer::new(format).with_prefix(prefix);
            for payload in [&payload, &body] {
                if let Ok(message) = layer.read(payload) {
                    prop_assert!(message.json.len() <= MAX_GROWTH * payload.len());
                    prop_assert!(serde_json::from_slice::<serde_json::Value>(&message.json).is_ok());
                }
            }
            prop_assert!(layer.with_keys(&keys, None).read(&payload).is_err());
        }
    }
}

#[test]
fn one_string_or_several_are_parsed() {
    assert_eq!(texts(r#""a!b""#), Some(vec!["a!b".to_owned()]));
    assert_eq!(texts(r#"["a", "b"]"#), Some(vec!["a".to_owned(), "b".to_owned()]));
    for wrong in ["1", "null", "{}", r#"["a", 1]"#, r#""a"#] {
        assert_eq!(texts(wrong), None, "{wrong}");
    }
}

/// The same treatment as on every other way in.
#[test]
fn json_of_python_keeps_what_other_programs_cannot_read() {
    let read = |text: &str| {
        let message = Serializer::new(LayerSerializer::Json).read(text.as_bytes());
        message.map(|message| String::from_utf8(message.json).unwrap())
    };
    let surrogates = r#"{"type":"a","\ud800":"\ud83d","b":{"\udc00":1}}"#;
    assert_eq!(read(surrogates).as_deref(), Ok(surrogates));
    assert_eq!(read(r#"{"a": [NaN, -Infinity]}"#).as_deref(), Ok(r#"{"a":["NaN", "-Infinity"]}"#));
    for malformed in ["{'a': 1}", "{\"a\":1,}", "{\"a\":01}", "{\"a\":\"\n\"}", "{\"a\":1}}"] {
        assert_eq!(read(malformed), Err(BadMessage::Malformed), "{malformed}");
    }
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(600), "]".repeat(600));
    assert_eq!(read(&deep), Err(BadMessage::Malformed));
    // In MessagePack, Python writes a lone surrogate only if it is told to, as bytes that are not UTF-8.
    let packed =
        Serializer::new(LayerSerializer::MsgPack).read(b"\x81\xa1a\xa3\xed\xa0\xbd").unwrap();
    assert_eq!(packed.json, br#"{"a":"7aC9"}"#);
}
