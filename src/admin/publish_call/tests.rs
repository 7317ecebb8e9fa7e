use super::*;

const HEAD: &str = "POST /v1/publish HTTP/1.1\r\nhost: a\r\n";

fn with(headers: &str, body: &str) -> String {
    format!("{HEAD}{headers}content-length: {}\r\n\r\n{body}", body.len())
}

/// A complete call: its credentials and its body.
fn read(bytes: &str) -> Option<(Option<&str>, Option<&str>, &str)> {
    match front(bytes.as_bytes()) {
        Front::Call(call) => Some((call.authorization, call.api_key, &bytes[call.body])),
        Front::Partial { .. } | Front::Other => None,
    }
}

#[test]
fn reads_what_clients_write() {
    let curl = "Authorization: Bearer k\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\
                Content-Type: application/json\r\n";
    assert_eq!(read(&with(curl, "{}")), Some((Some("Bearer k"), None, "{}")));
    let requests = "Accept-Encoding: gzip, deflate\r\nConnection: Keep-Alive\r\nX-API-Key: k\r\n";
    assert_eq!(read(&with(requests, "{}")), Some((None, Some("k"), "{}")));
    let two = with("x-api-key: k\r\n", "{}") + &with("", "[]");
    assert_eq!(read(&two), Some((None, Some("k"), "{}")), "the next call stays");
}

/// What it says about a call that is cut anywhere never contradicts what it says about the whole one.
#[test]
fn waits_for_the_rest() {
    let whole = with("x-api-key: k\r\n", "{\"channel\":\"a\"}");
    let head = whole.find("\r\n\r\n").unwrap() + 4;
    for end in 1..whole.len() {
        match front(&whole.as_bytes()[..end]) {
            Front::Partial { length, has_head } => {
                assert!(length > end && length <= whole.len(), "{end}: {length}");
                assert_eq!(has_head, end >= head, "{end}");
            }
            other => panic!("{end}: {other:?}"),
        }
    }
}

#[test]
fn leaves_the_unusual_to_the_library() {
    for headers in [
        "host: b\r\n",
        "content-length: 2\r\n",
        "transfer-encoding: chunked\r\n",
        "expect: 100-continue\r\n",
        "upgrade: websocket\r\n",
        "connection: close\r\n",
        "connection: keep-alive, x\r\n",
        "authorization: Bearer a\r\nauthorization: Bearer b\r\n",
        "x-api-key: a\r\nX-Api-Key: a\r\n",
        "x-api-key: \u{e9}\r\n",
        "no colon\r\n",
        "space : a\r\n",
        "folded: a\r\n b\r\n",
    ] {
        assert_eq!(front(with(headers, "{}").as_bytes()), Front::Other, "{headers:?}");
    }
    for (from, to) in [
        ("POST", "GET"),
        ("POST", "post"),
        ("publish", "publish?a=1"),
        ("/v1", "http://a/v1"),
        ("HTTP/1.1", "HTTP/1.0"),
        ("host: a", "x: a"),
        ("host: a", "host: a b"),
        ("length: 2", "length: +2"),
        ("length: 2", "length: 2, 2"),
        ("length: 2", "length:"),
        ("length: 2", "length: 99999999"),
        ("content-length: 2\r\n", ""),
    ] {
        let request = with("", "{}").replacen(from, to, 1);
        assert_eq!(front(request.as_bytes()), Front::Other, "{request:?}");
    }
    let many = "a: b\r\n".repeat(MAX_HEADERS);
    assert_eq!(front(with(&many, "{}").as_bytes()), Front::Other);
    let endless = format!("{HEAD}a: {}", "b".repeat(MAX_CALL_BYTES));
    assert_eq!(front(endless.as_bytes()), Front::Other);
    let large = with("", &"x".repeat(MAX_CALL_BYTES));
    assert_eq!(front(&large.as_bytes()[..200]), Front::Other, "known from its head");
}
