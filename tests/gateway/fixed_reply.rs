//! Routes with a fixed reply, as monitoring and load balancers request them. Nothing is ever redirected.

use super::chat::{APP, chat, session};
use super::outcome::Outcome::{Connected, Http};
use super::outcome::outcome;
use super::rig::raw::{Received, handshake};
use super::rig::{Client, Event, Gateway, RawClient, Reply, Settings, Upstream, http, until};

const SOCKET: &str = r#"{"status":"ok","message":"WebSocket healthy"}"#;
const PLAIN: &str = r#"{"status":"healthy"}"#;

fn settings() -> Settings {
    chat("")
        .route(&format!("path = \"/ws/health/\"\nreply = '{SOCKET}'"))
        .route(&format!("path = \"/api/v1/health/\"\nreply = '{PLAIN}'"))
}

/// The frames that a socket receives from its handshake to its end.
async fn receive(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> (String, Option<u16>) {
    let mut client = Client::open(gateway.addr(), path, headers).await;
    let Event::Text(text) = client.next().await else { panic!("no text") };
    (text, client.closed().await)
}

#[tokio::test]
async fn a_socket_gets_the_reply_and_is_closed_for_any_client() {
    let gateway = Gateway::start(settings().also("origins", "missing = \"reject\"")).await;
    let expected = (SOCKET.to_owned(), Some(1000));
    let foreign = ("origin", "https://evil.test");
    for headers in [&[] as &[_], &[APP], &[foreign], &[("cookie", "access_token=bad")]] {
        assert_eq!(receive(&gateway, "/ws/health/", headers).await, expected, "{headers:?}");
    }
    assert_eq!(receive(&gateway, "/ws/health", &[]).await, expected, "without the last slash");
    assert_eq!(receive(&gateway, "/ws/health/?connection_token=x", &[]).await, expected);
    let offered = [("sec-websocket-protocol", "tidegate.v1")];
    assert_eq!(receive(&gateway, "/ws/health/", &offered).await, expected);
    let admitted = [("outcome", "admitted")];
    gateway.wait_for_metric("tidegate_handshakes_total", &admitted, 7.0).await;
}

#[tokio::test]
async fn plain_http_gets_it_as_json() {
    let gateway = Gateway::start(settings()).await;
    for (path, body) in [
        ("/api/v1/health/", PLAIN),
        ("/api/v1/health", PLAIN),
        ("/api/v1/health/?verbose=1", PLAIN),
        ("/ws/health/", SOCKET),
    ] {
        // An AWS load balancer sends its target's address as Host, a page on another site sends its own origin.
        for headers in [&[] as &[_], &[("host", "10.0.3.7:8000")], &[("origin", "null")]] {
            let answer = http::send(gateway.addr(), "GET", path, headers, "".into()).await;
            assert_eq!((answer.status, answer.text()), (200, body.to_owned()), "{path}");
            assert_eq!(answer.header("content-type"), Some("application/json"));
        }
        let answer = http::send(gateway.addr(), "HEAD", path, &[], "".into()).await;
        assert_eq!((answer.status, answer.text()), (200, String::new()), "{path}");
        assert_eq!(answer.header("content-length"), Some(&*body.len().to_string()));
        let answer = http::send(gateway.addr(), "POST", path, &[], "{}".into()).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{path}");
    }
    // Simple probes send HTTP/1.0 without a Host.
    let mut probe = RawClient::connect(gateway.addr()).await;
    probe.write(b"GET /api/v1/health/ HTTP/1.0\r\n\r\n").await;
    assert_eq!(probe.read_exact(15).await, b"HTTP/1.0 200 OK");
}

#[tokio::test]
async fn nobody_holds_such_a_socket_open() {
    let settings = settings().also("server", "max_connections_per_ip = 1");
    let gateway = Gateway::start(settings).await;
    let mut stays = RawClient::open(gateway.addr(), "/ws/health/").await;
    assert!(matches!(stays.next().await, Received::Text(text) if text == SOCKET.as_bytes()));
    assert!(matches!(stays.next().await, Received::Close(Some(1000), _)));
    // The client does not answer the close frame, and it is counted until its connection ends.
    assert_eq!(http::get(gateway.addr(), "/api/v1/health/").await.status, 429);
    assert!(matches!(stays.next().await, Received::End), "it is closed without a close frame");
    // The permit is given back just after the connection has ended.
    let mut next = until("a free connection", async || {
        Client::try_open(gateway.addr(), "/ws/health/", &[]).await.ok()
    })
    .await;
    assert_eq!(next.closed().await, Some(1000));
}

#[tokio::test]
async fn the_first_of_the_file_takes_a_request() {
    let fixed = "path = \"/ws/chat/health/\"\nreply = '\"fixed\"'";
    let cookie = format!("access_token={}", session());
    let cookie = [("cookie", cookie.as_str())];
    let gateway = Gateway::start(chat("").route(fixed)).await;
    assert_eq!(outcome(&gateway, "/ws/chat/health/", &cookie).await, Connected);
    let settings = Settings::new()
        .section("origins", "allow = []")
        .route(fixed)
        .route("path = \"/ws/chat/{id}/\"\nchannel = \"c_{id}\"\nauth = [\"anonymous\"]");
    let gateway = Gateway::start(settings).await;
    assert_eq!(receive(&gateway, "/ws/chat/health/", &[]).await.0, "\"fixed\"");
    assert_eq!(outcome(&gateway, "/ws/chat/other/", &[]).await, Connected);
}

/// A regression test: browsers do not follow a 301 in a WebSocket handshake.
#[tokio::test]
async fn no_websocket_is_ever_redirected() {
    let redirect = |_: &_| Reply::status(301);
    let upstream = Upstream::start(redirect).await;
    let settings = settings().section("proxy", &format!("upstream = {:?}", upstream.url("/")));
    let gateway = Gateway::start(settings).await;
    let cookie = format!("access_token={}", session());
    let cookie = [("cookie", cookie.as_str())];
    for path in ["/ws/chat/42/", "/ws/chat/42"] {
        assert_eq!(outcome(&gateway, path, &cookie).await, Connected, "{path}");
    }
    for path in ["/ws/chat/", "/ws/chat", "/ws/chat/42/43/", "//ws/chat/42/", "/ws/", "/"] {
        assert_eq!(outcome(&gateway, path, &cookie).await, Http(404), "{path}");
    }
    let plain = handshake("/ws/chat/42/", &[]).replace("Upgrade: websocket\r\n", "");
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(plain.as_bytes()).await;
    assert_eq!(client.try_read_status().await, Some(426));
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(http::get(gateway.addr(), "/elsewhere").await.status, 301, "as the API answers");
}
