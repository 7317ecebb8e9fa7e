use super::*;

fn object(text: &str) -> (String, Option<NotJson>) {
    let PublishedObject { json, fault } = published_object(text);
    (json.into_owned(), fault)
}

#[test]
fn every_publication_becomes_an_object() {
    use NotJson::{BareFloats, Text};
    for (text, expected, fault) in [
        (r#" {"a": 1} "#, r#"{"a": 1}"#, None),
        ("[1]", r#"{"event":"message","data":[1]}"#, None),
        (" null", r#"{"event":"message","data":null}"#, None),
        ("\"{}\"", r#"{"event":"message","data":"{}"}"#, None),
        ("hello \"you\"", r#"{"event":"message","data":"hello \"you\""}"#, None),
        ("", r#"{"event":"message","data":""}"#, None),
        (" 1.", r#"{"event":"message","data":" 1."}"#, None),
        (r#"{"a":NaN}"#, r#"{"a":"NaN"}"#, Some(BareFloats)),
        ("[-Infinity]", r#"{"event":"message","data":["-Infinity"]}"#, Some(BareFloats)),
        ("{'a': 1}", r#"{"event":"message","data":"{'a': 1}"}"#, Some(Text)),
        (r#"{"a":1,}"#, r#"{"event":"message","data":"{\"a\":1,}"}"#, Some(Text)),
        ("{\"a\":\"\n\"}", r#"{"event":"message","data":"{\"a\":\"\n\"}"}"#, Some(Text)),
        (r#"{"a":nan}"#, r#"{"event":"message","data":"{\"a\":nan}"}"#, Some(Text)),
        (r#"{"a":"\ud83d"}"#, r#"{"a":"\ud83d"}"#, None),
    ] {
        assert_eq!(object(text), (expected.to_owned(), fault), "{text}");
    }
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let (json, fault) = object(&deep);
    assert!(json.starts_with(r#"{"event":"message","data":"{\"a\":[["#));
    assert_eq!(fault, Some(Text));
    assert_eq!(published_bytes(b"{\xff}"), r#"{"event":"message","data":"e/99"}"#);
}

#[test]
fn without_members_to_add_only_broken_objects_are_changed() {
    for text in ["", "hello", " [1,]", "NaN", " {\"a\" : 1}\n", "{", "{:a 1} x", "}{", "\"{'a'}\""]
    {
        let PublishedObject { json, fault } = published_text(text);
        assert_eq!((&*json, fault), (text, None));
    }
    for text in [r#"{"a":NaN}"#, "{'a': 1}", " {\"a\":1,}\n"] {
        let PublishedObject { json, fault } = published_text(text);
        assert_eq!((json.into_owned(), fault), object(text));
        assert!(fault.is_some());
    }
}
