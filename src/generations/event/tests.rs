use super::*;

fn read(json: &str) -> Option<(String, Option<String>, bool)> {
    let event = Event::read(json.as_bytes())?;
    Some((event.name.into_owned(), event.task_id.map(Cow::into_owned), event.by_gateway))
}

#[test]
fn names_and_tasks_are_read() {
    for (json, name, task, lost) in [
        (r#"{"event":"complete"}"#, "complete", None, false),
        (
            r#"{"x":[1,{"event":"no"}],"event":"a\u0062","task_id":"t\"1"}"#,
            "ab",
            Some("t\"1"),
            false,
        ),
        (r#"{"event":"e","task_id":17}"#, "e", Some("17"), false),
        (r#"{"event":"e","task_id":null}"#, "e", None, false),
        (r#"{"event":"e","task_id":{"a":1}}"#, "e", None, false),
        (r#"{"event":"error","code":"worker_lost","task_id":"t"}"#, "error", Some("t"), true),
        (r#"{"event":"error","code":7}"#, "error", None, false),
    ] {
        let expected = (name.to_owned(), task.map(str::to_owned), lost);
        assert_eq!(read(json), Some(expected), "{json}");
    }
    for json in ["", "hello", "[]", "{}", r#"{"event":7}"#, r#"{"event":null}"#, "{\"event\":\"a\""]
    {
        assert_eq!(read(json), None, "{json}");
    }
}

#[test]
fn a_leading_name_is_read_without_the_rest() {
    for (json, name) in [
        (r#"{"event":"chunk","chunk":"a"}"#, Some("chunk")),
        (" { \"event\" :\n\"chunk\" garbage", Some("chunk")),
        (r#"{"event":"a\"b"}"#, None),
        (r#"{"events":"chunk"}"#, None),
        (r#"{"chunk":"a","event":"chunk"}"#, None),
        (r#"{"event":"unfinished"#, None),
        ("", None),
    ] {
        assert_eq!(Event::leading_name(json.as_bytes()), name.map(str::as_bytes), "{json}");
    }
}

#[test]
fn what_is_certainly_not_an_event_is_none_when_it_is_parsed() {
    let members = [
        r#""event":"chunk""#,
        r#""event":"complete""#,
        r#""event" : "complete" "#,
        r#""\u0065vent":"complete""#,
        r#""event":"c\u006fmplete""#,
        r#""event":1"#,
        r#""event":{"event":"complete"}"#,
        r#""chunk":"event""#,
        r#""chunk":"complete""#,
        r#""chunk":"\"event\":\"complete\"""#,
        r#""chunk":["event","complete"]"#,
        r#""task_id":"t""#,
    ];
    let is_complete = |name: &[u8]| name == b"complete";
    let mut found = 0;
    for first in members {
        for second in members {
            let json = format!("{{{first},{second}}}");
            let is_certain = Event::is_certainly_not(json.as_bytes(), is_complete);
            found += usize::from(is_certain);
            let name = read(&json).map(|(name, ..)| name);
            assert!(!is_certain || name.as_deref() != Some("complete"), "{json}");
        }
    }
    assert!(found > members.len(), "most are found without parsing: {found}");
    assert!(Event::is_certainly_not(br#"{"chunk":"a","event":"chunk"}"#, is_complete));
    assert!(!Event::is_certainly_not(br#"{"chunk":"a","event":"complete"}"#, is_complete));
}
