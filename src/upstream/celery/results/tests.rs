use super::*;

#[test]
fn states_are_read() {
    let ended =
        |end, exception: Option<&str>| Some(State { end, exception: exception.map(str::to_owned) });
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
        assert_eq!(read(state.as_bytes()), read_as, "{state}");
    }
}

#[test]
fn keys_have_the_names_that_celery_uses() {
    assert_eq!(key_prefix(""), "celery-task-meta-");
    assert_eq!(key_prefix("app"), "app_celery-task-meta-");
    assert_eq!(key_prefix("app:"), "app:celery-task-meta-");
}
