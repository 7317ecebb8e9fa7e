use super::*;

#[test]
fn urls_lose_their_passwords() {
    for (url, redacted) in [
        ("redis://127.0.0.1:6379/3", Some("redis://127.0.0.1:6379/3")),
        ("redis://:hunter2@r:6379", Some("redis://:<redacted>@r:6379")),
        ("redis://ana:hunter2@r/1", Some("redis://ana:<redacted>@r/1")),
        ("redis://hunter2@r/1", Some("redis://<redacted>@r/1")),
        (
            "rediss://r/?password=hunter2&ssl_cert_reqs=none&db=2",
            Some("rediss://r/?password=<redacted>&ssl_cert_reqs=none&db=2"),
        ),
        ("unix:///run/redis.sock?db=1", Some("unix:///run/redis.sock?db=1")),
        ("redis://:hunter/2@r/1", None),
        ("redis://:1?hunter2@r/1", None),
        ("redis://:hun@ter2@r/1", None),
        ("redis://r/1#hunter2", None),
        ("hunter2", None),
    ] {
        assert_eq!(redact_url(url).as_deref(), redacted, "{url}");
        assert!(!redacted.is_some_and(|url| url.contains("hunter2")));
    }
}

#[test]
fn names_of_variables_are_found() {
    assert_eq!(variables("a${B}$${C}${D}"), ["B", "D"]);
    assert_eq!(variables("$$${A}$"), ["A"]);
    assert!(variables("plain $5").is_empty());
}
