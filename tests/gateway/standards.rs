//! What OWASP's lists ask of every answer and every head, where no other test says it (docs/security.md).

use bytes::Bytes;
use serde_json::json;

use super::chat::{APP, chat, open_to_all, session};
use super::rig::raw::handshake;
use super::rig::{API_KEY, Client, Gateway, RawClient, Reply, Settings, Upstream, http};

const ISSUE: &str = "/api/v1/auth/ws-connection-token/";

type Headers<'h> = &'h [(&'h str, &'h str)];

fn is_media_type_of(body: &[u8], media_type: &str) -> bool {
    let is_json = serde_json::from_slice::<serde_json::Value>(body).is_ok();
    match media_type.split(';').next().unwrap_or_default() {
        "application/json" | "application/vnd.oai.openapi+json" => is_json,
        "text/plain" | "text/html" => media_type.to_ascii_lowercase().contains("charset=utf-8"),
        other => panic!("{other} is not a type that the gateway answers with"),
    }
}

#[tokio::test]
async fn every_answer_with_a_body_has_its_content_type() {
    let reply = "[[route]]\npath = \"/ws/health/\"\nreply = '{\"status\":\"ok\"}'";
    let toml = format!("{}\n{reply}\n", chat("reject = \"http\""));
    let gateway = Gateway::start(toml).await;
    let (public, admin) = (gateway.addr(), gateway.admin());
    let bearer = format!("Bearer {}", session());
    let (bearer, evil) = (("authorization", bearer.as_str()), ("origin", "https://evil.example"));
    let api = format!("Bearer {API_KEY}");
    let key = ("authorization", api.as_str());
    let upgrade = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let refused = [upgrade[0], upgrade[1], upgrade[2], upgrade[3], evil];
    let incomplete = [upgrade[0], upgrade[1], upgrade[2]];
    let requests: &[(_, _, _, Headers<'_>, _)] = &[
        (public, "GET", "/", &[], ""),
        (public, "GET", "/ws/chat/42/", &[], ""),
        (public, "GET", "/ws/chat/42/", &incomplete, ""),
        (public, "GET", "/ws/chat/42/", &refused, ""),
        (public, "POST", "/ws/chat/42/", &[], ""),
        (public, "GET", "/nowhere/", &upgrade, ""),
        (public, "GET", "/ws/health/", &[], ""),
        (public, "PUT", "/ws/health/", &[], ""),
        (public, "POST", ISSUE, &[bearer], ""),
        (public, "POST", ISSUE, &[bearer], "[]"),
        (public, "POST", ISSUE, &[], ""),
        (public, "POST", ISSUE, &[bearer, evil], ""),
        (public, "GET", ISSUE, &[bearer], ""),
        (public, "OPTIONS", ISSUE, &[APP], ""),
        (admin, "GET", "/", &[], ""),
        (admin, "GET", "/metrics", &[], ""),
        (admin, "GET", "/livez", &[], ""),
        (admin, "GET", "/readyz", &[], ""),
        (admin, "POST", "/readyz", &[], ""),
        (admin, "GET", "/v1/openapi.json", &[], ""),
        (admin, "GET", "/v1/channels", &[], ""),
        (admin, "GET", "/v1/channels", &[key], ""),
        (admin, "POST", "/v1/publish", &[key], "{"),
        (admin, "POST", "/v1/disconnect", &[key], "{\"user_id\":7}"),
    ];
    for (addr, method, path, headers, body) in requests {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let answer = http::send(*addr, method, path, headers, body).await;
        let shown = format!("{method} {path} {headers:?}: {} {:?}", answer.status, answer.headers);
        assert!(!(300..400).contains(&answer.status), "{shown}");
        assert_eq!(answer.header("set-cookie"), None, "{shown}");
        match answer.header("content-type") {
            Some(media_type) => assert!(is_media_type_of(&answer.body, media_type), "{shown}"),
            None => assert!(answer.body.is_empty(), "{shown}"),
        }
    }
}

#[tokio::test]
async fn offered_extensions_are_not_accepted() {
    let gateway = Gateway::start(open_to_all()).await;
    for offered in ["permessage-deflate; client_max_window_bits", "x-webkit-deflate-frame", "mux"] {
        let mut client = RawClient::connect(gateway.addr()).await;
        let request = handshake("/ws/chat/42/", &[("Sec-WebSocket-Extensions", offered)]);
        client.write(request.as_bytes()).await;
        let head = client.read_head().await;
        assert_eq!(
            (head.status, head.header("sec-websocket-extensions")),
            (101, None),
            "{offered}"
        );
    }
}

/// What follows an ambiguous request: a request of its own for those who see the end of the first one there.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn one_request_is_one_request_for_the_upstream() {
    let upstream = Upstream::start(|_| Reply::status(200)).await;
    let settings = Settings::chat(&upstream.url("/"))
        .section("proxy", &format!("upstream = {:?}\ntimeout = \"1s\"", upstream.url("/")))
        .also("server", "header_timeout = \"300ms\"");
    let gateway = Gateway::start(settings).await;
    let (chunked, end) = ("Transfer-Encoding: chunked", "0\r\n\r\n");
    let length = SMUGGLED.len() + end.len();
    let both = [
        format!("Content-Length: {length}\r\n{chunked}\r\n\r\n{end}"),
        format!("{chunked}\r\nContent-Length: {length}\r\n\r\n{end}"),
        format!("Content-Length: 0\r\nContent-Length: {}\r\n\r\n", SMUGGLED.len()),
        format!("Content-Length: {}\r\nContent-Length: 0\r\n\r\n", SMUGGLED.len()),
        format!("Content-Length: 0, {}\r\n\r\n", SMUGGLED.len()),
        format!("Content-Length: +{length}\r\n\r\n"),
        "Content-Length: 0x10\r\n\r\n".to_owned(),
        format!("Content-Length : {length}\r\n\r\n"),
        format!("X: y\r\n Content-Length: {length}\r\n\r\n"),
        format!("Content_Length: {length}\r\n\r\n"),
        format!("Transfer-Encoding : chunked\r\nContent-Length: {length}\r\n\r\n{end}"),
        format!("X: y\r\n {chunked}\r\nContent-Length: {length}\r\n\r\n{end}"),
        format!("Transfer_Encoding: chunked\r\nContent-Length: {}\r\n\r\n{end}", end.len()),
        format!("Transfer-Encoding: xchunked\r\nContent-Length: {length}\r\n\r\n{end}"),
        format!("Transfer-Encoding: chunked, identity\r\n\r\n{end}"),
        format!("Transfer-Encoding: identity\r\n{chunked}\r\n\r\n{end}"),
        format!("{chunked}\r\n{chunked}\r\n\r\n{end}"),
        format!("{chunked}\r\n\r\n0 \r\n\r\n"),
        format!("{chunked}\r\n\r\n0;a=b\r\n\r\n"),
        format!("{chunked}\r\n\r\n0x0\r\n\r\n"),
        format!("{chunked}\r\n\r\n-0\r\n\r\n"),
        format!("{chunked}\r\n\r\n0\n\n"),
        format!("{chunked}\r\n\r\nfffffffffffffffff\r\n"),
        format!("{chunked}\r\n\r\n1\r\nab\r\n{end}"),
        format!("{chunked}\r\nConnection: transfer-encoding\r\n\r\n{end}"),
        "Content-Length: 3\r\nConnection: content-length\r\n\r\nabc".to_owned(),
        "Content-Length: 3\r\nExpect: 100-continue\r\n\r\nabc".to_owned(),
        "X: y\rTransfer-Encoding: chunked\r\n\r\n".to_owned(),
        format!("X: y\nTransfer-Encoding: chunked\r\n\r\n{end}"),
    ];
    let mut both_passed = 0;
    for head in &both {
        let before = upstream.requests().len();
        let mut client = RawClient::connect(gateway.addr()).await;
        let request = format!("POST /first HTTP/1.1\r\nHost: a\r\n{head}{SMUGGLED}");
        client.write(request.as_bytes()).await;
        let mut passed = 0;
        while let Some(status) = client.try_read_status().await {
            // The body of a refusal is a line of JSON without a head.
            passed += usize::from(status == 200);
            if status != 200 && status != 100 {
                break;
            }
        }
        both_passed += usize::from(passed == 2);
        let seen = upstream.requests().split_off(before);
        let paths: Vec<&str> = seen.iter().map(|request| request.path.as_str()).collect();
        assert_eq!(paths.len(), passed, "{head:?}: {paths:?}");
        assert!(passed < 2 || paths == ["/first", "/smuggled"], "{head:?}: {paths:?}");
        for request in &seen {
            let lengths = request.headers.get_all("content-length").iter().count();
            let is_chunked = request.headers.contains_key("transfer-encoding");
            assert!(lengths + usize::from(is_chunked) < 2, "{head:?}: {:?}", request.headers);
        }
    }
    assert!(both_passed > 0, "no head was taken for valid, so nothing was compared");
}

#[tokio::test]
async fn the_longest_values_of_a_client_reach_the_upstream() {
    let upstream = Upstream::accepting().await;
    let url = upstream.url("/chat/{conversation_id}/{user_id}");
    let settings =
        Settings::chat(&url).upstream("worker", &format!("kind = \"http\"\nurl = {url:?}"));
    let gateway = Gateway::start(settings).await;
    // Each byte of these takes three in a URL or a header.
    let user = "ü".repeat(127);
    let (room, id) = ("%C3%BC".repeat(100), "ü".repeat(64));
    let token = gateway.token(json!({"user_id": user, "username": user})).await;
    let path = format!("/ws/chat/{room}/?connection_token={token}");
    let mut client = Client::open(gateway.addr(), &path, &[]).await;
    client.next_event("connected").await;
    client.send_json(&json!({"message": "hi", "id": id})).await;
    client.next_event("task_queued").await;
    let request = upstream.next_request().await;
    let headers = request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let head = request.path.len() + headers.sum::<usize>();
    assert!((1000..8000).contains(&head), "{head} bytes, and common servers take 8 KiB");
    assert_eq!(request.json()["message_id"], json!(id));
}
