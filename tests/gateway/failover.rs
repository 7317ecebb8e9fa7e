//! A Redis that fails over behind one address: a real replica is promoted, the old primary becomes its replica and
//! keeps every open connection. No part of a gateway may stay with it, and no command to all nodes may claim more
//! than it reached.

use std::time::Instant;

use serde_json::{Value, json};

use crate::rig::{Client, Event, Gateway, Redis, Settings, TcpProxy, http, recovered, until};

/// A primary and its replica, behind an address that leads to the primary.
struct Pair {
    old: Redis,
    new: Redis,
    address: TcpProxy,
}

impl Pair {
    async fn start() -> Self {
        let old = Redis::start().await;
        let new = Redis::start_replica(&old).await;
        let address = TcpProxy::start(&old).await;
        Self { old, new, address }
    }

    /// Fails over. Nothing is disconnected.
    async fn fail_over(&self) {
        self.new.promote().await;
        self.address.switch_to(&self.new);
        self.old.follow(&self.new).await;
    }
}

/// Everything on one server: tokens and limits in databases of their own, and a queue.
fn settings(url: &str) -> Settings {
    let urls = [("url", 0), ("tokens_url", 1), ("limits_url", 2), ("pubsub_url", 0)];
    let urls = urls.map(|(key, db)| format!("{key} = \"{url}/{db}\"\n"));
    Settings::chat("http://127.0.0.1:1/")
        .section("engine", "kind = \"redis\"")
        .section("engine.redis", &urls.concat())
        .upstream(
            "worker",
            &format!("kind = \"redis-list\"\nkey = \"jobs\"\nredis_url = \"{url}/3\""),
        )
}

async fn wait_until_ready(gateway: &Gateway) {
    until("readiness", async || {
        (http::get(gateway.admin(), "/readyz").await.status == 200).then_some(())
    })
    .await;
}

async fn client(gateway: &Gateway, user: u32) -> Client {
    let token = gateway.token(json!({"user_id": user})).await;
    Client::connected(gateway, &format!("/ws/chat/42/?connection_token={token}")).await.0
}

async fn subscribers(redis: &Redis, channel: &str) -> u64 {
    let (_, count): (String, u64) = redis.run(&["PUBSUB", "NUMSUB", channel]).await;
    count
}

/// The connections of gateways to `redis`: everything but the test's own, the replication's and the proxy's checks.
async fn connections(redis: &Redis) -> Vec<String> {
    let list: String = redis.run(&["CLIENT", "LIST", "TYPE", "normal"]).await;
    let pubsub: String = redis.run(&["CLIENT", "LIST", "TYPE", "pubsub"]).await;
    let lines = list.lines().chain(pubsub.lines());
    lines.filter(|line| !line.contains("cmd=client")).map(str::to_owned).collect()
}

