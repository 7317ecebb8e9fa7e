//! Messages as entries of Redis streams and lists, as workers in any language read them.

use serde_json::{Value, json};

use super::rig::{Client, Gateway, Redis, Settings};

const PATH: &str = "/ws/chat/42/";

/// A config whose queue is in this Redis and whose engine is memory.
fn settings(kind: &str, redis: &Redis, more: &str) -> Settings {
    let url = redis.url();
    let lines =
        format!("kind = {kind:?}\nredis_url = {url:?}\nkey = \"jobs:{{conversation_id}}\"\n{more}");
    Settings::chat("http://127.0.0.1:1")
        .each_route(|route| format!("{route}[route.limits]\ngenerations_per_user = 0\n"))
        .upstream("worker", &lines)
}

/// The entry that a worker must find for a message of Ana's.
fn expected(text: &str, id: &str, connected: &Value, task: &Value) -> Value {
    json!({
        "message": text,
        "data": {"message": text, "id": id, "temperature": 0.5},
        "channel": "chat_42",
        "params": {"conversation_id": "42"},
        "user": {"id": 7, "name": "ana"},
        "connection_id": connected["connection_id"],
        "message_id": id,
        "task_id": task["task_id"],
    })
}

/// Removes the request id, which the gateway generated for the handshake.
fn without_request(mut message: Value) -> Value {
    let id = message.as_object_mut().and_then(|message| message.remove("request_id"));
    assert_eq!(id.as_ref().and_then(Value::as_str).map(str::len), Some(32), "{message}");
    message
}

/// A client of a gateway that is connected to its queue.
async fn ana(gateway: &Gateway) -> (Client, Value) {
    gateway.wait_for_event("redis_connected").await;
    let token = gateway.token(json!({"user_id": 7, "username": "ana"})).await;
    Client::connected(gateway, &format!("{PATH}?connection_token={token}")).await
}

async fn send(client: &mut Client, text: &str, id: &str) -> Value {
    client.send_json(&json!({"message": text, "id": id, "temperature": 0.5})).await;
    client.next_json().await
}

#[tokio::test]
async fn a_stream_has_one_entry_for_each_message_in_order() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(settings("redis-stream", &redis, "")).await;
    let (mut client, connected) = ana(&gateway).await;
    let mut expectations = Vec::new();
    for number in 0..3 {
        let (text, id) = (format!("text {number}"), format!("m{number}"));
        let task = send(&mut client, &text, &id).await;
        assert_eq!((&task["event"], &task["id"]), (&json!("task_queued"), &json!(id)));
        expectations.push(expected(&text, &id, &connected, &task));
    }
    type Entries = Vec<(String, Vec<(String, String)>)>;
    let entries: Entries = redis.run(&["XRANGE", "jobs:42", "-", "+"]).await;
    let found: Vec<Value> = entries
        .iter()
        .map(|(_, fields)| {
            let [(name, json)] = fields.as_slice() else { panic!("one field: {fields:?}") };
            assert_eq!(name, "message");
            without_request(serde_json::from_str(json).expect("JSON"))
        })
        .collect();
    assert_eq!(found, expectations);
}

#[tokio::test]
async fn a_stream_drops_its_oldest_entries() {
    let redis = Redis::start().await;
    // Redis trims whole nodes only, so that the bound is approximate; here the nodes are small.
    let _: String = redis.run(&["CONFIG", "SET", "stream-node-max-entries", "2"]).await;
    let gateway = Gateway::start(settings("redis-stream", &redis, "max_len = 4")).await;
    let (mut client, _) = ana(&gateway).await;
    for number in 0..12 {
        let answer = send(&mut client, "text", &format!("m{number}")).await;
        assert_eq!(answer["event"], "task_queued", "{answer}");
    }
    let length: u64 = redis.run(&["XLEN", "jobs:42"]).await;
    assert!((4..=6).contains(&length), "{length} entries are left");
}

