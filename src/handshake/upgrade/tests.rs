use super::*;

fn request() -> Request<()> {
    Request::builder()
        .uri("/ws/chat/1/")
        .header("host", "gateway.test")
        .header("upgrade", "WebSocket")
        .header("connection", "keep-alive, Upgrade")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .body(())
        .unwrap()
}

fn status(change: impl FnOnce(&mut Request<()>)) -> Option<u16> {
    let mut request = request();
    change(&mut request);
    check(&request, false).err().map(|response| response.status().as_u16())
}

#[test]
fn only_a_complete_upgrade_request_is_valid() {
    assert_eq!(status(|_| ()), None);
    assert_eq!(status(|r| *r.method_mut() = Method::POST), Some(405));
    assert_eq!(status(|r| *r.version_mut() = Version::HTTP_10), Some(426));
    for (name, without) in [
        ("upgrade", 426),
        ("connection", 426),
        ("sec-websocket-version", 426),
        ("sec-websocket-key", 400),
        ("host", 400),
    ] {
        let removed = status(|r| drop(r.headers_mut().remove(name)));
        assert_eq!(removed, Some(without), "without {name}");
    }
    for (name, value, expected) in [
        ("connection", "upgrade", None),
        ("connection", "keep-alive", Some(426)),
        ("upgrade", "h2c, websocket", None),
        ("upgrade", "websocketx", Some(426)),
        ("sec-websocket-version", "8", Some(426)),
        ("sec-websocket-key", "", Some(400)),
        ("sec-websocket-key", "short", Some(400)),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ", Some(400)),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZWxvbmdlcg==", Some(400)),
        // The examples of RFC 6455: the key of section 4.1, whose unused bits are set, and the offer of section 1.2.
        ("sec-websocket-key", "AQIDBAUGBwgJCgsMDQ4PEC==", None),
        ("sec-websocket-protocol", "chat, superchat", None),
        ("sec-websocket-extensions", "foo, bar; baz=2", None),
        ("sec-websocket-version", "25", Some(426)),
        ("content-length", "0", None),
        ("content-length", "5", Some(400)),
        ("transfer-encoding", "chunked", Some(400)),
        ("sec-websocket-protocol", "chat", None),
        ("sec-websocket-protocol", "tidegate.token.abc, tidegate.v1", None),
        ("sec-websocket-protocol", "tidegate.token.abc", Some(400)),
    ] {
        let changed = status(|r| drop(r.headers_mut().insert(name, value.parse().unwrap())));
        assert_eq!(changed, expected, "{name}: {value}");
    }
    for (name, expected) in
        [("host", 400), ("sec-websocket-key", 400), ("sec-websocket-version", 426)]
    {
        let again = request().headers()[name].clone();
        let twice = status(|r| assert!(r.headers_mut().append(name, again)));
        assert_eq!(twice, Some(expected), "{name} twice");
    }
}

#[test]
fn lists_may_be_in_several_headers() {
    for (name, first, second) in
        [("connection", "keep-alive", "upgrade"), ("upgrade", "h2c", "WEBSOCKET")]
    {
        let split = status(|r| {
            r.headers_mut().insert(name, first.parse().unwrap());
            r.headers_mut().append(name, second.parse().unwrap());
        });
        assert_eq!(split, None, "{name}");
    }
    let absolute = status(|r| *r.uri_mut() = "http://gateway.test/ws/chat/1/".parse().unwrap());
    assert_eq!(absolute, None);
}

#[test]
fn the_answer_to_the_key_of_section_4_1_is_made_from_its_text() {
    let mut request = request();
    let key = "AQIDBAUGBwgJCgsMDQ4PEC==".parse().unwrap();
    request.headers_mut().insert("sec-websocket-key", key);
    let answer = check(&request, false).ok().unwrap().accept(None, None);
    assert_eq!(
        answer.headers()["sec-websocket-accept"],
        websocket_accept(b"AQIDBAUGBwgJCgsMDQ4PEC==").as_str()
    );
}

#[test]
fn a_request_without_upgrade_is_told_what_is_required() {
    let plain = Request::get("/ws/chat/1/").body(()).unwrap();
    let answer = check(&plain, false).err().unwrap();
    assert_eq!(answer.status(), StatusCode::UPGRADE_REQUIRED);
    assert_eq!(answer.headers()["upgrade"], "websocket");
    assert_eq!(answer.headers()["sec-websocket-version"], "13");
}

#[test]
fn the_response_switches_protocols() {
    let answer = check(&request(), false).ok().unwrap().accept(None, None);
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(answer.headers()["upgrade"], "websocket");
    assert_eq!(answer.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert!(!answer.headers().contains_key("sec-websocket-protocol"));

    let mut offering = request();
    let offered = "chat, tidegate.v1".parse().unwrap();
    offering.headers_mut().insert("sec-websocket-protocol", offered);
    let refused = check(&offering, false).ok().unwrap().accept_to_close();
    assert_eq!(refused.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(refused.headers()["sec-websocket-protocol"], "tidegate.v1");
}
