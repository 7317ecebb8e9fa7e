use super::*;

fn task_id(json: &str) -> Option<String> {
    EventMembers::read(json.as_bytes())?.task_id().map(Cow::into_owned)
}

#[test]
fn only_a_top_level_string_or_number_is_a_task_id() {
    for (json, expected) in [
        (r#"{"event":"e","task_id":"t\"1"}"#, Some("t\"1")),
        (r#"{"event":"e","task_id":""}"#, Some("")),
        (r#"{"event":"e","task_id":-17}"#, Some("-17")),
        (r#"{"event":"e","task\u005fid":"t"}"#, Some("t")),
        (r#"{"event":"e","task_id":"a","task_id":"b"}"#, Some("b")),
        (r#"{"event":"e","task_id":null,"task_id":"b"}"#, Some("b")),
        (r#"{"event":"e","task_id":"a","task_id":null}"#, None),
        (r#"{"event":"e","data":{"task_id":"t"}}"#, None),
        (r#"{"event":"e","text":"\"task_id\":\"t\""}"#, None),
        (r#"{"event":"e","task_id":null}"#, None),
        (r#"{"event":"e","task_id":true}"#, None),
        (r#"{"event":"e","task_id":{"a":1}}"#, None),
        (r#"{"event":"e","task_id":["t"]}"#, None),
        (r#"{"\ud83d":1,"event":"\ud83d","task_id":"t"}"#, Some("t")),
        (r#"{"event":"e","task_id":"\ud83d"}"#, None),
        ("{}", None),
    ] {
        assert_eq!(task_id(json).as_deref(), expected, "{json}");
    }
}

#[test]
fn what_is_not_an_object_has_no_members() {
    for json in ["", "[1]", "\"task_id\"", "null", "{", r#"{"task_id":"t""#, r#"{"task_id":}"#] {
        assert!(EventMembers::read(json.as_bytes()).is_none(), "{json}");
    }
}

#[test]
fn the_task_id_is_added_as_the_last_member() {
    for (json, expected) in [
        (r#"{"event":"x"}"#, r#"{"event":"x","task_id":"t\"1"}"#),
        (" {\"event\":\"x\", \"a\":{}} \r\n", r#"{"event":"x", "a":{},"task_id":"t\"1"}"#),
        (r#"{"a":{"task_id":"other"}}"#, r#"{"a":{"task_id":"other"},"task_id":"t\"1"}"#),
        ("{}", r#"{"task_id":"t\"1"}"#),
        ("{ }", r#"{ "task_id":"t\"1"}"#),
        ("[1]", "[1]"),
        ("", ""),
    ] {
        let added = with_task_id(&Bytes::copy_from_slice(json.as_bytes()), "t\"1");
        assert_eq!(String::from_utf8(added.to_vec()).unwrap(), expected);
        if json.contains('{') {
            assert_eq!(task_id(expected).as_deref(), Some("t\"1"), "{expected}");
        }
    }
}
