use super::state::read;
use super::*;
use crate::telemetry::celery::UnreadableResult;

#[test]
fn states_are_read() {
    let ended = |end, exception: Option<&str>| {
        let exception = exception.map(str::to_owned);
        Some(State { end, exception, promised: Vec::new() })
    };
    let deep = "[".repeat(500) + &"]".repeat(500);
    for (state, read_as) in [
        (
            r#"{"status":"SUCCESS","result":null,"children":[]}"#,
            ended(Some(TaskEnd::Succeeded), None),
        ),
        (r#"{"status":"SUCCESS","result":"\ud800"}"#, ended(Some(TaskEnd::Succeeded), None)),
        (
            &format!(r#"{{"status":"SUCCESS","result":{deep}}}"#),
            ended(Some(TaskEnd::Succeeded), None),
        ),
        (r#"{"status": "SUCCESS", "result": NaN}"#, ended(Some(TaskEnd::Succeeded), None)),
        (
            r#"{"status":"FAILURE","result":{"exc_type":"ValueError","exc_message":["x"]}}"#,
            ended(Some(TaskEnd::Failed), Some("ValueError")),
        ),
        (
            r#"{"status":"REVOKED","result":{"exc_type":"TaskRevokedError","exc_message":["expired"]}}"#,
            ended(Some(TaskEnd::Expired), Some("TaskRevokedError")),
        ),
        (
            r#"{"status":"REVOKED","result":{"exc_type":"TaskRevokedError","exc_message":["terminated"]}}"#,
            ended(Some(TaskEnd::Revoked), Some("TaskRevokedError")),
        ),
        (r#"{"status":"REVOKED"}"#, ended(Some(TaskEnd::Revoked), None)),
        (r#"{"status":"RETRY","result":{}}"#, ended(None, None)),
        (r#"{"status":"STARTED","result":{"pid":1}}"#, ended(None, None)),
        (r#"{"result":1}"#, None),
        ("\u{80}", None),
        ("", None),
    ] {
        assert_eq!(read(state.as_bytes()).ok(), read_as, "{state}");
    }
}

#[test]
fn keys_have_the_names_that_celery_uses() {
    assert_eq!(key_prefix(""), "celery-task-meta-");
    assert_eq!(key_prefix("app"), "app_celery-task-meta-");
    assert_eq!(key_prefix("app:"), "app:celery-task-meta-");
}

/// The heads of results that Celery 5.7 wrote with these settings.
#[test]
fn an_unreadable_result_names_its_setting() {
    use UnreadableResult::{Compression, Serializer};
    for (result, setting) in [
        (
            &b"\x80\x04\x95x\0\0\0\0\0\0\0}\x94(\x8c\x06status\x94\x8c\x07SUCCESS\x94"[..],
            Serializer,
        ),
        (b"\x86\xa6status\xa7SUCCESS\xa6result\xc0", Serializer),
        (b"status: SUCCESS\nresult: null\n", Serializer),
        (b"\0celery-compressed\0application/x-gzip\0x\x9c\xabV*.I,)-V\xb2RP\n", Compression),
        (b"\0celery-compressed\0application/x-bz2\0BZh91AY&SY", Compression),
        (b"\0celery-compressed\0application/x-lzma\0\xfd7zXZ\0\0\x04", Compression),
        (b"\x1f\x8b\x08\0", Compression),
        (b"x\x9c\xabV*.I", Compression),
        (b"", Serializer),
    ] {
        assert_eq!(read(result).err(), Some(setting), "{}", String::from_utf8_lossy(result));
    }
}

/// The forms of `AsyncResult.as_tuple()` and `GroupResult.as_tuple()`.
#[test]
fn promises_of_other_tasks_are_read() {
    let [one, two, three] = ['1', '2', '3'].map(|digit| {
        let part = |length| digit.to_string().repeat(length);
        format!("{}-{}-{}-{}-{}", part(8), part(4), part(4), part(4), part(12))
    });
    let promised = |result: String| {
        let state = format!(r#"{{"status": "SUCCESS", "result": {result}, "children": []}}"#);
        let mut promised = read(state.as_bytes()).expect("a state").promised;
        promised.sort();
        promised
    };
    for (result, expected) in [
        (format!(r#"[["{one}", null], null]"#), vec![one.clone()]),
        // A chain, and a chord, whose parent is a group.
        (format!(r#"[["{two}", ["{one}", null]], null]"#), vec![two.clone()]),
        (
            format!(r#"[["{three}", [["{one}", null], [[["{two}", null], null]]]], null]"#),
            vec![three.clone()],
        ),
        (
            format!(r#"[["{three}", null], [[["{one}", null], null], [["{two}", null], null]]]"#),
            vec![one.clone(), two.clone()],
        ),
        (format!(r#"["{one}", null]"#), vec![]),
        (format!(r#"[["{one}"], null]"#), vec![]),
        (format!(r#"[["{one}", null], 7]"#), vec![]),
        (format!(r#""{one}""#), vec![]),
        (r#"[["a text", null], null]"#.to_owned(), vec![]),
        (format!(r#"[["{one}", null], [7]]"#), vec![]),
        ("null".to_owned(), vec![]),
    ] {
        assert_eq!(promised(result.clone()), expected, "{result}");
    }
    let many = vec![format!(r#"[["{one}", null], null]"#); MAX_PROMISED + 1].join(",");
    assert_eq!(promised(format!(r#"[["{one}", null], [{many}]]"#)), Vec::<String>::new());
    let failed = format!(r#"{{"status":"FAILURE","result":[["{one}",null],null]}}"#);
    assert!(read(failed.as_bytes()).expect("a state").promised.is_empty());
}
