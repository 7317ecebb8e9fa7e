use super::*;

#[test]
fn streams_are_recognized_by_their_beginning() {
    for (body, expected) in [
        ("data: 1\n", Some("text/event-stream")),
        ("\u{feff}\r\nevent: chunk\ndata: 1\n\n", Some("text/event-stream")),
        ("id: 1\rdata: 1\r\r", Some("text/event-stream")),
        (": ping\n", Some("text/event-stream")),
        ("data: unfinished", None),
        ("{\"a\":1}\n{\"b\":2}\n", Some("application/x-ndjson")),
        ("{\"a\":1}\n", None),
        ("{\n  \"a\": 1\n}\n", None),
        ("[1,\n2]", None),
        ("plain text\nof two lines", None),
        ("", None),
    ] {
        assert_eq!(looks_like(body.as_bytes()), expected, "{body:?}");
    }
}
