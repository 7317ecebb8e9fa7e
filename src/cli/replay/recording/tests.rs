use super::*;

#[test]
fn a_line_is_a_record() {
    let line = br#"{"time":"1970-01-01T00:00:01.5Z","data":{"b":1, "a":2}}"#;
    let publication = parse_line(line).unwrap();
    assert_eq!(publication.at, Some(Duration::from_millis(1500)));
    assert_eq!(publication.data.get(), r#"{"b":1, "a":2}"#);
    for (line, reason) in [
        ("hello", "tail --json"),
        (r#"{"event":"chunk"}"#, "missing \"data\""),
        (r#"{"time":"yesterday","data":1}"#, "yesterday"),
        (r#"{"text":"hello"}"#, "not valid JSON"),
    ] {
        let error = parse_line(line.as_bytes()).err().unwrap();
        assert!(error.contains(reason), "{line}: {error}");
    }
}