#[tokio::test]
async fn a_list_gives_a_worker_the_oldest_message() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(settings("redis-list", &redis, "")).await;
    let (mut client, connected) = ana(&gateway).await;
    for number in 0..3 {
        let (text, id) = (format!("text {number}"), format!("m{number}"));
        let task = send(&mut client, &text, &id).await;
        assert_eq!(task["event"], "task_queued", "{task}");
        let queued = redis.run::<u64>(&["LLEN", "jobs:42"]).await;
        assert_eq!(queued, 1, "queued before it was confirmed");
        let (_, json): (String, String) = redis.run(&["BRPOP", "jobs:42", "5"]).await;
        let found = without_request(serde_json::from_str(&json).expect("JSON"));
        assert_eq!(found, expected(&text, &id, &connected, &task));
    }
}

#[tokio::test]
async fn a_list_that_is_full_is_busy() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(settings("redis-list", &redis, "max_len = 2")).await;
    let (mut client, _) = ana(&gateway).await;
    for id in ["a", "b"] {
        assert_eq!(send(&mut client, "text", id).await["event"], "task_queued");
    }
    let busy = send(&mut client, "text", "c").await;
    assert_eq!((&busy["code"], &busy["id"]), (&json!("busy"), &json!("c")));
    assert_eq!(redis.run::<u64>(&["LLEN", "jobs:42"]).await, 2);
    let _: String = redis.run(&["RPOP", "jobs:42"]).await;
    assert_eq!(send(&mut client, "text", "c").await["event"], "task_queued");
}

#[tokio::test]
async fn a_queue_is_unavailable_until_its_redis_restarts() {
    for kind in ["redis-stream", "redis-list"] {
        let mut redis = Redis::start().await;
        let gateway = Gateway::start(settings(kind, &redis, "timeout = \"1s\"")).await;
        let (mut client, _) = ana(&gateway).await;
        assert_eq!(send(&mut client, "text", "a").await["event"], "task_queued");
        redis.stop();
        let error = send(&mut client, "text", "b").await;
        assert_eq!((&error["event"], &error["id"]), (&json!("error"), &json!("b")));
        assert_eq!(error["code"], "upstream_unavailable", "{kind}: {error}");
        redis.restart().await;
        gateway.wait_for_event("redis_reconnected").await;
        assert_eq!(send(&mut client, "text", "c").await["event"], "task_queued");
    }
}

#[tokio::test]
async fn a_key_of_the_wrong_type_is_an_error_not_silence() {
    let redis = Redis::start().await;
    let _: String = redis.run(&["SET", "jobs:42", "something else"]).await;
    for kind in ["redis-stream", "redis-list"] {
        let gateway = Gateway::start(settings(kind, &redis, "")).await;
        let (mut client, _) = ana(&gateway).await;
        assert_eq!(send(&mut client, "text", "a").await["code"], "upstream_unavailable");
    }
}

#[tokio::test]
async fn a_reply_of_which_nothing_is_heard_is_reported_with_its_queue() {
    for (kind, consumers) in [("redis-stream", json!(1)), ("redis-list", Value::Null)] {
        let redis = Redis::start().await;
        let settings = settings(kind, &redis, "").each_route(|route| {
            format!("{route}[route.generations]\nfirst_event_warning = \"100ms\"\nmax_duration = \"1s\"\n")
        });
        if kind == "redis-stream" {
            let group = ["XGROUP", "CREATE", "jobs:42", "workers", "$", "MKSTREAM"];
            let _: String = redis.run(&group).await;
        }
        let gateway = Gateway::start(settings).await;
        let (mut client, _) = ana(&gateway).await;
        let queued = send(&mut client, "hi", "m").await;
        let route = ("route", "/ws/chat/{conversation_id}/");
        gateway
            .wait_for_metric(
                "tidegate_generations_unheard_total",
                &[route, ("when", "given_up")],
                1.0,
            )
            .await;
        let warnings = gateway.log_events("reply_unheard");
        let outcomes: Vec<_> = warnings.iter().map(|warning| &warning["outcome"]).collect();
        assert_eq!(outcomes, ["running", "given_up"], "{warnings:?}");
        for warning in &warnings {
            assert_eq!(warning["task_id"], queued["task_id"], "{warning}");
            assert_eq!((&warning["queue"], &warning["waiting"]), (&json!("jobs:42"), &json!(1)));
            assert_eq!(warning["consumers"], consumers, "{warning}");
        }
    }
}
