//! One address fills the memory budget with messages.

use serde_json::json;

use super::{BEHIND_PROXY, address, others_are_served, send_and_receive};
use crate::chat::relayed;
use crate::rig::raw::handshake;
use crate::rig::{Gateway, RawClient, Reply, Upstream, frame, until};

const BUDGET: f64 = (4 << 20) as f64;
const STRANGER: u8 = 200;

async fn start(upstream: &Upstream) -> Gateway {
    let settings = relayed(&upstream.url("/"), "auth = [\"anonymous\"]\n[route.history]\nsize = 0")
        .section("server", BEHIND_PROXY)
        .also("server", "max_memory = \"4MiB\"");
    Gateway::start(settings).await
}

/// Connects a stranger and writes `frames`. `None` = it was refused.
async fn stranger(gateway: &Gateway, frames: &[u8]) -> Option<RawClient> {
    let (name, address) = address(STRANGER);
    let mut client = RawClient::connect(gateway.addr()).await;
    let request = handshake("/ws/chat/stranger/", &[(name, &address)]);
    client.try_write(request.as_bytes()).await.ok()?;
    client.try_write(frames).await.ok()?;
    (client.try_read_status().await == Some(101)).then_some(client)
}

async fn used(gateway: &Gateway) -> f64 {
    gateway.metric("tidegate_memory_bytes", &[]).await
}

/// 100 connections of a stranger hold messages, and 100 more come while others are served.
async fn others_are_served_beside(gateway: &Gateway, frames: Vec<u8>) {
    let mut held = Vec::new();
    for _ in 0..100 {
        held.extend(stranger(gateway, &frames).await);
    }
    gateway.wait_for_event("memory_used_up").await;
    let attack = async {
        for _ in 0..100 {
            held.extend(stranger(gateway, &frames).await);
        }
        std::future::pending::<()>().await;
    };
    let others = async {
        others_are_served(gateway, async |client, number| {
            send_and_receive(gateway, client, number).await;
        })
        .await;
        gateway.wait_for_event("memory_client_closed").await;
        until("memory below the budget", async || (used(gateway).await <= BUDGET).then_some(()))
            .await;
        others_are_served(gateway, async |client, number| {
            send_and_receive(gateway, client, number).await;
        })
        .await;
    };
    tokio::select! {
        () = others => {}
        () = attack => unreachable!("the attack goes on until the others are done"),
    }
    let closed = gateway.log_events("memory_client_closed");
    assert!(closed.iter().all(|line| line["network"] == "192.0.2.200"), "{closed:?}");
    let refused = gateway.log_events("handshake_refused");
    assert!(!refused.is_empty() && refused.iter().all(|line| line["ip"] == "192.0.2.200"));
    drop(held);
    gateway.wait_for_event("memory_free").await;
    until("a place for the stranger", async || {
        let mut client = stranger(gateway, b"").await?;
        matches!(client.next().await, crate::rig::raw::Received::Text(_)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn unfinished_messages_of_one_address_keep_nobody_out() {
    let upstream = Upstream::accepting().await;
    let gateway = start(&upstream).await;
    let part = frame::text(vec![b'x'; 60_000]).more();
    others_are_served_beside(&gateway, part.bytes()).await;
}

#[tokio::test]
async fn waiting_messages_of_one_address_keep_nobody_out() {
    let upstream = Upstream::start(|request| match request.json()["message"].as_str() {
        Some("hello") => Reply::status(202),
        _ => Reply::Hang,
    })
    .await;
    let gateway = start(&upstream).await;
    let text = json!({"message": "hold", "pad": "x".repeat(10_000)}).to_string();
    others_are_served_beside(&gateway, frame::text(text).bytes().repeat(8)).await;
}
