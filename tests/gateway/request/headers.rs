//! Method, URL and headers of requests, and that no secret of them is ever shown.

use rustix::process::Signal;
use serde_json::json;

use super::*;
use crate::commands::tidegate;
use crate::rig::until;

#[tokio::test]
async fn headers_come_from_config_environment_and_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "hunter2-first\n").unwrap();
    let upstream = Upstream::accepting().await;
    let lines = format!(
        "signing_secret = \"0123456789abcdef\"\n\
         headers = {{ anthropic-version = \"2023-06-01\", x-env = \"${{KEY}}\", x-whole_file = {file:?}, \
         authorization = {{ file = {file:?}, prefix = \"Bearer \" }}, accept = \"text/event-stream\", \
         content-type = \"application/json; charset=utf-8\", user-agent = \"chat/1\" }}"
    );
    let settings =
        settings(&upstream, &lines).section("log", "format = \"json\"\nlevel = \"debug\"");
    let gateway = Gateway::start_with_env(&settings, &[("KEY", "hunter2-env")]).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    let request = sent(&mut client, &upstream, &hello()).await;
    for (name, value) in [
        ("anthropic-version", "2023-06-01"),
        ("x-env", "hunter2-env"),
        ("x-whole", "hunter2-first"),
        ("authorization", "Bearer hunter2-first"),
        ("accept", "text/event-stream"),
        ("content-type", "application/json; charset=utf-8"),
        ("user-agent", "chat/1"),
        ("accept-encoding", "identity"),
    ] {
        let values: Vec<_> = request.headers.get_all(name).iter().collect();
        assert_eq!(values, [value], "{name}");
    }
    for name in ["idempotency-key", "x-request-id", "traceparent", "x-tidegate-signature"] {
        assert!(request.headers.contains_key(name), "{name}");
    }
    assert_eq!(request.method, "POST");

    // A rotated secret is used after a reload, on the same connection.
    std::fs::write(&file, "hunter2-second\n").unwrap();
    gateway.signal(Signal::HUP);
    gateway.wait_for_event("config_reloaded").await;
    let second = json!({"message": "again", "id": "m2"}).to_string();
    let request = sent(&mut client, &upstream, &second).await;
    assert_eq!(request.header("authorization"), Some("Bearer hunter2-second"));
    assert_eq!(request.header("x-whole"), Some("hunter2-second"));

    // The effective config names the headers without their values, and no log line has one.
    let path = gateway.config_file();
    let environment = [("KEY", "hunter2-env")];
    let arguments = ["config", "show", "--config", path.to_str().unwrap()];
    let shown = crate::commands::tidegate_with(&environment, &arguments).await.ok();
    assert!(shown.contains("anthropic-version") && shown.contains("<redacted>"), "{shown}");
    assert!(!shown.contains("hunter2") && !shown.contains("2023-06-01"), "{shown}");
    assert!(!gateway.stderr_contains("hunter2"));
}

#[tokio::test]
async fn a_mistake_in_a_header_shows_no_secret() {
    let upstream = Upstream::accepting().await;
    let settings = settings(&upstream, "headers = { host = \"hunter2\", x-a = \"hunter2\\nb\" }");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, settings.to_string()).unwrap();
    let output = tidegate(&["check", "--config", file.to_str().unwrap()]).await;
    let text = format!("{}{}", output.stdout, output.stderr);
    assert_ne!(output.code, Some(0), "{text}");
    for key in ["upstream.worker.headers.host: ", "upstream.worker.headers.x-a: "] {
        assert!(text.contains(key), "{text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn a_get_has_the_message_in_its_query_and_no_body() {
    let upstream = Upstream::accepting().await;
    let url =
        upstream.url("/ask/{conversation_id}?v=1&q={message}&name={username}&id={message_id}");
    let gateway = Gateway::start(settings_to(&url, "method = \"GET\"")).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    let message = json!({"message": "a&b=c?#/ü ..", "id": "m 1"}).to_string();
    let request = sent(&mut client, &upstream, &message).await;
    assert_eq!(request.method, "GET");
    assert_eq!(request.path, "/ask/42?v=1&q=a%26b%3Dc%3F%23%2F%C3%BC%20..&name=&id=m%201");
    assert!(request.body.is_empty());
    for name in ["content-type", "content-length", "transfer-encoding"] {
        assert_eq!(request.header(name), None, "{name}");
    }
    // A message that is a step of a path has its place in a query.
    let request = sent(&mut client, &upstream, r#"{"message":".."}"#).await;
    assert!(request.path.contains("&q=..&"), "{}", request.path);
    // It does not fit in a URL.
    let long = json!({"message": "🚀".repeat(9_999)}).to_string();
    let (code, text) = refused(&mut client, &long).await;
    assert_eq!(code, "upstream_rejected");
    assert_eq!(text, "the message is too long for the URL of the service");
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn each_method_is_sent() {
    for method in ["PUT", "PATCH", "DELETE"] {
        let upstream = Upstream::accepting().await;
        let gateway = Gateway::start(settings(&upstream, &format!("method = {method:?}"))).await;
        let (mut client, _) = Client::connected(&gateway, PATH).await;
        let request = sent(&mut client, &upstream, &hello()).await;
        assert_eq!(request.method, method);
        assert_eq!(request.path, "/v1/chat");
        assert_eq!(request.body.is_empty(), method == "DELETE");
    }
}

/// A secret that a file no longer has is a mistake of the reload, and the old one stays in use.
#[tokio::test]
async fn a_reload_without_its_secret_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "first").unwrap();
    let upstream = Upstream::accepting().await;
    let gateway =
        Gateway::start(settings(&upstream, &format!("headers = {{ x-key_file = {file:?} }}")))
            .await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    std::fs::remove_file(&file).unwrap();
    gateway.signal(Signal::HUP);
    let logged = until("the rejected config", async || {
        gateway.log_events("config_rejected").first().cloned()
    })
    .await;
    assert!(logged.to_string().contains("upstream.worker.headers.x-key_file"), "{logged}");
    let request = sent(&mut client, &upstream, &hello()).await;
    assert_eq!(request.header("x-key"), Some("first"));
}
