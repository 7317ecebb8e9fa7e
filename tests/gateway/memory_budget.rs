//! `[server] max_memory`: the largest send queue is closed first, then new connections are refused.

use serde_json::json;

use crate::chat::chat;
use crate::outcome::Outcome::{Connected, Http};
use crate::outcome::outcome;
use crate::rig::raw::{Received, handshake};
use crate::rig::{Client, Gateway, RawClient, Settings, http, until};

fn settings(max_memory: &str, history: &str) -> Settings {
    let route = format!(
        "auth = [\"anonymous\"]\nsend_queue = {{ messages = 1000, bytes = \"64MiB\" }}\n\
         [route.history]\n{history}"
    );
    chat(&route).also("server", &format!("max_memory = {max_memory:?}"))
}

/// A client that does not read what comes after its `connected` event.
async fn slow_client(gateway: &Gateway, path: &str) -> RawClient {
    let mut client = RawClient::connect_with_buffer(gateway.addr(), 8 * 1024).await;
    client.write(handshake(path, &[]).as_bytes()).await;
    assert_eq!(client.read_head().await.status, 101);
    assert!(matches!(client.next().await, Received::Text(_)));
    client
}

/// Publishes `count` times half a MiB.
async fn publish(gateway: &Gateway, channel: &str, count: usize) {
    for _ in 0..count {
        let text = "x".repeat(512 * 1024);
        gateway.publish(channel, json!({"event": "chunk", "text": text})).await;
    }
}

#[tokio::test]
async fn the_largest_send_queue_is_closed_first() {
    let gateway = Gateway::start(settings("24MiB", "size = 0")).await;
    let mut largest = slow_client(&gateway, "/ws/chat/1/").await;
    let mut smaller = slow_client(&gateway, "/ws/chat/2/").await;
    publish(&gateway, "chat_2", 20).await;
    publish(&gateway, "chat_1", 50).await;
    gateway.wait_for_metric("tidegate_memory_closes_total", &[], 1.0).await;
    gateway.wait_for_event("memory_queue_closed").await;
    let code = loop {
        match largest.next().await {
            Received::Text(_) => {}
            Received::Close(code, _) => break code,
            other => panic!("neither a publication nor a close: {other:?}"),
        }
    };
    assert_eq!(code, Some(4008));
    for _ in 0..20 {
        assert!(matches!(smaller.next().await, Received::Text(_)));
    }
    assert_eq!(outcome(&gateway, "/ws/chat/1/", &[]).await, Connected);
    assert_eq!(gateway.metric("tidegate_memory_refusing", &[]).await, 0.0);
}

/// A publication takes its memory once, however many clients have not read it.
#[tokio::test]
async fn a_shared_publication_counts_once() {
    let gateway = Gateway::start(settings("24MiB", "size = 0")).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(slow_client(&gateway, "/ws/chat/1/").await);
    }
    publish(&gateway, "chat_1", 20).await;
    until("queues of more than the budget", async || {
        let queued = gateway.metric("tidegate_send_queue_bytes", &[]).await;
        (queued > f64::from(24 << 20)).then_some(())
    })
    .await;
    until("a measurement of what they take", async || {
        let held = gateway.metric("tidegate_memory_bytes", &[]).await;
        (held > 0.0 && held < f64::from(24 << 20)).then_some(())
    })
    .await;
    for client in &mut clients {
        for _ in 0..20 {
            assert!(matches!(client.next().await, Received::Text(_)));
        }
    }
    assert_eq!(gateway.metric("tidegate_memory_closes_total", &[]).await, 0.0);
}

#[tokio::test]
async fn new_connections_are_refused_while_nothing_can_be_closed() {
    let with_max =
        |max| settings(max, "size = 100\nttl = \"1h\"").section("reload", "watch = \"50ms\"");
    let settings = with_max("1MiB").section("engine", crate::rig::gateway::MEMORY_ONLY);
    let gateway = Gateway::start(&settings).await;
    let (mut client, _) = Client::connected(&gateway, "/ws/chat/1/").await;
    publish(&gateway, "chat_1", 3).await;
    gateway.wait_for_metric("tidegate_memory_refusing", &[], 1.0).await;
    assert_eq!(outcome(&gateway, "/ws/chat/1/", &[]).await, Http(503));
    let refusals = [("limit", "memory")];
    assert_eq!(gateway.metric("tidegate_limit_refusals_total", &refusals).await, 1.0);
    gateway.wait_for_event("memory_used_up").await;
    // Those who are connected stay, and a load balancer does not take the node away from them.
    for _ in 0..3 {
        client.next_event("chunk").await;
    }
    assert_eq!(http::get(gateway.admin(), "/readyz").await.status, 200);
    let larger = with_max("64MiB").section("engine", crate::rig::gateway::MEMORY_ONLY);
    std::fs::write(gateway.config_file(), larger.to_string()).unwrap();
    until("room", async || {
        (outcome(&gateway, "/ws/chat/1/", &[]).await == Connected).then_some(())
    })
    .await;
    gateway.wait_for_event("memory_free").await;
}

#[tokio::test]
async fn partial_messages_count() {
    let gateway = Gateway::start(settings("1MiB", "size = 0")).await;
    let mut clients = Vec::new();
    for number in 0..30 {
        let mut client = RawClient::open(gateway.addr(), &format!("/ws/chat/{number}/")).await;
        let part = crate::rig::frame::text(vec![b'x'; 60_000]).more();
        client.send(&part).await;
        clients.push(client);
    }
    gateway.wait_for_metric("tidegate_memory_refusing", &[], 1.0).await;
    let partial = [("part", "partial_messages")];
    assert!(gateway.metric("tidegate_memory_bytes", &partial).await >= 1_800_000.0);
    drop(clients);
    until("room", async || {
        (outcome(&gateway, "/ws/chat/1/", &[]).await == Connected).then_some(())
    })
    .await;
}
