//! Gateways on a Redis that real sentinels watch over: a primary that dies or hangs in the middle of replies, and sentinels
//! that are down, or out of date.

use serde_json::json;

use crate::cluster::{ask, chunk, expect_chunks, expect_reply, streaming_upstream};
use crate::rig::{Client, Gateway, Redis, Sentinels, Settings, http, until};

const END: &str = "data: {\"event\":\"complete\"}\n\n";

/// The engine, limits, tokens and a queue, each by a URL of its own.
fn settings(url: &str, limits: &str, upstream: &str) -> Settings {
    let urls =
        format!("url = {url:?}\nlimits_url = \"{limits}?db=2\"\ntokens_url = \"{url}?db=1\"\n");
    let of_users =
        "[route.limits]\nconnects_per_user = \"1000/1m\"\nmessages_per_user = \"1000/1m\"\n";
    Settings::chat(upstream)
        .section("engine", "kind = \"redis\"")
        .section("engine.redis", &urls)
        .route(
            "path = \"/ws/jobs/{id}/\"\nchannel = \"jobs_{id}\"\nauth = [\"anonymous\"]\nupstream = \"jobs\"",
        )
        .upstream(
            "jobs",
            &format!("kind = \"redis-list\"\nkey = \"jobs\"\nredis_url = \"{url}?db=3\""),
        )
        .each_route(|route| format!("{route}\nidle_ping = \"5m\"\n{of_users}"))
}

async fn ready(gateway: &Gateway) {
    until("readiness", async || {
        (http::get(gateway.admin(), "/readyz").await.status == 200).then_some(())
    })
    .await;
}

async fn client(gateway: &Gateway, user: usize) -> Client {
    let token = gateway.token(json!({"user_id": user})).await;
    Client::connected(gateway, &format!("/ws/chat/1/?connection_token={token}")).await.0
}

/// The connections of gateways to `redis`; `None` if it cannot say.
async fn connections(redis: &Redis) -> Option<usize> {
    let normal: String = redis.try_run(&["CLIENT", "LIST", "TYPE", "normal"]).await?;
    let pubsub: String = redis.try_run(&["CLIENT", "LIST", "TYPE", "pubsub"]).await?;
    // Those of the sentinels have names.
    let is_gateway = |line: &&str| !line.contains("cmd=client") && line.contains(" name= ");
    Some(normal.lines().chain(pubsub.lines()).filter(is_gateway).count())
}

/// Fails over by `stop` in the middle of a reply, and goes on after `back`.
async fn a_reply_goes_on(stop: impl Fn(&mut Redis), back: impl AsyncFn(&mut Redis)) {
    let (mut engine, mut limits) = tokio::join!(Sentinels::start(), Sentinels::start());
    let (upstream, writers) = streaming_upstream().await;
    let settings = settings(&engine.url(), &limits.url(), &upstream.url("/"));
    let nodes = [Gateway::start(&settings).await, Gateway::start(&settings).await];
    for node in &nodes {
        ready(node).await;
    }
    let (mut here, mut there) = (client(&nodes[0], 7).await, client(&nodes[1], 8).await);
    let writer = ask(&mut here, &writers, 0).await;
    (0..5).for_each(|number| assert!(writer.write(chunk(number))));
    expect_chunks(&mut here, 0..5).await;
    expect_chunks(&mut there, 0..5).await;
    // What no replica got before the primary died is not kept by Redis.
    let replicas: i64 = engine.servers[0].run(&["WAIT", "2", "5000"]).await;
    assert_eq!(replicas, 2);
    stop(&mut engine.servers[0]);
    stop(&mut limits.servers[0]);
    (5..10).for_each(|number| assert!(writer.write(chunk(number))));
    let (new, _) = tokio::join!(engine.failed_over(0), limits.failed_over(0));
    // Until then clients would hear what the old primary says before it knows that it was replaced, and be told that it is
    // lost.
    for node in &nodes {
        until("subscription at the new primary", async || {
            (node.events("subscription_live") > 1).then_some(())
        })
        .await;
    }
    (10..15).for_each(|number| assert!(writer.write(chunk(number))));
    back(&mut engine.servers[0]).await;
    assert!(writer.write(END));
    drop(writer);
    writers.lock().unwrap().clear();
    expect_reply(&mut here, 5..15).await;
    expect_reply(&mut there, 5..15).await;
    // Each part has moved: readiness, tokens, limits, commands to all nodes, the queue.
    for node in &nodes {
        ready(node).await;
    }
    let mut next = client(&nodes[1], 9).await;
    let writer = ask(&mut next, &writers, 1).await;
    assert!(writer.write(END));
    drop(writer);
    let (mut queued, _) = Client::connected(&nodes[1], "/ws/jobs/1/").await;
    queued.send_json(&json!({"type": "message", "message": "?", "id": "m"})).await;
    queued.next_event("task_queued").await;
    until("both nodes", async || {
        let closed = nodes[0].api("/v1/disconnect", json!({"user_id": 9})).await.json();
        (closed["nodes"] == 2).then_some(())
    })
    .await;
    // The old primary is a replica that no gateway uses, if it is there.
    if engine.servers[0].is_running() {
        until("old primary that nobody uses", async || {
            // The sentinels close all connections to it when they make it a replica.
            let info: String = engine.servers[0].try_run(&["INFO", "replication"]).await?;
            let is_replica = info.contains("role:slave");
            (is_replica && connections(&engine.servers[0]).await? == 0).then_some(())
        })
        .await;
    }
    assert!(connections(&engine.servers[new]).await > Some(0));
    nodes[0].publish("chat_1", json!({"event": "note"})).await;
    // After the events of the second reply.
    for client in [&mut here, &mut there] {
        while client.next_json().await["event"] != "note" {}
    }
}

