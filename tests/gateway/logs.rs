//! What the log says: whom each line is about, what it never says, what is held back.

use serde_json::{Value, json};

use crate::chat::chat;
use crate::outcome::Outcome::{Closed, Connected};
use crate::outcome::outcome;
use crate::rig::{Client, Gateway, Settings, Upstream};

const PATH: &str = "/ws/chat/42/";
const SECRET_TEXT: &str = "nobody-else-reads-this";

fn texts<'a>(lines: &'a [Value], field: &str) -> Vec<&'a str> {
    lines.iter().map(|line| line[field].as_str().unwrap_or("-")).collect()
}

#[tokio::test]
async fn a_message_can_be_followed_from_the_edge_to_the_upstream() {
    let upstream = Upstream::accepting().await;
    let settings = Settings::chat(&upstream.url("/"))
        .also("server", "trusted_proxies = [\"127.0.0.1/32\"]")
        .also("log", "level = \"debug\"");
    let mut gateway = Gateway::start(settings).await;
    let token = gateway.token(json!({"user_id": 7, "username": "ana"})).await;
    let path = format!("{PATH}?connection_token={token}");
    let mut client = Client::open(gateway.addr(), &path, &[("x-request-id", "edge-1")]).await;
    let connected = client.next_event("connected").await;
    let connection = connected["connection_id"].as_str().unwrap();
    client.send_json(&json!({"message": SECRET_TEXT, "id": "m1"})).await;
    let task_id = client.next_event("task_queued").await["task_id"].clone();
    client.send_json(&json!({"message": SECRET_TEXT.repeat(1000), "id": "m2"})).await;
    assert_eq!(client.next_event("error").await["code"], "message_too_long");
    drop(client);
    gateway.wait_for_event("connection_closed").await;
    gateway.stop().await;

    let asked = upstream.next_request().await.json();
    assert_eq!(asked["request_id"], "edge-1");
    assert_eq!(asked["connection_id"], connection);

    for event in ["handshake_admitted", "connection_opened", "connection_closed"] {
        let lines = gateway.log_events(event);
        assert_eq!(texts(&lines, "connection"), [connection], "{event}");
        assert_eq!(texts(&lines, "request"), ["edge-1"], "{event}");
    }
    for event in ["frame_received", "upstream_asked", "message_queued", "message_refused"] {
        let line = gateway.wait_for_event(event).await;
        for (field, value) in [
            ("connection", connection),
            ("request", "edge-1"),
            ("user", "7"),
            ("channel", "chat_42"),
        ] {
            assert_eq!(line[field], value, "{event} {field}: {line}");
        }
    }
    let frames = gateway.log_events("frame_received");
    assert_eq!(texts(&frames, "message_id"), ["m1", "m2"]);
    let asked = gateway.wait_for_event("upstream_asked").await;
    assert_eq!((&asked["message_id"], &asked["task_id"]), (&json!("m1"), &task_id));
    assert_eq!(gateway.wait_for_event("message_queued").await["task_id"], task_id);

    assert!(!gateway.stderr_contains(SECRET_TEXT), "a message's text");
    assert!(!gateway.stderr_contains(&token), "a token");
    assert!(!gateway.stderr_contains("connection_token="), "a query string");
}

#[tokio::test]
async fn without_a_trusted_proxy_a_request_is_called_by_its_trace() {
    let gateway = Gateway::start(chat("")).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traceparent = format!("00-{trace}-00f067aa0ba902b7-01");
    let evil = [("origin", "https://evil.example"), ("x-request-id", "mine")];
    let refused = [evil[0], evil[1], ("traceparent", traceparent.as_str())];
    assert_eq!(outcome(&gateway, PATH, &refused).await, Closed(4003));
    let line = gateway.wait_for_event("handshake_refused").await;
    assert_eq!((&line["request"], &line["cause"]), (&json!(trace), &json!("origin")));
    assert_eq!(line["level"], "INFO", "a page that is not allowed is no warning");
    assert_eq!(line["ip"], "127.0.0.1");
    assert_eq!(line["connection"].as_str().map(str::len), Some(32));
}

#[tokio::test]
async fn the_audit_can_be_read_alone() {
    let settings = chat("").also("log", "level = \"audit=info,tidegate::cli=info,warn\"");
    let toml = settings.to_string();
    let gateway = Gateway::start(toml).await;
    let token = gateway.token(json!({"user_id": 7, "username": "ana"})).await;
    let path = format!("{PATH}?connection_token={token}");
    assert_eq!(outcome(&gateway, &path, &[]).await, Connected);
    assert_eq!(outcome(&gateway, &path, &[]).await, Closed(4001));
    gateway.api("/v1/disconnect", json!({"user_id": 7})).await;
    gateway.wait_for_event("disconnect_ordered").await;

    let issued = gateway.wait_for_event("token_issued").await;
    let used = gateway.wait_for_event("token_consumed").await;
    let replayed = gateway.wait_for_event("token_refused").await;
    for line in [&issued, &used, &replayed] {
        assert_eq!(
            (&line["target"], &line["token"]),
            (&json!("audit"), &issued["token"]),
            "{line}"
        );
    }
    assert_eq!((&issued["user"], &used["user"]), (&json!("7"), &json!("7")));
    assert_eq!(replayed["outcome"], "unknown_or_replayed");
    assert_eq!(gateway.events("connection_closed") + gateway.events("handshake_refused"), 0);
    assert!(!gateway.stderr_contains(&token));
}

#[tokio::test]
async fn repeats_are_counted_in_place_of_being_written() {
    let mut gateway = Gateway::start(chat("").also("log", "repeats = \"3/1h\"")).await;
    for _ in 0..10 {
        let evil = [("origin", "https://evil.example")];
        assert_eq!(outcome(&gateway, PATH, &evil).await, Closed(4003));
    }
    gateway.wait_for_metric("tidegate_log_lines_suppressed_total", &[], 7.0).await;
    gateway.stop().await;
    assert_eq!(gateway.events("handshake_refused"), 3);
    let told = gateway.wait_for_event("lines_suppressed").await;
    assert_eq!((&told["of"], &told["suppressed"]), (&json!("handshake_refused"), &json!(7)));
    assert!(told["key"].as_str().unwrap().contains("cause=origin"), "{told}");
}
