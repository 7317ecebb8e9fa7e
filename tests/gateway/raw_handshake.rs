//! Raw routes ask their upstream before the client gets its 101, with what the client asks for.

use serde_json::json;

use super::rig::frame::text;
use super::rig::raw::{Received, handshake};
use super::rig::raw_server::server_frame;
use super::rig::{Gateway, RawClient, RawPeer, RawServer, Settings};

/// A raw route at `/raw/{name}` with a channel. `more` are further keys of it.
fn raw(url: &str, more: &str) -> Settings {
    Settings::new()
        .section("origins", "missing = \"allow\"\nallow = [\"https://app.example.com\"]")
        .also("server", "refusal_delay = \"0s\"")
        .upstream("app", &format!("kind = \"websocket\"\nurl = {url:?}"))
        .route(&format!(
            "path = \"/raw/{{name}}\"\nchannel = \"raw_{{name}}\"\nprotocol = \"raw\"\nupstream = \"app\"\n\
             auth = [\"connection_token\", \"cookie\", \"anonymous\"]\n{more}\n"
        ))
}

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
async fn the_upstream_gets_the_clients_request_and_the_client_its_answer() {
    let server = RawServer::start().await;
    let gateway = Gateway::start(raw(&format!("{}/rooms/{{name}}", server.url()), "")).await;
    let token = gateway.token(json!({"user_id": 7})).await;
    let offered = format!("mqtt, soap, tidegate.token.{token}");
    let headers = [
        ("Origin", "https://app.example.com"),
        ("User-Agent", "a browser"),
        ("Cookie", "sessionid=1"),
        ("Authorization", "Token abc"),
        ("Sec-WebSocket-Protocol", &offered),
        ("Sec-WebSocket-Extensions", "permessage-deflate"),
        ("X-Tidegate-User-Id", "1"),
    ];
    let (mut client, mut peer) = ask(&gateway, &server, "/raw/x?q=%20", &headers).await;
    assert_eq!(peer.request, "GET /rooms/x?q=%20 HTTP/1.1");
    for (name, value) in &headers[..4] {
        assert_eq!(peer.all(&name.to_lowercase()), [*value], "{name}");
    }
    assert_eq!(peer.all("sec-websocket-protocol"), ["mqtt, soap"]);
    assert_eq!(peer.header("sec-websocket-extensions"), None);
    assert_eq!(peer.all("x-tidegate-user-id"), ["7"]);
    assert_eq!(peer.all("x-tidegate-channel"), ["raw_x"]);
    assert_eq!(peer.all("x-forwarded-host"), ["gateway.test"]);
    assert_eq!(peer.all("host"), [server.addr().to_string()], "that of the URL");
    let answer = peer.response(&[("Sec-WebSocket-Protocol", "soap"), ("Set-Cookie", "a=1")]);
    // The first message comes with the answer.
    peer.write(&[answer.as_bytes(), &server_frame(0x81, b"welcome")].concat()).await;
    let head = client.read_head().await;
    assert_eq!(head.status, 101);
    assert_eq!(head.header("sec-websocket-protocol"), Some("soap"));
    assert_eq!(head.header("set-cookie"), Some("a=1"));
    client.expect_text("welcome").await;
    client.send(&text("hello")).await;
    assert_eq!(peer.expect(0x81).await, b"hello");
    // Publications of its channel still come.
    gateway.publish("raw_x", json!({"number": 1})).await;
    client.expect_text("{\"number\":1}").await;
}

#[tokio::test]
async fn a_url_without_a_path_gets_the_clients_and_host_may_be_the_clients() {
    let server = RawServer::start().await;
    let gateway = Gateway::start(raw(&server.url(), "host = \"client\"")).await;
    let mut client = RawClient::connect(gateway.addr()).await;
    // What follows the handshake at once waits for the upstream.
    let request = [handshake("/raw/x", &[]).as_bytes(), &text("early").bytes()].concat();
    client.write(&request).await;
    let mut peer = server.open().await;
    assert_eq!(peer.request, "GET /raw/x HTTP/1.1");
    assert_eq!(peer.all("host"), ["gateway.test"]);
    assert_eq!(client.read_head().await.status, 101);
    assert_eq!(peer.expect(0x81).await, b"early");
}

#[tokio::test]
async fn a_refusal_reaches_the_client() {
    let server = RawServer::start().await;
    for (reject, status, code) in [
        ("http", "401 Unauthorized", 401),
        ("http", "403 Forbidden", 403),
        ("http", "500 Internal Server Error", 500),
        ("close", "401 Unauthorized", 4001),
        ("close", "403 Forbidden", 4003),
        ("close", "500 Internal Server Error", 1013),
        ("close", "307 Temporary Redirect", 307),
    ] {
        let settings = raw(&server.url(), &format!("reject = {reject:?}"));
        let gateway = Gateway::start(settings).await;
        let (mut client, mut peer) = ask(&gateway, &server, "/raw/x", &[]).await;
        let answer = format!("HTTP/1.1 {status}\r\nX-Why: rules\r\nContent-Length: 2\r\n\r\nno");
        peer.write(answer.as_bytes()).await;
        let head = client.read_head().await;
        if code < 1000 {
            assert_eq!((head.status, head.header("x-why")), (code, Some("rules")));
            assert_eq!(client.read_exact(2).await, b"no");
            continue;
        }
        assert_eq!(head.status, 101, "{status}");
        let mut received = client.next().await;
        if let Received::Text(event) = received {
            assert!(String::from_utf8(event).unwrap().contains("retry_after"), "{status}");
            received = client.next().await;
        }
        assert!(
            matches!(received, Received::Close(Some(found), _) if found == code),
            "{received:?}"
        );
    }
}

#[tokio::test]
async fn a_client_that_gives_up_ends_the_request_to_the_upstream() {
    let server = RawServer::start().await;
    let gateway = Gateway::start(raw(&server.url(), "")).await;
    let (client, mut peer) = ask(&gateway, &server, "/raw/x", &[]).await;
    drop(client);
    peer.ended().await;
    gateway.wait_for_metric("tidegate_upstream_in_flight", &[("upstream", "app")], 0.0).await;
}

#[tokio::test]
async fn a_session_cookie_of_the_gateway_stays_with_it() {
    let server = RawServer::start().await;
    let settings = raw(&server.url(), "").section(
        "jwt",
        "cookie = \"sid\"\nkeys = [{ alg = \"HS256\", secret = \"0123456789abcdef0123456789abcdef\" }]",
    );
    let gateway = Gateway::start(settings).await;
    // An empty cookie is no credential, so that the client is anonymous.
    let headers = [("Cookie", "a=1; sid=; b=2")];
    let (_client, peer) = ask(&gateway, &server, "/raw/x", &headers).await;
    assert_eq!(peer.all("cookie"), ["a=1; b=2"]);
}
