//! A panic in one session closes that session, and no other.

use serde_json::json;

use crate::chat::relayed;
use crate::rig::{Client, Gateway, Settings, Upstream, until};

const PATH: &str = "/ws/chat/42/";

/// Builds for tests panic when a client asks for it, if this is in their environment.
const PANICS: (&str, &str) = ("TIDEGATE_TEST_PANICS", "1");

fn one_thread(settings: Settings) -> Settings {
    settings.section("server", "listen = \"127.0.0.1:0\"\nthreads = 1")
}

#[tokio::test]
async fn a_panic_closes_its_session_and_leaves_the_rest() {
    let upstream = Upstream::accepting().await;
    let settings = one_thread(relayed(&upstream.url("/"), "auth = [\"anonymous\"]"));
    let mut gateway = Gateway::start_with_env(settings, &[PANICS]).await;
    let (mut other, _) = Client::connected(&gateway, PATH).await;
    // In the task that reads the connection, and in the one that relays its messages.
    for frame in [json!({"type": "tidegate.panic"}), json!({"message": "tidegate.panic"})] {
        let (mut client, connected) = Client::connected(&gateway, PATH).await;
        client.send_text(&frame.to_string()).await;
        assert_eq!(client.closed().await, Some(1011), "{frame}");
        let id = &connected["connection_id"];
        until(&format!("a line about {id}"), async || {
            let lines = gateway.log_events("session_panicked");
            lines.iter().any(|line| line["connection"] == *id).then_some(())
        })
        .await;
    }
    let panic = gateway.wait_for_event("panic").await;
    assert!(panic["why"].as_str().is_some_and(|why| why.contains("a test asked for")), "{panic}");
    assert_eq!(panic["thread"], "main", "the only worker has no thread of its own");
    gateway.wait_for_metric("tidegate_panics_total", &[], 2.0).await;
    let internal = [("by", "gateway"), ("reason", "internal_error")];
    gateway.wait_for_metric("tidegate_closes_total", &internal, 2.0).await;
    gateway.wait_for_metric("tidegate_connections", &[], 1.0).await;

    // The other session on the same thread and channel goes on.
    gateway.publish("chat_42", json!({"event": "news"})).await;
    other.next_event("news").await;
    other.send_json(&json!({"message": "hi"})).await;
    other.next_event("task_queued").await;
    assert_eq!(upstream.requests().len(), 1);
    assert_eq!(gateway.stop().await, Some(0));
}
