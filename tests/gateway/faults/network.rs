//! A network that passes what goes one way and drops what goes the other, without closing anything.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::rig::{Client, Direction, Gateway, Redis, Settings, TcpProxy, http, recovered, until};

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

#[tokio::test]
async fn a_slow_redis_delays_and_loses_nothing() {
    let redis = Redis::start().await;
    let network = TcpProxy::start(&redis).await;
    let upstream = crate::rig::Upstream::accepting().await;
    let settings = Settings::chat(&upstream.url("/"));
    let slow = Gateway::start(settings.clone().redis(&network.url())).await;
    let other = Gateway::start(settings.redis(&redis.url())).await;
    wait_until_ready(&slow, true).await;
    wait_until_ready(&other, true).await;
    let (mut client, _) = Client::connected(&slow, "/ws/chat/42/").await;
    network.delay(Duration::from_millis(100));
    for n in 0..5 {
        other.publish("chat_42", json!({"n": n})).await;
    }
    for n in 0..5 {
        assert_eq!(client.next_json().await["n"], n);
    }
    // Tokens, limits, relays and the server API work, later.
    let token = slow.token(json!({"user_id": 7})).await;
    let path = format!("/ws/chat/42/?connection_token={token}");
    let (mut by_token, _) = Client::connected(&slow, &path).await;
    by_token.send_json(&json!({"message": "hello", "id": "m-1"})).await;
    while by_token.next_json().await["event"] != "task_queued" {}
    slow.publish("chat_42", json!({"n": 5})).await;
    for client in [&mut client, &mut by_token] {
        while client.next_json().await["n"] != 5 {}
    }
    assert_eq!(slow.events("connection_closed") + slow.events("subscription_lost"), 0);
}
