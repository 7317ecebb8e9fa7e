//! The handshake: what the upstream gets of the client's, and the client of the upstream's.

use serde_json::json;

use super::{pass, start};
use crate::rig::raw::handshake;
use crate::rig::{API_KEY, Gateway, RawClient, RawPeer, RawServer, http};

/// Sends a handshake, and returns both ends before the upstream has answered.
async fn ask(
    gateway: &Gateway,
    server: &RawServer,
    path: &str,
    headers: &[(&str, &str)],
) -> (RawClient, RawPeer) {
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(handshake(path, headers).as_bytes()).await;
    (client, server.accept().await)
}

#[tokio::test]
async fn the_upstream_gets_the_clients_request() {
    let server = RawServer::start().await;
    let gateway = Gateway::start(pass(&server.url(), "")).await;
    let headers = [
        ("Origin", "https://app.example.com"),
        ("User-Agent", "a browser"),
        ("Cookie", "sessionid=1; other=2"),
        ("Authorization", "Token abc"),
        ("Accept-Language", "de"),
        ("Sec-WebSocket-Protocol", "mqtt, soap"),
        ("Sec-WebSocket-Extensions", "permessage-deflate"),
        ("X-Tidegate-User-Id", "1"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Real-Ip", "10.0.0.1"),
    ];
    let (mut client, mut peer) = ask(&gateway, &server, "/app/x?room=7&q=%20", &headers).await;
    assert_eq!(peer.request, "GET /app/x?room=7&q=%20 HTTP/1.1");
    for (name, value) in &headers[..5] {
        assert_eq!(peer.all(&name.to_lowercase()), [*value], "{name}");
    }
    assert_eq!(peer.all("host"), ["gateway.test"]);
    assert_eq!(peer.all("sec-websocket-protocol"), ["mqtt, soap"]);
    assert_eq!(peer.all("sec-websocket-version"), ["13"]);
    assert_eq!(peer.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(peer.all("x-forwarded-proto"), ["http"]);
    assert_eq!(peer.all("x-forwarded-host"), ["gateway.test"]);
    assert_eq!(peer.all("forwarded"), ["for=127.0.0.1;host=\"gateway.test\";proto=http"]);
    for name in ["x-request-id", "traceparent", "x-tidegate-connection-id"] {
        assert_eq!(peer.all(name).len(), 1, "{name}");
    }
    for name in ["sec-websocket-extensions", "x-tidegate-user-id", "x-real-ip"] {
        assert_eq!(peer.header(name), None, "{name}");
    }
    let answer = peer.response(&[
        ("Sec-WebSocket-Protocol", "soap"),
        ("Set-Cookie", "a=1; Path=/"),
        ("Set-Cookie", "b=2"),
        ("X-App", "yes"),
    ]);
    peer.write(answer.as_bytes()).await;
    let head = client.read_head().await;
    assert_eq!(head.status, 101);
    assert_eq!(head.header("sec-websocket-protocol"), Some("soap"));
    assert_eq!(head.header("x-app"), Some("yes"));
    assert_eq!(head.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    let cookies = head.headers.iter().filter(|(name, _)| name == "set-cookie");
    assert_eq!(cookies.map(|(_, value)| &**value).collect::<Vec<_>>(), ["a=1; Path=/", "b=2"]);
}

#[tokio::test]
async fn the_url_may_have_a_path_and_host_may_be_the_upstreams() {
    let server = RawServer::start().await;
    let url = format!("{}/base/{{name}}?key=1", server.url());
    let gateway = Gateway::start(pass(&url, "host = \"upstream\"")).await;
    let (_client, peer) = ask(&gateway, &server, "/app/a%20b?room=7", &[]).await;
    assert_eq!(peer.request, "GET /base/a%20b?key=1&room=7 HTTP/1.1");
    assert_eq!(peer.all("host"), [server.addr().to_string()]);
    assert_eq!(peer.all("x-forwarded-host"), ["gateway.test"]);
}

#[tokio::test]
async fn a_token_of_the_gateway_never_reaches_the_upstream() {
    let server = RawServer::start().await;
    let gateway = Gateway::start(pass(&server.url(), "")).await;
    for by_protocol in [false, true] {
        let token = gateway.token(json!({"user_id": "u 7", "username": "Zoë"})).await;
        let protocols = format!("mqtt, tidegate.token.{token}");
        let (path, headers) = match by_protocol {
            true => ("/app/x?a=1".to_owned(), vec![("Sec-WebSocket-Protocol", &*protocols)]),
            false => (format!("/app/x?connection_token={token}&a=1"), vec![]),
        };
        let (mut client, mut peer) = ask(&gateway, &server, &path, &headers).await;
        assert_eq!(peer.request, "GET /app/x?a=1 HTTP/1.1");
        assert!(
            peer.headers.iter().all(|(_, value)| !value.contains(&token)),
            "{:?}",
            peer.headers
        );
        assert_eq!(peer.all("x-tidegate-user-id"), ["u%207"]);
        assert_eq!(peer.all("x-tidegate-username"), ["Zo%C3%AB"]);
        let offered = if by_protocol { vec!["mqtt"] } else { vec![] };
        assert_eq!(peer.all("sec-websocket-protocol"), offered);
        let selected: Vec<_> =
            offered.iter().map(|offered| ("Sec-WebSocket-Protocol", *offered)).collect();
        let response = peer.response(&selected);
        peer.write(response.as_bytes()).await;
        let head = client.read_head().await;
        assert_eq!(head.status, 101);
        assert_eq!(head.header("sec-websocket-protocol"), offered.first().copied());
    }
}

#[tokio::test]
async fn a_client_of_the_gateways_own_subprotocol_gets_it_if_the_upstream_selects_none() {
    let server = RawServer::start().await;
    let gateway = Gateway::start(pass(&server.url(), "")).await;
    let token = gateway.token(json!({"user_id": 7})).await;
    let protocols = format!("tidegate.v1, tidegate.token.{token}");
    let headers = [("Sec-WebSocket-Protocol", &*protocols)];
    let (mut client, mut peer) = ask(&gateway, &server, "/app/x", &headers).await;
    assert_eq!(peer.header("sec-websocket-protocol"), None);
    let response = peer.response(&[]);
    peer.write(response.as_bytes()).await;
    assert_eq!(client.read_head().await.header("sec-websocket-protocol"), Some("tidegate.v1"));
}

#[tokio::test]
async fn the_gateways_own_checks_come_before_the_upstream() {
    let server = RawServer::start().await;
    let gateway = Gateway::start(pass(&server.url(), "")).await;
    for (path, headers, status) in [
        ("/app/x", &[("Origin", "https://evil.test")][..], 403),
        ("/app/x?connection_token=bad", &[], 401),
    ] {
        let mut client = RawClient::connect(gateway.addr()).await;
        client.write(handshake(path, headers).as_bytes()).await;
        assert_eq!(client.read_head().await.status, status);
    }
    // The first handshake that the upstream sees is this one.
    let (_client, peer) = ask(&gateway, &server, "/app/good", &[]).await;
    assert_eq!(peer.request, "GET /app/good HTTP/1.1");
}

#[tokio::test]
async fn a_connection_without_a_channel_is_listed_and_counted() {
    let (gateway, _server, _client, _peer) = start("").await;
    let listed = http::send(
        gateway.admin(),
        "GET",
        "/v1/connections",
        &[("authorization", &format!("Bearer {API_KEY}"))],
        "".into(),
    )
    .await
    .json();
    assert_eq!(listed["connections"].as_array().map(Vec::len), Some(1), "{listed}");
    assert!(listed["connections"][0]["channel"].is_null(), "{listed}");
    assert_eq!(listed["connections"][0]["route"], "/app/{name}");
}

#[tokio::test]
async fn heads_are_bounded_both_ways() {
    let server = RawServer::start().await;
    let settings = pass(&server.url(), "").also("server", "max_header_bytes = \"16KiB\"");
    let gateway = Gateway::start(settings).await;
    // A long query and a long header pass whole.
    let query = "q=".to_owned() + &"x".repeat(6000);
    let cookie = "a=".to_owned() + &"y".repeat(6000);
    let headers = [("Cookie", &*cookie)];
    let (_client, peer) = ask(&gateway, &server, &format!("/app/x?{query}"), &headers).await;
    assert_eq!(peer.request, format!("GET /app/x?{query} HTTP/1.1"));
    assert_eq!(peer.all("cookie"), [cookie]);
    // Too long ones do not reach the upstream.
    for (path, cookie) in
        [(format!("/app/x?q={}", "x".repeat(20_000)), ""), ("/app/x".to_owned(), "yes")]
    {
        let cookie = cookie.repeat(10_000);
        let mut client = RawClient::connect(gateway.addr()).await;
        let request = handshake(&path, &[("Cookie", &*cookie)]);
        // The gateway may answer before everything is written.
        let _ = client.try_write(request.as_bytes()).await;
        let status = client.read_head().await.status;
        assert!([414, 431].contains(&status), "{status}");
    }
    // Nor does an endless answer of the upstream reach the client.
    let (mut client, mut peer) = ask(&gateway, &server, "/app/x", &[]).await;
    let header = format!("X-Long: {}\r\n", "z".repeat(8000));
    let mut answer = "HTTP/1.1 101 Switching Protocols\r\n".to_owned();
    answer.push_str(&header.repeat(200));
    // The gateway may end the connection before everything is written.
    let _ = peer.try_write(answer.as_bytes()).await;
    assert_eq!(client.read_head().await.status, 502);
}