#[tokio::test]
async fn replies_go_on_when_a_primary_dies_and_sentinels_promote_a_replica() {
    a_reply_goes_on(Redis::stop, async |_| {}).await;
}

#[tokio::test]
async fn a_primary_that_hangs_is_not_used_when_it_wakes() {
    a_reply_goes_on(|redis| redis.pause(), async |redis| redis.resume()).await;
}

#[tokio::test]
async fn a_sentinel_that_is_out_of_date_is_not_believed() {
    let mut all = Sentinels::start().await;
    let gateway = Gateway::start(settings(&all.url(), &all.url(), "http://127.0.0.1:1/")).await;
    ready(&gateway).await;
    let mut client = client(&gateway, 7).await;
    // The first sentinel is not there when the others fail over.
    all.sentinels[0].stop();
    all.servers[0].stop();
    until("failover", async || {
        let named = all.sentinels[1].named().await?;
        (named != all.servers[0].address()).then_some(())
    })
    .await;
    ready(&gateway).await;
    let named = all.sentinels[1].named().await.expect("the new primary");
    let new = all.servers.iter().position(|server| server.address() == named).expect("a server");
    // It comes back alone, and the old primary is one again, by itself.
    all.sentinels[1].stop();
    all.sentinels[2].stop();
    all.servers[0].restart().await;
    let old = all.servers[0].address();
    all.sentinels[0].restart_anew(&old).await;
    assert_eq!(all.sentinels[0].named().await, Some(old));
    for kind in ["normal", "pubsub"] {
        let _: i64 = all.servers[new].run(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]).await;
    }
    until("connections that are opened again", async || {
        (gateway.events("redis_lost") > 0 && connections(&all.servers[new]).await > Some(0))
            .then_some(())
    })
    .await;
    ready(&gateway).await;
    assert_eq!(connections(&all.servers[0]).await, Some(0));
    gateway.publish("chat_1", json!({"event": "note"})).await;
    client.next_event("note").await;
}

#[tokio::test]
async fn sentinels_may_be_down_at_the_start_and_later() {
    let mut all = Sentinels::start().await;
    for sentinel in &mut all.sentinels {
        sentinel.stop();
    }
    let gateway = Gateway::start(settings(&all.url(), &all.url(), "http://127.0.0.1:1/")).await;
    until("readiness that names a sentinel", async || {
        let answer = http::get(gateway.admin(), "/readyz").await;
        let redis = answer.json()["checks"]["redis"].as_str()?.to_owned();
        (answer.status == 503 && redis.contains("sentinel 127.0.0.1:")).then_some(())
    })
    .await;
    // One of them is enough.
    all.sentinels[1].restart().await;
    ready(&gateway).await;
    let mut client = client(&gateway, 7).await;
    all.sentinels[1].stop();
    let killed = all.servers[0].run::<i64>(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    assert!(killed > 0);
    gateway.wait_for_event("subscription_lost").await;
    ready(&gateway).await;
    gateway.publish("chat_1", json!({"event": "note"})).await;
    client.next_event("note").await;
}