async fn moves_to_the_new_primary(url_user: &str, before: impl AsyncFn(&Redis)) {
    let pair = Pair::start().await;
    before(&pair.old).await;
    before(&pair.new).await;
    let url = pair.address.url().replace("://", &format!("://{url_user}"));
    let nodes = [Gateway::start(settings(&url)).await, Gateway::start(settings(&url)).await];
    for node in &nodes {
        wait_until_ready(node).await;
    }
    let (mut here, mut there) = (client(&nodes[0], 7).await, client(&nodes[1], 8).await);
    nodes[0].publish("chat_42", json!({"n": 1})).await;
    let offset = here.next_json().await["offset"].clone();
    assert_eq!(there.next_json().await["offset"], offset);

    // What follows is about connections, not about lost data: the new primary has everything.
    let mut connection = pair.old.connection().await;
    redis::cmd("SET").arg("last").arg(1).exec_async(&mut connection).await.unwrap();
    let mut wait = redis::cmd("WAIT");
    let replicas: u64 = wait.arg(1).arg(10_000).query_async(&mut connection).await.unwrap();
    assert_eq!(replicas, 1);
    drop(connection);
    pair.fail_over().await;
    let since = Instant::now();
    // A command is executed everywhere, or its sender is told. User 8 is on the other node.
    until("user 8 disconnected", async || {
        let answer = nodes[0].api("/v1/disconnect", json!({"user_id": 8})).await;
        // One that is reported as incomplete may have closed it.
        (answer.status == 200).then(|| assert_eq!(answer.json()["nodes"], 2))
    })
    .await;
    loop {
        match there.next().await {
            Event::Text(_) => {}
            ended => {
                break assert_eq!(
                    ended,
                    Event::Closed(Some(4001), "disconnected by the server".into())
                );
            }
        }
    }
    // Nothing stays with the old primary.
    until("no connection to the replica", async || {
        connections(&pair.old).await.is_empty().then_some(())
    })
    .await;
    for node in &nodes {
        wait_until_ready(node).await;
        assert!(node.events("subscription_lost") >= 1);
    }
    recovered("Redis has failed over behind one address", since);
    assert_eq!(subscribers(&pair.new, "tg:control").await, 2);
    // The client that stayed goes on without a gap, and new ones are admitted with tokens of the new primary.
    nodes[1].publish("chat_42", json!({"n": 2})).await;
    let next = here.next_json().await;
    assert_eq!((next["n"].clone(), next["offset"].clone()), (json!(2), json!(2)));
    let mut third = client(&nodes[1], 9).await;
    third.send_json(&json!({"message": "hello"})).await;
    third.next_event("task_queued").await;
    let mut connection = pair.new.connection().await;
    redis::cmd("SELECT").arg(3).exec_async(&mut connection).await.unwrap();
    let queued: u64 = redis::cmd("LLEN").arg("jobs").query_async(&mut connection).await.unwrap();
    assert_eq!(queued, 1);
    let lost = nodes[0].log_events("redis_lost");
    let said = |line: &&Value| line.to_string().contains("READONLY");
    assert!(lost.iter().any(|line| said(&line)), "{lost:?}");
}

#[tokio::test]
async fn every_connection_moves_to_the_new_primary() {
    moves_to_the_new_primary("", async |_| {}).await;
}

#[tokio::test]
async fn a_user_without_role_is_enough_for_that() {
    moves_to_the_new_primary("gateway:p@", async |redis: &Redis| {
        let user = ["ACL", "SETUSER", "gateway", "on", ">p", "~*", "&*", "+@all", "-role", "-info"];
        let () = redis.run(&user).await;
    })
    .await;
}

#[tokio::test]
async fn clients_are_told_where_the_new_primary_lacks_the_newest_publications() {
    let pair = Pair::start().await;
    let gateway = Gateway::start(settings(&pair.address.url())).await;
    wait_until_ready(&gateway).await;
    let (mut client, connected) = Client::connected(&gateway, "/ws/chat/42/").await;
    gateway.publish("chat_42", json!({"n": 1})).await;
    client.next_json().await;
    until("the replica has it", async || {
        let keys: Vec<String> = pair.new.run(&["KEYS", "tg:{chat_42}:stream"]).await;
        (!keys.is_empty()).then_some(())
    })
    .await;
    // From here on, the replica gets nothing.
    pair.new.promote().await;
    for n in 2..5 {
        gateway.publish("chat_42", json!({"n": n})).await;
        assert_eq!(client.next_json().await["offset"], n);
    }
    pair.address.switch_to(&pair.new);
    pair.old.follow(&pair.new).await;
    assert_eq!(client.closed().await, Some(1012));
    wait_until_ready(&gateway).await;
    let epoch = connected["epoch"].as_str().unwrap();
    let path = format!("/ws/chat/42/?since=4&epoch={epoch}");
    let (_, again) = until("a client that came back", async || {
        match Client::try_open(gateway.addr(), &path, &[]).await {
            Ok(mut client) => {
                let first = client.next_json().await;
                (first["event"] == "connected").then_some((client, first))
            }
            Err(_) => None,
        }
    })
    .await;
    assert_eq!(again["recovered"], false, "{again}");
}

