//! The rule of the documentation for the gateway's user in Redis, as it stands there: it is enough, and readiness
//! names each command that is missing.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::rig::{API_KEY, Client, Gateway, Redis, Settings, http, until};

/// The lines of the rule in docs/deployment.md by the comment above them.
fn rule() -> Vec<(String, Vec<String>)> {
    let page = include_str!("../../docs/deployment.md");
    let section = page.split("## The user in Redis").nth(1).expect("the section");
    let block = section.split("```text\n").nth(1).expect("its rule");
    let block = block.split("```").next().expect("the end of the rule");
    let mut parts: Vec<(String, Vec<String>)> = Vec::new();
    for line in block.lines() {
        match line.strip_prefix("# ") {
            Some(heading) => parts.push((heading.to_owned(), Vec::new())),
            None => {
                let words = line.split_whitespace().map(str::to_owned);
                parts.last_mut().expect("a heading first").1.extend(words);
            }
        }
    }
    parts
}

/// The words of the parts whose heading has one of `names`.
fn words(names: &[&str]) -> BTreeSet<String> {
    let parts = rule();
    for name in names {
        assert!(parts.iter().any(|(heading, _)| heading.contains(name)), "no part for {name}");
    }
    let named = |heading: &str| names.iter().any(|name| heading.contains(name));
    parts.into_iter().filter(|(heading, _)| named(heading)).flat_map(|(_, words)| words).collect()
}

/// Gives the user `gateway` exactly these rights.
async fn permit(redis: &Redis, words: &BTreeSet<String>) {
    let user = ["ACL", "SETUSER", "gateway", "reset", "on", ">p", "resetkeys", "resetchannels"];
    let words = words.iter().map(String::as_str);
    let () = redis.run(&user.into_iter().chain(words).collect::<Vec<_>>()).await;
}

async fn wait_until_ready(gateway: &Gateway) {
    until("readiness", async || {
        (http::get(gateway.admin(), "/readyz").await.status == 200).then_some(())
    })
    .await;
}

