//! A network that passes what goes one way and drops what goes the other, without closing anything.

use std::time::Instant;

use serde_json::json;

use super::recovered;
use crate::rig::{Client, Direction, Gateway, Redis, Settings, TcpProxy, http, until};

async fn wait_until_ready(gateway: &Gateway, ready: bool) {
    until("readiness", async || {
        let status = http::get(gateway.admin(), "/readyz").await.status;
        ((status == 200) == ready).then_some(())
    })
    .await;
}

async fn loses_nothing(direction: Direction, fault: &str) {
    let redis = Redis::start().await;
    let network = TcpProxy::start(&redis).await;
    let settings = Settings::chat("http://127.0.0.1:1/");
    let cut_off = Gateway::start(settings.clone().redis(&network.url())).await;
    let other = Gateway::start(settings.redis(&redis.url())).await;
    wait_until_ready(&cut_off, true).await;
    wait_until_ready(&other, true).await;
    let (mut client, _) = Client::connected(&cut_off, "/ws/chat/42/").await;
    other.publish("chat_42", json!({"n": 0})).await;
    assert_eq!(client.next_json().await["n"], 0);

    let cut = Instant::now();
    network.drop_silently(Some(direction));
    other.publish("chat_42", json!({"n": 1})).await;
    wait_until_ready(&cut_off, false).await;
    recovered(&format!("{fault}: the node is not ready"), cut);
    other.publish("chat_42", json!({"n": 2})).await;
    // Whoever wants to connect to this node is sent away, and its open connections stay.
    let mut refused = Client::open(cut_off.addr(), "/ws/chat/43/", &[]).await;
    assert_eq!(refused.closed().await, Some(1013));

    let healed = Instant::now();
    network.drop_silently(None);
    wait_until_ready(&cut_off, true).await;
    recovered(&format!("{fault}: the node is ready again"), healed);
    other.publish("chat_42", json!({"n": 3})).await;
    for n in 1..4 {
        assert_eq!(client.next_json().await["n"], n, "each once and in order");
    }
    assert!(cut_off.events("redis_lost") > 0, "it is logged");
}

#[tokio::test]
async fn redis_hears_the_node_and_is_not_heard() {
    loses_nothing(Direction::FromServer, "what Redis sends is dropped").await;
}

#[tokio::test]
async fn the_node_hears_redis_and_is_not_heard() {
    loses_nothing(Direction::ToServer, "what the node sends to Redis is dropped").await;
}
