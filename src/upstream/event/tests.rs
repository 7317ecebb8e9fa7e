use super::*;

#[test]
fn data_becomes_one_object_with_an_event() {
    for (name, data, object_) in [
        ("", r#" {"event":"token","x": 1} "#, r#"{"event":"token","x": 1}"#),
        ("other", r#"{"event":"token"}"#, r#"{"event":"token"}"#),
        ("token", r#"{ "x":1}"#, r#"{"event":"token","x":1}"#),
        ("token", "{ }", r#"{"event":"token"}"#),
        ("a\"b", r#"{"x":1}"#, r#"{"event":"a\"b","x":1}"#),
        ("message", r#"{"x":1}"#, r#"{"event":"chunk","chunk":{"x":1}}"#),
        ("", r#"{"x":1}"#, r#"{"event":"chunk","chunk":{"x":1}}"#),
        ("token", r#"{"event":7}"#, r#"{"event":"chunk","chunk":{"event":7}}"#),
        (
            "",
            r#"{"event":"a","event":"b"}"#,
            r#"{"event":"chunk","chunk":{"event":"a","event":"b"}}"#,
        ),
        ("", "[1,{}]", r#"{"event":"chunk","chunk":[1,{}]}"#),
        ("", "7", r#"{"event":"chunk","chunk":7}"#),
        ("", "\"a\"", r#"{"event":"chunk","chunk":"a"}"#),
        ("", "two \"words\"\n", r#"{"event":"chunk","chunk":"two \"words\"\n"}"#),
        ("", r#"{"event":"a""#, r#"{"event":"chunk","chunk":"{\"event\":\"a\""}"#),
        ("", "", r#"{"event":"chunk","chunk":""}"#),
        ("", r#"{"event":"a","x":[NaN]}"#, r#"{"event":"a","x":["NaN"]}"#),
        ("token", r#"{"x":-Infinity}"#, r#"{"event":"token","x":"-Infinity"}"#),
        ("", "NaN", r#"{"event":"chunk","chunk":"NaN"}"#),
        ("", "{'event': 'a'}", r#"{"event":"chunk","chunk":"{'event': 'a'}"}"#),
        ("", r#"{"event":"a","x":"\ud83d"}"#, r#"{"event":"a","x":"\ud83d"}"#),
        ("", r#"{"\ud83d":1,"event":"a"}"#, r#"{"\ud83d":1,"event":"a"}"#),
        ("", r#"{"e\u0076ent":"a"}"#, r#"{"e\u0076ent":"a"}"#),
    ] {
        assert_eq!(to_object(name, data), object_, "{name:?} {data:?}");
        assert!(is_json(object_), "{object_}");
    }
}

#[test]
fn deep_nesting_does_no_harm() {
    let deep = "[".repeat(100_000);
    assert!(to_object("", &deep).starts_with(br#"{"event":"chunk","chunk":""#));
    let closed = format!("{deep}{}", "]".repeat(100_000));
    assert!(to_object("", &closed).starts_with(br#"{"event":"chunk","chunk":""#));
}
