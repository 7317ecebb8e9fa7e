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
