use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;

fn serde_accepts(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// The cases are those of JSONTestSuite (`y_`, `n_`), one for each rule of the grammar.
#[test]
fn texts_are_json_by_the_grammar() {
    for json in [
        "0",
        "-0",
        "-1",
        "10",
        "1.5",
        "-0.25",
        "1e5",
        "1E-5",
        "1.0e+5",
        "1e400",
        "true",
        "false",
        "null",
        "{}",
        "[]",
        "\"\"",
        " \t\r\n1 \t\r\n",
        "[1,2]",
        "[ ]",
        "{ }",
        "[[],{}]",
        r#"{"a":{"b":[1,{"c":null}]},"d":"e"}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"":0}"#,
        r#"["\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE80"]"#,
        "[\"\u{7f}\u{2028}é🚀\"]",
        r#""\ud83d""#,
        r#"{"\udc00":"\ud800\u0041"}"#,
        "[\"0123456789abcdef\"]",
        "\"\u{feff}\"",
    ] {
        assert_eq!(json_text(json), Some(Cow::Borrowed(json.trim())), "{json}");
        assert!(serde_accepts(json), "{json}");
    }
    for text in [
        "",
        " ",
        "{",
        "}",
        "[",
        "]",
        "[1",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "[1,]",
        "[,1]",
        "[1,,2]",
        "{,}",
        "{\"a\":1,,\"b\":2}",
        "{{}}",
        "{}}",
        "{}{}",
        "[1}",
        "{\"a\":1]",
        "{\"a\" 1}",
        "{\"a\";1}",
        "{a:1}",
        "{1:1}",
        "{null:1}",
        "{'a': 1}",
        "['a']",
        "{\"a\":'b'}",
        "01",
        "-01",
        "+1",
        ".5",
        "-.5",
        "1.",
        "1.e5",
        "1e",
        "1e+",
        "-",
        "--1",
        "0x1",
        "1_000",
        "1a",
        "tru",
        "True",
        "None",
        "nul",
        "nulll",
        "undefined",
        "nan",
        "inf",
        "\"",
        "\"a",
        "\"\\",
        "\"\\x41\"",
        "\"\\'\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\u+123\"",
        "\"a\nb\"",
        "\"\u{0}\"",
        "\"0123456\u{1f}\"",
        "\"01234567\t\"",
        "[1] x",
        "1 2",
        "\"a\"b",
        "/**/1",
        "1//",
        "\u{c}1",
        "\u{a0}1",
        "\u{feff}1",
        "{\"event\":\"a\" \"b\":1}",
        "[\"a\" \"b\"]",
        "<html>",
        "b'{}'",
    ] {
        assert_eq!(json_text(text), None, "{text}");
        assert!(!serde_accepts(text), "{text}");
    }
}

#[test]
fn bare_floats_are_quoted_where_a_value_stands() {
    for (text, quoted) in [
        ("NaN", "\"NaN\""),
        (
            r#" {"a": NaN, "b": [Infinity, -Infinity, -1]} "#,
            r#"{"a": "NaN", "b": ["Infinity", "-Infinity", -1]}"#,
        ),
        (r#"{"a": "Infinity \\\" NaN", "b": NaN}"#, r#"{"a": "Infinity \\\" NaN", "b": "NaN"}"#),
        ("[NaN,NaN]", r#"["NaN","NaN"]"#),
    ] {
        assert_eq!(json_text(text), Some(Cow::Owned(quoted.to_owned())), "{text}");
        assert!(serde_accepts(quoted));
    }
    let inside = r#"{"NaN": "NaN -Infinity \" NaN \\", "I": -2}"#;
    assert_eq!(json_text(inside), Some(Cow::Borrowed(inside)));
    for text in
        ["{NaN:1}", "NaNa", "-NaN", "+Infinity", "Inf", "nan", "1NaN", "[NaN NaN]", "{\"a\":NaN"]
    {
        assert_eq!(json_text(text), None, "{text}");
    }
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}0{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    let mixed = |depth: usize| format!("{}0{}", "[{\"a\":".repeat(depth), "}]".repeat(depth));
    for json in [nested(MAX_DEPTH), objects(MAX_DEPTH), mixed(MAX_DEPTH / 2)] {
        assert!(json_text(&json).is_some());
    }
    for json in
        [nested(MAX_DEPTH + 1), objects(MAX_DEPTH + 1), nested(1_000_000), "[".repeat(1_000_000)]
    {
        assert_eq!(json_text(&json), None);
    }
    // Many at one level are not deep.
    assert!(json_text(&format!("[{}{{}}]", "{},[],".repeat(10_000))).is_some());
}

#[test]
fn members_keep_their_raw_texts() {
    let text = r#" {"b\u0061": 1.0e3 , "a": {"x": [ 1 ]}, "\ud800":"\ud800","a":"}"} "#;
    let members: Vec<_> = json_members(text).collect();
    let expected = [
        (r#""b\u0061""#, "1.0e3"),
        (r#""a""#, r#"{"x": [ 1 ]}"#),
        (r#""\ud800""#, r#""\ud800""#),
        (r#""a""#, r#""}""#),
    ];
    assert_eq!(members, expected);
    for none in ["", "{}", "[]", "[1]", "\"a\"", "{a:1}"] {
        assert_eq!(json_members(none).count(), 0, "{none}");
    }
}

#[test]
fn lone_surrogates_are_found() {
    for (json, is_lone) in [
        (r#""a""#, false),
        (r#""\u00e9\n\\ud83d""#, false),
        (r#""\ud83d\ude80""#, false),
        (r#""\uD83D\uDE80\uD83D\uDE80 \u0000""#, false),
        (r#""\ud83d""#, true),
        (r#""\ude80""#, true),
        (r#""\ude80\ud83d""#, true),
        (r#""\ud83d\ud83d\ude80""#, true),
        (r#""\ud83d\\ude80""#, true),
        (r#""\ud83dx\ude80""#, true),
        (r#""\\\ud83d""#, true),
        (r#"{"a":1,"\uD800":2}"#, true),
    ] {
        assert_eq!(has_lone_surrogate(json), is_lone, "{json}");
        // serde accepts a string exactly if it has no lone surrogate.
        if json.starts_with('"') {
            assert_eq!(serde_json::from_str::<String>(json).is_err(), is_lone, "{json}");
        }
    }
    // Texts that are not JSON are not looked at in practice, and do no harm.
    for text in ["\\", "\\u", "\\ud8", "\\ud83d\\", "\\é", "\\u00é"] {
        let _ = has_lone_surrogate(text);
    }
}

/// Texts of JSON's own characters, which are more often nearly JSON than random ones.
fn texts() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(","),
        Just(":"),
        Just("\""),
        Just("\\"),
        Just("\"a\""),
        Just(" "),
        Just("1"),
        Just("-"),
        Just("0"),
        Just("."),
        Just("e"),
        Just("true"),
        Just("null"),
        Just("\\u00e9"),
        Just("\n"),
        Just("\"key\":"),
        Just("é"),
        Just("\\ud800"),
        Just("0123456789"),
        Just("+"),
    ];
    proptest::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn it_agrees_with_serde(text in texts()) {
        prop_assert_eq!(json_text(&text).is_some(), serde_accepts(&text));
    }

    #[test]
    fn it_agrees_with_serde_on_strings(text in ".{0,40}") {
        let json = serde_json::Value::from(text.as_str()).to_string();
        prop_assert!(json_text(&json).is_some());
        let raw = format!("\"{text}\"");
        prop_assert_eq!(json_text(&raw).is_some(), serde_accepts(&raw));
    }
}
