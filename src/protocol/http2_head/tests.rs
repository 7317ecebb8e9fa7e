use super::*;

/// Returns the head that a request with this method, target and protocol becomes.
fn translated(
    method: &str,
    uri: &str,
    protocol: Option<&'static str>,
    headers: &[(&str, &str)],
) -> Result<Request<()>, HeadMistake> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(()).unwrap();
    if let Some(protocol) = protocol {
        request.extensions_mut().insert(ext::Protocol::from_static(protocol));
    }
    translate_http2_head(&mut request).map(|()| request)
}

#[test]
fn a_request_gets_the_form_of_http_1() {
    let request = translated("GET", "https://a.test:8443/x?y=1", None, &[]).unwrap();
    assert_eq!((request.method(), request.uri().to_string()), (&Method::GET, "/x?y=1".into()));
    assert_eq!(request.headers()[HOST], "a.test:8443");
    let request = translated("OPTIONS", "*", None, &[("host", "a.test")]);
    // Without a scheme.
    assert_eq!(request.err(), Some(HeadMistake::Target));
    assert!(translated("GET", "https://a.test/", None, &[("host", "A.test")]).is_ok());
}

#[test]
fn a_websocket_becomes_an_upgrade() {
    let request = translated("CONNECT", "https://a.test/ws?t=1", Some("websocket"), &[]).unwrap();
    assert_eq!((request.method(), request.uri().to_string()), (&Method::GET, "/ws?t=1".into()));
    assert_eq!(request.headers()[UPGRADE], "websocket");
    assert_eq!(request.headers()[CONNECTION], "Upgrade");
}

#[test]
fn other_heads_are_refused() {
    for (method, uri, protocol, headers, mistake) in [
        ("CONNECT", "a.test:443", None, vec![], HeadMistake::Connect),
        ("CONNECT", "https://a.test/", None, vec![], HeadMistake::Connect),
        ("CONNECT", "https://a.test/", Some("webtransport"), vec![], HeadMistake::Protocol),
        ("CONNECT", "https://a.test/", Some("WebSocket"), vec![], HeadMistake::Protocol),
        ("CONNECT", "https://a.test/", Some(""), vec![], HeadMistake::Protocol),
        ("CONNECT", "a.test:443", Some("websocket"), vec![], HeadMistake::Target),
        ("GET", "https://a.test/", Some("websocket"), vec![], HeadMistake::Target),
        ("GET", "ftp://a.test/", None, vec![], HeadMistake::Target),
        ("GET", "/x", None, vec![("host", "a.test")], HeadMistake::Target),
        ("GET", "/x", None, vec![], HeadMistake::Host),
        ("GET", "https://a.test/", None, vec![("host", "b.test")], HeadMistake::Host),
        (
            "GET",
            "https://a.test/",
            None,
            vec![("host", "a.test"), ("host", "a.test")],
            HeadMistake::Host,
        ),
        ("GET", "https://user@a.test/", None, vec![], HeadMistake::Host),
    ] {
        let found = translated(method, uri, protocol, &headers).err();
        assert_eq!(found, Some(mistake), "{method} {uri} {protocol:?} {headers:?}");
    }
}

#[test]
fn cookies_in_several_fields_are_one_header() {
    let cookies = [("cookie", "a=1"), ("cookie", "b=2; c=3"), ("cookie", "d=4")];
    let request = translated("GET", "https://a.test/", None, &cookies).unwrap();
    let joined: Vec<_> = request.headers().get_all(COOKIE).iter().collect();
    assert_eq!(joined, ["a=1; b=2; c=3; d=4"]);
}
