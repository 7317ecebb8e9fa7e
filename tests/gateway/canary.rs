//! The canary: each node publishes to a channel of its own. Whatever keeps a publication from returning through
//! Redis makes the node not ready, while the process stays alive.

use serde_json::{Value, json};

use super::rig::{Client, Gateway, Redis, Settings, TcpProxy, http, until};

fn settings(url: &str) -> Settings {
    Settings::chat("http://127.0.0.1:1/").redis(url)
}

/// The status of `/readyz`, and its check of the canary.
async fn readiness(gateway: &Gateway) -> (u16, Value) {
    let answer = http::get(gateway.admin(), "/readyz").await;
    (answer.status, answer.json()["checks"]["canary"].clone())
}

async fn wait_until_ready(gateway: &Gateway) {
    until("readiness", async || (readiness(gateway).await.0 == 200).then_some(())).await;
}

/// Waits until the canary makes the node not ready and nothing else is wrong, and returns its message.
async fn wait_until_not_back(gateway: &Gateway) -> String {
    until("a canary that is not back", async || {
        let answer = http::get(gateway.admin(), "/readyz").await;
        let checks = answer.json()["checks"].clone();
        // Probes of the connections to the same Redis may find the same.
        let is_about_publishing = |name: &str| name == "canary" || name.starts_with("redis");
        let others = checks
            .as_object()?
            .iter()
            .all(|(name, state)| is_about_publishing(name) || state == "ok");
        let canary = checks["canary"].as_str().filter(|state| *state != "ok")?.to_owned();
        (answer.status == 503 && others).then_some(canary)
    })
    .await
}

async fn assert_alive(gateway: &Gateway) {
    assert_eq!(http::get(gateway.admin(), "/livez").await.status, 200);
}

#[tokio::test]
async fn a_healthy_redis_brings_it_back_and_nobody_else_hears_it() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(settings(&redis.url())).await;
    wait_until_ready(&gateway).await;
    until("two canaries", async || {
        (gateway.metric("tidegate_canary_seconds_count", &[]).await >= 2.0).then_some(())
    })
    .await;
    assert_eq!(gateway.metric("tidegate_canary_failures_total", &[]).await, 0.0);
    assert_eq!(gateway.metric("tidegate_publications_total", &[]).await, 0.0);
    let channels: Vec<String> = redis.run(&["PUBSUB", "CHANNELS", "tg:control:*:canary"]).await;
    assert_eq!(channels.len(), 1, "{channels:?}");
    let body = json!({"channel": channels[0], "data": {}});
    assert_eq!(gateway.api("/v1/publish", body).await.status, 400);
}

#[tokio::test]
async fn a_redis_that_delays_publications_is_detected() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(settings(&redis.url())).await;
    wait_until_ready(&gateway).await;
    let (mut client, _) = Client::connected(&gateway, "/ws/chat/1/").await;
    // Redis still answers PING, SUBSCRIBE and reads, but not PUBLISH.
    let paused = std::time::Instant::now();
    let pause = std::time::Duration::from_secs(600);
    let () = redis.run(&["CLIENT", "PAUSE", &pause.as_millis().to_string(), "WRITE"]).await;
    let message = wait_until_not_back(&gateway).await;
    assert!(message.contains("does not take a publication"), "{message}");
    assert_alive(&gateway).await;
    assert!(gateway.metric("tidegate_canary_failures_total", &[]).await >= 1.0);
    assert!(paused.elapsed() < pause, "the pause was over");
    let () = redis.run(&["CLIENT", "UNPAUSE"]).await;
    wait_until_ready(&gateway).await;
    gateway.wait_for_event("canary_recovered").await;
    client.send_json(&json!({"type": "ping"})).await;
    client.next_event("pong").await;
}

#[tokio::test]
async fn a_redis_user_without_publish_is_detected() {
    let redis = Redis::start().await;
    let all = ["ACL", "SETUSER", "gateway", "reset", "on", ">hunter2", "~*", "&*", "+@all"];
    let () = redis.run(&all).await;
    let url = redis.url().replace("://", "://gateway:hunter2@");
    let gateway = Gateway::start(settings(&url)).await;
    wait_until_ready(&gateway).await;
    let () = redis.run(&["ACL", "SETUSER", "gateway", "-publish"]).await;
    let message = wait_until_not_back(&gateway).await;
    assert!(message.contains("refuses to publish"), "{message}");
    assert_alive(&gateway).await;
    let failed = gateway.wait_for_event("canary_failed").await.to_string();
    assert!(!failed.contains("hunter2"), "{failed}");
    let () = redis.run(&["ACL", "SETUSER", "gateway", "+publish"]).await;
    wait_until_ready(&gateway).await;
}

#[tokio::test]
async fn a_redis_user_without_the_channel_is_detected() {
    let redis = Redis::start().await;
    // The channels of clients and of commands are delivered, but not the longer name of the node's own channel.
    let replies = format!("&tg:control:{}", "?".repeat(16));
    let user = ["ACL", "SETUSER", "gateway", "reset", "on", ">p", "~*", "&chat_*", "&tg:control"];
    let () = redis.run(&[&user[..], &[&replies, "+@all"]].concat()).await;
    let url = redis.url().replace("://", "://gateway:p@");
    let gateway = Gateway::start(settings(&url)).await;
    let message = wait_until_not_back(&gateway).await;
    assert!(message.contains("refuses to subscribe"), "{message}");
    assert_alive(&gateway).await;
}

#[tokio::test]
async fn a_redis_that_hangs_is_detected_and_recovers() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(settings(&redis.url())).await;
    wait_until_ready(&gateway).await;
    redis.pause();
    until("not ready", async || (readiness(&gateway).await.0 == 503).then_some(())).await;
    assert_alive(&gateway).await;
    redis.resume();
    wait_until_ready(&gateway).await;
}

#[tokio::test]
async fn publications_to_another_server_are_detected() {
    // After a failover the name resolves to another server, but the subscribing connection stays where it was.
    let (one, other) = (Redis::start().await, Redis::start().await);
    let proxy = TcpProxy::start(&one).await;
    let gateway = Gateway::start(settings(&proxy.url())).await;
    wait_until_ready(&gateway).await;
    proxy.switch_to(&other);
    let () = one.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    let message = wait_until_not_back(&gateway).await;
    assert!(message.contains("did not come back"), "{message}");
    assert_alive(&gateway).await;
    // It does not stay like that: all connections to the address are opened again.
    wait_until_ready(&gateway).await;
    let channels: Vec<String> = other.run(&["PUBSUB", "CHANNELS", "tg:control:*:canary"]).await;
    assert_eq!(channels.len(), 1, "{channels:?}");
}

#[tokio::test]
async fn the_memory_engine_has_none() {
    let gateway = Gateway::start(
        Settings::chat("http://127.0.0.1:1/").section("engine", super::rig::gateway::MEMORY_ONLY),
    )
    .await;
    let (status, canary) = readiness(&gateway).await;
    assert_eq!((status, canary), (200, Value::Null));
}