#[tokio::test]
async fn the_connections_to_a_channel_layer_move_as_well() {
    for wire in ["channels-core", "channels-pubsub"] {
        let pair = Pair::start().await;
        let settings =
            settings(&pair.address.url()).also("engine.redis", &format!("wire = {wire:?}"));
        let gateway = Gateway::start(settings).await;
        wait_until_ready(&gateway).await;
        let (_client, _) = Client::connected(&gateway, "/ws/chat/42/").await;
        pair.fail_over().await;
        until(&format!("no connection of {wire} to the replica"), async || {
            connections(&pair.old).await.is_empty().then_some(())
        })
        .await;
        wait_until_ready(&gateway).await;
    }
}

#[tokio::test]
async fn a_replica_is_not_used() {
    let primary = Redis::start().await;
    let replica = Redis::start_replica(&primary).await;
    let gateway = Gateway::start(settings(&replica.url())).await;
    let failed = gateway.wait_for_event("redis_connect_failed").await.to_string();
    assert!(failed.contains("READONLY the server is a replica"), "{failed}");
    let page = http::get(gateway.admin(), "/readyz").await;
    let checks = page.json()["checks"].clone();
    for check in ["redis", "redis_tokens", "redis_limits", "upstream.worker"] {
        let text = checks[check].as_str().unwrap().to_owned();
        assert!(text.contains("READONLY the server is a replica"), "{check}: {text}");
    }
    let up = gateway.metric("tidegate_redis_up", &[]).await;
    assert_eq!((page.status, up), (503, 0.0));
    assert_eq!(subscribers(&replica, "tg:control").await, 0);
    replica.promote().await;
    wait_until_ready(&gateway).await;
    Client::connected(&gateway, "/ws/chat/42/").await;
}

#[tokio::test]
async fn a_node_that_is_cut_off_makes_commands_incomplete_until_it_is_back_or_stops() {
    let redis = Redis::start().await;
    let (one, two) = (TcpProxy::start(&redis).await, TcpProxy::start(&redis).await);
    let near = Gateway::start(settings(&one.url())).await;
    let mut far = Gateway::start(settings(&two.url())).await;
    wait_until_ready(&near).await;
    wait_until_ready(&far).await;
    let mut banned = client(&far, 8).await;
    two.cut();
    until("the cut", async || (subscribers(&redis, "tg:control").await == 1).then_some(())).await;
    let answer = near.api("/v1/disconnect", json!({"user_id": 8})).await;
    assert_eq!(answer.json()["error"]["code"], "incomplete", "{}", answer.text());
    let key = format!("Bearer {}", crate::rig::API_KEY);
    let headers = [("authorization", &*key)];
    for path in ["/v1/connections", "/v1/channels"] {
        let list = http::send(near.admin(), "GET", path, &headers, Default::default()).await;
        let list = list.json();
        assert_eq!(list["complete"], false, "{list}");
        assert_eq!(list["nodes"], json!({"answered": 1, "asked": 2}), "{list}");
    }
    let answer = near.api("/v1/debug", json!({"user_id": 8, "seconds": 1})).await;
    assert_ne!(answer.status, 200, "{}", answer.text());
    let answer = far.api("/v1/disconnect", json!({"user_id": 8})).await;
    assert_ne!(answer.status, 200, "{}", answer.text());
    two.switch_to(&redis);
    until("user 8 disconnected", async || {
        let answer = near.api("/v1/disconnect", json!({"user_id": 8})).await;
        (answer.status == 200).then(|| assert_eq!(answer.json(), json!({"closed": 1, "nodes": 2})))
    })
    .await;
    assert_eq!(banned.closed().await, Some(4001));
    assert_eq!(far.stop().await, Some(0));
    let answer = near.api("/v1/disconnect", json!({"user_id": 8})).await;
    assert_eq!(answer.json(), json!({"closed": 0, "nodes": 1}));
}
