//! Paths of routes: the rest of a path, which route serves a request, and where a rest may not lead.

use serde_json::json;

use super::rig::echo::WebSocketServer;
use super::rig::{Client, Gateway, RawClient, Settings, http};

/// A raw route whose upstream gets the rest of the path.
fn raw_route(path: &str, channel: &str) -> String {
    format!(
        "path = {path:?}\nchannel = {channel:?}\nupstream = \"app\"\nauth = [\"anonymous\"]\nprotocol = \"raw\"\n\
         reject = \"http\""
    )
}

fn settings(url: &str, routes: &[String]) -> Settings {
    let upstream = format!("kind = \"websocket\"\nurl = {url:?}");
    let settings = Settings::new().upstream("app", &upstream);
    routes.iter().fold(settings, |settings, route| settings.route(route))
}

#[tokio::test]
async fn the_upstream_gets_the_rest_as_it_was_sent() {
    let mut app = WebSocketServer::start().await;
    let url = format!("{}/base/{{rest*}}", app.url());
    let gateway = Gateway::start(settings(&url, &[raw_route("/app/{rest*}", "app")])).await;
    for (path, expected) in [
        ("/app/", "/base/"),
        ("/app", "/base/"),
        ("/app/a/b/", "/base/a/b/"),
        ("/app/a%20b/%C3%BC%2F%41//x?y=1", "/base/a%20b/%C3%BC%2F%41//x"),
    ] {
        let _client = Client::open(gateway.addr(), path, &[]).await;
        assert_eq!(app.accept().await.uri.path(), expected, "{path}");
    }
    for path in [
        "/application",
        "/app/..",
        "/app/a/%2e%2E/b",
        "/app/a%2f..%2fb",
        "/app/%252e%252e/b",
        "/app/a%5c..%5cb",
        "/app/a\\..\\b",
        "/app/%00",
        "/app/%ff",
    ] {
        let mut client = RawClient::connect(gateway.addr()).await;
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        client.write(head.as_bytes()).await;
        let status = client.read_head().await.status;
        // The HTTP library refuses the backslashes.
        assert!(matches!(status, 404 | 400), "{path}: {status}");
    }
}

#[tokio::test]
async fn specific_routes_win_over_a_rest_at_the_root() {
    let mut app = WebSocketServer::start().await;
    let url = app.url();
    let upstream = format!("{url}/{{rest*}}");
    let settings = settings(&upstream, &[raw_route("/{rest*}", "all")])
        .upstream("room", &format!("kind = \"websocket\"\nurl = \"{url}/rooms/{{room}}\""))
        .route(&raw_route("/rooms/{room}", "room_{room}").replace("\"app\"", "\"room\""))
        .route("path = \"/health\"\nreply = '{\"status\":\"ok\"}'");
    let gateway = Gateway::start(settings).await;
    for (path, channel, uri) in [
        ("/", "all", "/"),
        ("/rooms/7/", "room_7", "/rooms/7"),
        ("/rooms/7/x", "all", "/rooms/7/x"),
        ("/socket.io/", "all", "/socket.io/"),
    ] {
        let _client = Client::open(gateway.addr(), path, &[]).await;
        let accepted = app.accept().await;
        assert_eq!(accepted.headers["x-tidegate-channel"], channel, "{path}");
        assert_eq!(accepted.uri.path(), uri, "{path}");
    }
    // A value that the room cannot have does not make its path one of the other route.
    let long = format!("/rooms/{}", "x".repeat(300));
    for path in ["/rooms/%00", long.as_str()] {
        let refused = Client::try_open(gateway.addr(), path, &[]).await.err().expect("no route");
        assert_eq!((refused.status, &refused.json()["code"]), (404, &json!("no_route")), "{path}");
    }
    assert_eq!(http::get(gateway.addr(), "/health").await.text(), "{\"status\":\"ok\"}");
    let mut health = Client::open(gateway.addr(), "/health", &[]).await;
    assert_eq!(health.next_json().await, json!({"status": "ok"}));
}

#[tokio::test]
async fn a_rest_is_a_parameter_like_others() {
    let gateway = Gateway::start(
        Settings::new()
            .route("path = \"/docs/{doc*}\"\nchannel = \"doc_{doc*}\"\nauth = [\"anonymous\"]"),
    )
    .await;
    let (mut client, connected) = Client::connected(&gateway, "/docs/a/b%2Fc/%C3%BC").await;
    assert_eq!(connected["doc"], "a/b/c/ü");
    gateway.publish("doc_a/b/c/ü", json!({"event": "saved"})).await;
    client.next_event("saved").await;
}
