//! How replies of HTTP upstreams end that do not complete, and what clients are told of refusals.

use bytes::Bytes;
use serde_json::json;

use super::rig::in_turn;
use super::rig::{Client, Gateway, Reply, Settings, Upstream};

const PATH: &str = "/ws/chat/42/";
const SSE: &str = "text/event-stream";

async fn gateway(upstream: &Upstream, more: &str) -> Gateway {
    let url = upstream.url("/chat");
    let upstream = format!("kind = \"http\"\nurl = {url:?}\nretries = 0\n{more}");
    Gateway::start(Settings::chat(&url).upstream("worker", &upstream)).await
}

/// Daphne leaves the response of a view open that raises an exception.
#[tokio::test]
async fn a_stream_that_is_left_open_ends_and_frees_its_user() {
    let (stream, reply) = Reply::stream(SSE);
    let upstream = Upstream::start(in_turn([reply])).await;
    let gateway = gateway(&upstream, "stream_idle_timeout = \"500ms\"").await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    client.send_json(&json!({"message": "hi"})).await;
    let task_id = client.next_event("task_queued").await["task_id"].clone();
    client.next_event("processing_started").await;
    assert!(stream.write("data: one\n\n"));
    assert_eq!(client.next_event("chunk").await["chunk"], "one");
    let error = client.next_event("error").await;
    assert_eq!(error["code"], "worker_lost", "{error}");
    assert_eq!(error["error"], "the reply fell silent", "{error}");
    assert_eq!(error["task_id"], task_id, "{error}");
    let ended = gateway.wait_for_event("generation_ended").await;
    assert_eq!(ended["level"], "INFO", "{ended}");
    assert_eq!(ended["outcome"], "worker_lost", "{ended}");
    assert_eq!(ended["reason"], "the reply fell silent", "{ended}");
}

#[tokio::test]
async fn with_end_event_a_body_without_terminal_event_is_lost() {
    let (stream, reply) = Reply::stream(SSE);
    let upstream = Upstream::start(in_turn([reply])).await;
    let gateway = gateway(&upstream, "end = \"event\"").await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    client.send_json(&json!({"message": "hi"})).await;
    client.next_event("task_queued").await;
    client.next_event("processing_started").await;
    assert!(stream.write("data: one\n\n"));
    client.next_event("chunk").await;
    // As nginx ends the body of a server that has died.
    drop(stream);
    assert_eq!(client.next_event("error").await["code"], "worker_lost");
}

#[tokio::test]
async fn refusals_reach_the_client_with_their_text_code_and_wait() {
    let header = |name, value: &str| vec![(name, value.to_owned())];
    let limited = json!({"error": {"message": "Quota used up.", "code": "insufficient_quota"}});
    let answers = [
        Reply::json(400, &json!({"error": {"message": "No model.", "code": "model_not_found"}})),
        Reply::Answer {
            status: 429,
            headers: header("retry-after", "30"),
            body: limited.to_string().into(),
        },
        Reply::json(422, &json!({"detail": [{"loc": ["body", "model"], "msg": "Field required"}]})),
        Reply::Answer { status: 302, headers: header("location", "/login"), body: Bytes::new() },
    ];
    let upstream = Upstream::start(in_turn(answers)).await;
    let gateway = gateway(&upstream, "").await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    for expected in [
        json!({"code": "upstream_rejected", "error": "No model.", "upstream_code": "model_not_found"}),
        json!({"code": "busy", "error": "Quota used up.", "upstream_code": "insufficient_quota", "retry_after": 30}),
        json!({"code": "upstream_rejected", "error": "body.model: Field required"}),
        json!({
            "code": "upstream_unavailable", "retry_after": 5,
            "error": "the service answered with a redirect, which the gateway does not follow",
        }),
    ] {
        client.send_json(&json!({"message": "hi", "id": "m"})).await;
        let mut error = client.next_event("error").await;
        let members = error.as_object_mut().unwrap();
        assert_eq!(members.remove("id"), Some(json!("m")));
        members.remove("event");
        members.remove("timestamp");
        assert_eq!(error, expected);
    }
}
