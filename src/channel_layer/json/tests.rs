use super::*;

#[test]
fn bare_floats_are_quoted_outside_of_strings_only() {
    for (text, quoted) in [
        (
            r#"{"a": NaN, "b": [Infinity, -Infinity, -1]}"#,
            r#"{"a": "NaN", "b": ["Infinity", "-Infinity", -1]}"#,
        ),
        (
            r#"{"NaN": "NaN -Infinity \" NaN \\", "I": -2}"#,
            r#"{"NaN": "NaN -Infinity \" NaN \\", "I": -2}"#,
        ),
        (r#"{"a": "Infinity \\\" NaN", "b": NaN}"#, r#"{"a": "Infinity \\\" NaN", "b": "NaN"}"#),
        ("NaN", "\"NaN\""),
        ("\"NaN", "\"NaN"),
        ("\"NaN\\", "\"NaN\\"),
        ("é-é NaN é", "é-é \"NaN\" é"),
    ] {
        assert_eq!(without_bare_floats(text), quoted);
    }
}

#[test]
fn an_object_keeps_its_order_and_its_raw_text() {
    let text = r#" {"b\u0061": 1.0e3, "a": {"x": [ 1 ]}, "b": "\ud800"} "#;
    let object = Object::read(text).unwrap();
    let members: Vec<_> = object.members().collect();
    assert_eq!(
        members,
        [(r#""b\u0061""#, "1.0e3"), (r#""a""#, r#"{"x": [ 1 ]}"#), (r#""b""#, r#""\ud800""#)]
    );
    for wrong in ["", "[]", "{}}", "{\"a\":}", "{a:1}", "{\"a\":NaN}", "1"] {
        assert!(Object::read(wrong).is_none(), "{wrong}");
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