async fn get(gateway: &Gateway, path: &str) -> Value {
    let key = format!("Bearer {API_KEY}");
    let headers = [("authorization", &*key)];
    let answer = http::send(gateway.admin(), "GET", path, &headers, Default::default()).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

fn settings(url: &str) -> Settings {
    let route = "path = \"/ws/chat/{conversation_id}/\"\nchannel = \"chat_{conversation_id}\"\n\
                 upstream = \"worker\"\nauth = [\"connection_token\"]\npresence = \"on\"\n\
                 [route.limits]\nconnects_per_user = { limit = \"50/1m\", window = \"fixed\" }\n";
    Settings::new()
        .redis(url)
        .route(route)
        .upstream("worker", &format!("kind = \"redis-list\"\nkey = \"jobs\"\nredis_url = {url:?}"))
}

async fn denials(redis: &Redis) -> Vec<String> {
    let log: Vec<redis::Value> = redis.run(&["ACL", "LOG"]).await;
    log.iter().map(|entry| format!("{entry:?}")).collect()
}

const ENGINE: [&str; 5] =
    ["every connection", "pubsub_url", "limits_url", "tokens_url", "redis-list"];

#[tokio::test]
async fn the_documented_rule_is_enough() {
    let redis = Redis::start().await;
    permit(&redis, &words(&ENGINE)).await;
    let url = redis.url().replace("://", "://gateway:p@");
    let nodes = [Gateway::start(settings(&url)).await, Gateway::start(settings(&url)).await];
    for node in &nodes {
        wait_until_ready(node).await;
    }
    let join = async |node: &Gateway, user: u32, query: &str| {
        let token = node.token(json!({"user_id": user})).await;
        Client::connected(node, &format!("/ws/chat/42/?connection_token={token}{query}")).await
    };
    let (mut ana, connected) = join(&nodes[0], 7, "").await;
    let (mut bob, _) = join(&nodes[1], 8, "").await;
    ana.send_json(&json!({"message": "hello", "id": "m1"})).await;
    let queued = ana.next_event("task_queued").await;
    nodes[1].publish("chat_42", json!({"event": "chunk", "chunk": "a"})).await;
    let chunk = bob.next_event("chunk").await;
    ana.next_event("chunk").await;
    let body = json!({"channel": "chat_42", "data": {"event": "complete", "task_id": queued["task_id"]},
                      "idempotency_key": "once"});
    assert_eq!(nodes[0].api("/v1/publish", body).await.status, 200);
    bob.next_event("complete").await;
    ana.next_event("complete").await;
    // Resume on the other node.
    let (epoch, since) = (connected["epoch"].as_str().unwrap(), chunk["offset"].as_u64().unwrap());
    let (mut again, resumed) = join(&nodes[1], 7, &format!("&since={since}&epoch={epoch}")).await;
    assert_eq!(resumed["recovered"], true, "{resumed}");
    again.next_event("complete").await;
    // A cancelled task, presence, limits, lists, history.
    ana.send_json(&json!({"message": "more"})).await;
    let queued = ana.next_event("task_queued").await;
    ana.send_json(&json!({"type": "cancel", "task_id": queued["task_id"]})).await;
    ana.next_event("cancelled").await;
    let members = get(&nodes[0], "/v1/channels/chat_42/presence").await;
    assert!(members.to_string().contains('8'), "{members}");
    get(&nodes[0], "/v1/limits?user_id=7").await;
    let reset = nodes[0].api("/v1/limits/reset", json!({"user_id": 7})).await;
    assert_eq!(reset.status, 200, "{}", reset.text());
    get(&nodes[0], "/v1/channels/chat_42/history").await;
    assert_eq!(get(&nodes[0], "/v1/connections").await["complete"], true);
    let answer = nodes[0].api("/v1/disconnect", json!({"user_id": 8})).await;
    assert_eq!(answer.json(), json!({"closed": 1, "nodes": 2}));
    let [mut one, mut two] = nodes;
    assert_eq!((one.stop().await, two.stop().await), (Some(0), Some(0)));
    assert_eq!(denials(&redis).await, Vec::<String>::new());
    for node in [one, two] {
        assert_eq!(node.events("redis_refused") + node.events("redis_probe_limited"), 0);
    }
}

#[tokio::test]
async fn the_rule_is_enough_for_a_channel_layer() {
    for (wire, part) in [("channels-core", "channels-core"), ("channels-pubsub", "channels-pubsub")]
    {
        let redis = Redis::start().await;
        permit(&redis, &words(&[&ENGINE[..], &[part, "either layer"]].concat())).await;
        let url = redis.url().replace("://", "://gateway:p@");
        let mut gateway =
            Gateway::start(settings(&url).also("engine.redis", &format!("wire = {wire:?}"))).await;
        wait_until_ready(&gateway).await;
        let token = gateway.token(json!({"user_id": 7})).await;
        let path = format!("/ws/chat/42/?connection_token={token}");
        let (client, _) = Client::connected(&gateway, &path).await;
        drop(client);
        assert_eq!(gateway.stop().await, Some(0));
        assert_eq!(denials(&redis).await, Vec::<String>::new(), "{wire}");
    }
}

#[tokio::test]
async fn each_command_of_the_rule_is_needed_and_named() {
    let redis = Redis::start().await;
    let all = words(&ENGINE);
    permit(&redis, &all).await;
    let url = redis.url().replace("://", "://gateway:p@");
    let gateway = Gateway::start(settings(&url)).await;
    wait_until_ready(&gateway).await;
    // These are not probed. Without them there is no connection, or only a warning.
    let others = ["ping", "select", "multi", "discard"];
    let commands: Vec<&str> = all.iter().filter_map(|word| word.strip_prefix('+')).collect();
    let probed: Vec<&str> =
        commands.into_iter().filter(|command| !others.contains(command)).collect();
    assert!(probed.len() > 30, "{probed:?}");
    for group in probed.chunks(5) {
        let without = all.iter().filter(|word| !group.contains(&word.trim_start_matches('+')));
        permit(&redis, &without.cloned().collect()).await;
        until(&format!("/readyz that names {group:?}"), async || {
            let page = http::get(gateway.admin(), "/readyz").await;
            let text = page.json()["checks"].to_string();
            let named = |command: &&str| {
                let name = command.split('|').next().unwrap_or_default().to_uppercase();
                text.contains(&name)
            };
            (page.status == 503 && group.iter().all(named)).then_some(())
        })
        .await;
    }
    permit(&redis, &all).await;
    wait_until_ready(&gateway).await;
}
