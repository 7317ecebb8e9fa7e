use super::*;

fn record(text: &str, offset: Option<u64>) -> Record {
    let mut record = Record::new("chat_42".to_owned(), offset);
    record.time = Some("2026-11-23T23:57:38.603226Z".to_owned());
    record.set_text(text.to_owned());
    record
}

#[test]
fn a_record_holds_the_original_publication() {
    for (text, offset, data, epoch) in [
        (r#"{"a":1,"offset":7}"#, Some(7), r#"{"a":1}"#, None),
        (r#"{"offset":3,"a":1,"offset":7}"#, Some(7), r#"{"offset":3,"a":1}"#, None),
        (r#"{"offset":1,"epoch":"ab"}"#, Some(1), "{}", Some("ab")),
        (r#"{"a":{"offset":7}}"#, Some(7), r#"{"a":{"offset":7}}"#, None),
        (r#"{"a":1,"offset":7}"#, None, r#"{"a":1,"offset":7}"#, None),
    ] {
        let record = record(text, offset);
        assert_eq!(record.data.unwrap().get(), data, "{text}");
        assert_eq!(record.epoch.as_deref(), epoch, "{text}");
    }
    assert_eq!(record("hello", None).text.as_deref(), Some("hello"));
}

#[test]
fn a_printed_record_can_be_parsed() {
    let line = serde_json::to_string(&record(r#"{"z":1, "a":2.50,"offset":7}"#, Some(7))).unwrap();
    let expected = r#"{"time":"2026-11-23T23:57:38.603226Z","channel":"chat_42","offset":7,"epoch":null,"data":{"z":1, "a":2.50}}"#;
    assert_eq!(line, expected);
    let parsed: Record = serde_json::from_str(&line).unwrap();
    assert_eq!(parsed.data.unwrap().get(), r#"{"z":1, "a":2.50}"#);
}

#[test]
fn lines_have_offset_time_event_and_text() {
    for (text, line) in [
        (
            r#"{"event":"chunk","chunk":"Hello ","task_id":"t1","offset":7}"#,
            "     7  23:57:38.603  chunk               Hello   task_id=t1",
        ),
        (r#"{"event":"complete","offset":7}"#, "     7  23:57:38.603  complete"),
        (
            r#"{"event":"error","error":"no","code":"busy","n":{"a":[1]},"offset":7}"#,
            r#"     7  23:57:38.603  error               no  code=busy  n={"a":[1]}"#,
        ),
        (
            "{\"event\":\"\\u001b[2J\",\"text\":\"a\\nb\\u202e\",\"offset\":7}",
            "     7  23:57:38.603  \\u{1b}[2J           a\\nb\\u{202e}",
        ),
    ] {
        assert_eq!(record(text, Some(7)).to_line(), line);
    }
    assert_eq!(record("[1]", None).to_line(), "     -  23:57:38.603  (json)              [1]");
    assert_eq!(record("hi", None).to_line(), "     -  23:57:38.603  (text)              hi");
}
