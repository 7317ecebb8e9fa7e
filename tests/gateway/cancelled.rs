//! After `cancelled` no client sees another event of that task, whichever way and on whichever node it is published.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::engine::Engine;
use crate::rig::{Backend, Client, Gateway, Redis, Reply, Settings, Upstream, http, until, within};

const PATH: &str = "/ws/chat/42/";
const SCRIPT: &str = include_str!("../../clients/redis/publish.lua");

on_both_engines! {
    late_events_of_a_cancelled_task_reach_nobody,
    events_without_an_id_count_for_the_only_task,
    events_without_an_id_count_for_no_task_while_two_run,
    the_end_of_a_cancelled_task_lets_others_through,
    a_task_that_is_cancelled_twice_may_start_again,
}

/// An upstream whose workers publish the replies; the tasks are called 1, 2, ….
async fn upstream() -> Upstream {
    let count = AtomicUsize::new(1);
    let count = std::sync::Arc::new(count);
    Upstream::start(move |_| {
        let task = count.fetch_add(1, Ordering::SeqCst);
        Reply::json(202, &json!({"task_id": task.to_string()}))
    })
    .await
}

fn with_history(upstream: &Upstream) -> Settings {
    Settings::chat(&upstream.url("/"))
}

async fn queue(client: &mut Client) -> String {
    client.send_json(&json!({"message": "hi"})).await;
    wait_for(client, "task_queued").await["task_id"].as_str().unwrap().to_owned()
}

async fn cancel(client: &mut Client, task: &str) {
    client.send_json(&json!({"type": "cancel", "task_id": task})).await;
}

/// Cancels a task of another node, which tells the other nodes about it soon after `task_queued`.
async fn cancel_elsewhere(client: &mut Client, task: &str) {
    within("cancelled task", async {
        loop {
            cancel(client, task).await;
            let answer = loop {
                let json = client.next_json().await;
                if json["event"] == "cancelled" || json["code"] == "unknown_task" {
                    break json;
                }
            };
            if answer["event"] == "cancelled" {
                return;
            }
        }
    })
    .await;
}

/// Waits for the event and skips others.
async fn wait_for(client: &mut Client, event: &str) -> Value {
    loop {
        let json = client.next_json().await;
        if json["event"] == event {
            return json;
        }
    }
}

/// The names and tasks of the events up to the first called `last`.
async fn events(client: &mut Client, last: &str) -> Vec<(String, Option<String>)> {
    let mut events = Vec::new();
    loop {
        let json = client.next_json().await;
        let name = json["event"].as_str().unwrap().to_owned();
        if name == last {
            return events;
        }
        if name != "task_queued" {
            let task = json.get("task_id").map(|id| id.to_string().trim_matches('"').to_owned());
            events.push((name, task));
        }
    }
}

fn named(name: &str, task: Option<&str>) -> (String, Option<String>) {
    (name.to_owned(), task.map(str::to_owned))
}

/// A way to publish an event.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// `POST /v1/publish`.
    Api,
    /// publish.lua.
    Script,
    /// Plain `PUBLISH`.
    Plain,
    /// What a worker with an old copy of publish.lua does.
    OldScript,
}

impl Way {
    async fn publish(self, redis: Option<&Redis>, gateway: &Gateway, event: &Value) {
        let text = event.to_string();
        let (stream, meta) = ("tg:{chat_42}:stream", "tg:{chat_42}:meta");
        match self {
            Self::Api => gateway.publish("chat_42", event.clone()).await,
            Self::Script => {
                let script =
                    ["EVAL", SCRIPT, "2", stream, meta, "chat_42", "1000", "300000", &text];
                let _: redis::Value = redis.expect("Redis").run(&script).await;
            }
            Self::Plain => {
                let _: i64 = redis.expect("Redis").run(&["PUBLISH", "chat_42", &text]).await;
            }
            Self::OldScript => {
                let old = "local epoch = redis.call('HGET', KEYS[2], 'epoch')\n\
                    local offset = redis.call('HINCRBY', KEYS[2], 'offset', 1)\n\
                    redis.call('XADD', KEYS[1], offset .. '-0', 'data', ARGV[2])\n\
                    return redis.call('PUBLISH', ARGV[1], '@' .. epoch .. ':' .. offset .. ':' .. ARGV[2])";
                let script = ["EVAL", old, "2", stream, meta, "chat_42", &text];
                let _: i64 = redis.expect("Redis").run(&script).await;
            }
        }
    }
}

async fn late_events_of_a_cancelled_task_reach_nobody(engine: Engine) {
    let upstream = upstream().await;
    for settings in [with_history(&upstream), with_history(&upstream).without_history()] {
        let gateway = engine.start(settings).await;
        let (mut client, connected) = Client::connected(&gateway, PATH).await;
        let (mut tab, _) = Client::connected(&gateway, PATH).await;
        let task = queue(&mut client).await;
        gateway.publish("chat_42", json!({"event": "chunk", "task_id": task})).await;
        cancel(&mut tab, &task).await;
        wait_for(&mut client, "cancelled").await;
        for name in ["processing_started", "chunk", "usage", "complete", "cancelled", "error"] {
            gateway.publish("chat_42", json!({"event": name, "task_id": task})).await;
        }
        gateway.publish("chat_42", json!({"n": 1, "event": "chunk", "task_id": task})).await;
        gateway.publish("chat_42", json!({"event": "chunk", "task_id": "other"})).await;
        gateway.publish("chat_42", json!({"event": "last", "task_id": ""})).await;
        assert_eq!(events(&mut client, "last").await, [named("chunk", Some("other"))]);
        let seen = events(&mut tab, "last").await;
        let expected = [("chunk", &*task), ("cancelled", &task), ("chunk", "other")];
        assert_eq!(seen, expected.map(|(name, task)| named(name, Some(task))));
        if let Some(epoch) = connected["epoch"].as_str() {
            // Nor does one that comes back see them.
            let path = format!("{PATH}?since={}&epoch={epoch}", connected["offset"]);
            let (mut back, _) = Client::connected(&gateway, &path).await;
            assert_eq!(events(&mut back, "last").await, seen);
        }
    }
}

async fn events_without_an_id_count_for_the_only_task(engine: Engine) {
    let upstream = upstream().await;
    for settings in [with_history(&upstream), with_history(&upstream).without_history()] {
        let gateway = engine.start(settings).await;
        let (mut client, _) = Client::connected(&gateway, PATH).await;
        let task = queue(&mut client).await;
        for name in ["processing_started", "token"] {
            gateway.publish("chat_42", json!({ "event": name })).await;
            wait_for(&mut client, name).await;
        }
        cancel(&mut client, &task).await;
        wait_for(&mut client, "cancelled").await;
        for event in [
            json!({"event": "token", "token": "late"}),
            json!({"event": "chunk"}),
            json!({"event": "usage", "tokens": 3}),
            json!({"event": "token", "task_id": null}),
        ] {
            gateway.publish("chat_42", event).await;
        }
        // What belongs to no reply says so; what is not an event is not an event of a reply.
        gateway.publish("chat_42", json!({"event": "notice", "task_id": ""})).await;
        gateway.publish("chat_42", json!({"event": "last", "task_id": ""})).await;
        assert_eq!(events(&mut client, "last").await, [named("notice", Some(""))]);
        // A task that had begun does not begin again: something else has started another one.
        for name in ["processing_started", "token", "complete"] {
            gateway.publish("chat_42", json!({ "event": name })).await;
        }
        for name in ["processing_started", "token", "complete"] {
            wait_for(&mut client, name).await;
        }
        // A new message starts a task, to which they belong from then on.
        queue(&mut client).await;
        for name in ["processing_started", "token", "usage", "complete"] {
            gateway.publish("chat_42", json!({ "event": name })).await;
            wait_for(&mut client, name).await;
        }
        // Nothing runs when the next gateway uses the same channel.
        let completed = [("outcome", "completed")];
        gateway.wait_for_metric("tidegate_generations_total", &completed, 1.0).await;
    }
}

async fn events_without_an_id_count_for_no_task_while_two_run(engine: Engine) {
    let upstream = upstream().await;
    let gateway = engine.start(with_history(&upstream)).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    let (first, second) = (queue(&mut client).await, queue(&mut client).await);
    cancel(&mut client, &first).await;
    wait_for(&mut client, "cancelled").await;
    gateway.publish("chat_42", json!({"event": "chunk"})).await;
    wait_for(&mut client, "chunk").await;
    // The other is the only one now.
    cancel(&mut client, &second).await;
    wait_for(&mut client, "cancelled").await;
    gateway.publish("chat_42", json!({"event": "chunk"})).await;
    gateway.publish("chat_42", json!({"event": "last", "task_id": ""})).await;
    assert_eq!(events(&mut client, "last").await, []);
}

async fn the_end_of_a_cancelled_task_lets_others_through(engine: Engine) {
    let upstream = upstream().await;
    let gateway = engine.start(with_history(&upstream)).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    let task = queue(&mut client).await;
    cancel(&mut client, &task).await;
    wait_for(&mut client, "cancelled").await;
    for name in ["chunk", "complete", "notice", "last"] {
        gateway.publish("chat_42", json!({ "event": name })).await;
    }
    assert_eq!(events(&mut client, "last").await, [named("notice", None)]);
}

/// An upstream may name every task alike.
async fn a_task_that_is_cancelled_twice_may_start_again(engine: Engine) {
    let upstream = Upstream::start(|_| Reply::json(202, &json!({"task_id": 7}))).await;
    for settings in [with_history(&upstream), with_history(&upstream).without_history()] {
        let gateway = engine.start(settings).await;
        let (mut client, _) = Client::connected(&gateway, PATH).await;
        for round in 0..3 {
            assert_eq!(queue(&mut client).await, "7");
            let event = json!({"event": "chunk", "task_id": 7, "round": round});
            // The start is recorded in the engine while the message is relayed.
            within("chunk of the task that started again", async {
                loop {
                    gateway.publish("chat_42", event.clone()).await;
                    gateway.publish("chat_42", json!({"event": "mark", "task_id": ""})).await;
                    if !events(&mut client, "mark").await.is_empty() {
                        return;
                    }
                }
            })
            .await;
            cancel(&mut client, "7").await;
            wait_for(&mut client, "cancelled").await;
            gateway.publish("chat_42", event).await;
            gateway.publish("chat_42", json!({"event": "last", "task_id": ""})).await;
            assert_eq!(events(&mut client, "last").await, []);
        }
    }
}

#[tokio::test]
async fn no_way_of_publishing_gets_around_it_on_any_node() {
    let engine = Engine::redis().await;
    let upstream = upstream().await;
    let settings = with_history(&upstream);
    let nodes = [engine.start(settings.clone()).await, engine.start(settings).await];
    let redis = engine.server();
    let mut clients = Vec::new();
    for n in 0..6 {
        clients.push(Client::connected(&nodes[n % 2], PATH).await.0);
    }
    let (mut back, connected) = Client::connected(&nodes[0], PATH).await;
    for (round, way) in [Way::Api, Way::Script, Way::Plain, Way::OldScript, Way::Plain, Way::Script]
        .into_iter()
        .enumerate()
    {
        for has_id in [true, false] {
            let task = queue(&mut clients[round]).await;
            let event = |name: &str| match has_id {
                true => json!({"event": name, "task_id": task}),
                false => json!({ "event": name }),
            };
            let id = has_id.then_some(&*task);
            way.publish(redis, &nodes[0], &event("chunk")).await;
            wait_for(&mut clients[round], "chunk").await;
            cancel_elsewhere(&mut clients[(round + 1) % 6], &task).await;
            wait_for(&mut clients[round], "cancelled").await;
            for name in ["processing_started", "chunk", "usage", "complete"] {
                way.publish(redis, &nodes[1], &event(name)).await;
            }
            let last = json!({"event": "last", "task_id": ""});
            way.publish(redis, &nodes[0], &last).await;
            for (n, client) in clients.iter_mut().enumerate() {
                let seen = events(client, "last").await;
                let own = [named("chunk", id), named("cancelled", Some(&task))];
                // Two clients have waited for both already.
                let has_waited = n == round || n == (round + 1) % 6;
                let left = if has_waited { &own[2..] } else { &own[..] };
                assert_eq!(seen, left, "{way:?}, client {n}, id: {has_id}");
            }
            while events(&mut back, "last").await.is_empty() {}
        }
    }
    let path = format!("{PATH}?since={}&epoch={}", connected["offset"], connected["epoch"]);
    let (mut back, _) = Client::connected(&nodes[1], &path.replace('"', "")).await;
    nodes[0].publish("chat_42", json!({"event": "very last", "task_id": ""})).await;
    let seen = events(&mut back, "very last").await;
    let ghosts = ["processing_started", "usage", "complete"];
    assert!(seen.iter().all(|(name, _)| !ghosts.contains(&&**name)), "{seen:?}");
}

/// A node on which nobody was connected when the task was cancelled knows it as well.
#[tokio::test]
async fn a_client_that_reconnects_to_another_node_gets_nothing_of_it() {
    let engine = Engine::redis().await;
    let upstream = upstream().await;
    let settings = with_history(&upstream);
    let nodes = [engine.start(settings.clone()).await, engine.start(settings).await];
    let (mut client, _) = Client::connected(&nodes[0], PATH).await;
    let task = queue(&mut client).await;
    let chunk = json!({"event": "chunk", "task_id": task});
    Way::Plain.publish(engine.server(), &nodes[0], &chunk).await;
    wait_for(&mut client, "chunk").await;
    cancel(&mut client, &task).await;
    wait_for(&mut client, "cancelled").await;
    drop(client);
    let (mut client, connected) = Client::connected(&nodes[1], PATH).await;
    let path = format!("{PATH}?since={}&epoch={}", connected["offset"], connected["epoch"]);
    let (mut back, _) = Client::connected(&nodes[1], &path.replace('"', "")).await;
    for way in [Way::Plain, Way::OldScript, Way::Script, Way::Plain] {
        way.publish(engine.server(), &nodes[0], &chunk).await;
    }
    let last = json!({"event": "last", "task_id": ""});
    Way::Plain.publish(engine.server(), &nodes[0], &last).await;
    for client in [&mut client, &mut back] {
        assert_eq!(events(client, "last").await, []);
    }
}

/// The start of a task on one node is known on the others, also where workers publish plainly.
#[tokio::test]
async fn a_start_on_another_node_lets_events_through() {
    let engine = Engine::redis().await;
    let upstream = upstream().await;
    for settings in [with_history(&upstream), with_history(&upstream).without_history()] {
        let nodes = [engine.start(settings.clone()).await, engine.start(settings).await];
        let mut one = Client::connected(&nodes[0], PATH).await.0;
        let mut two = Client::connected(&nodes[1], PATH).await.0;
        let task = queue(&mut one).await;
        cancel_elsewhere(&mut two, &task).await;
        wait_for(&mut one, "cancelled").await;
        let publish =
            async |event: Value| Way::Plain.publish(engine.server(), &nodes[0], &event).await;
        publish(json!({"event": "chunk"})).await;
        publish(json!({"event": "last", "task_id": ""})).await;
        for client in [&mut one, &mut two] {
            assert_eq!(events(client, "last").await, []);
        }
        queue(&mut two).await;
        for n in 0..3 {
            publish(json!({"event": "chunk", "n": n})).await;
            for client in [&mut one, &mut two] {
                assert_eq!(wait_for(client, "chunk").await["n"], n);
            }
        }
        // While it runs, nobody's events without an id are dropped.
        publish(json!({"event": "complete"})).await;
        for client in [&mut one, &mut two] {
            wait_for(client, "complete").await;
        }
        let completed = [("outcome", "completed")];
        nodes[1].wait_for_metric("tidegate_generations_total", &completed, 1.0).await;
    }
}

/// Unmodified Celery workers send to the group, often without the id of their task.
async fn a_channel_layer_brings_nothing_of_a_cancelled_task(wire: &str) {
    let upstream = upstream().await;
    for settings in [with_history(&upstream), with_history(&upstream).without_history()] {
        let redis = &Redis::start().await;
        let settings =
            settings.redis(&redis.url()).also("engine.redis", &format!("wire = {wire:?}"));
        let has_history = !settings.to_string().contains("size = 0");
        let nodes = [start(&settings).await, start(&settings).await];
        let mut backend = Backend::new(redis).await;
        let mut send = async |event: Value| match wire {
            "channels-core" => assert_eq!(backend.send("chat_42", &event).await, 0),
            _ => drop(backend.publish("chat_42", &event).await),
        };
        let (mut one, connected) = Client::connected(&nodes[0], PATH).await;
        let (mut two, _) = Client::connected(&nodes[1], PATH).await;
        for has_id in [true, false] {
            let task = queue(&mut one).await;
            let event = |name: &str| match has_id {
                true => json!({"type": "chat.message", "event": name, "task_id": task}),
                false => json!({"type": "chat.message", "event": name}),
            };
            send(event("chunk")).await;
            wait_for(&mut one, "chunk").await;
            cancel(&mut one, &task).await;
            for client in [&mut one, &mut two] {
                wait_for(client, "cancelled").await;
            }
            for name in ["processing_started", "chunk", "usage"] {
                send(event(name)).await;
            }
            send(json!({"type": "chat.message", "event": "last", "task_id": ""})).await;
            for client in [&mut one, &mut two] {
                assert_eq!(events(client, "last").await, [], "{wire}, id: {has_id}");
            }
        }
        // Another task runs now, and these are its own.
        queue(&mut two).await;
        for client in [&mut one, &mut two] {
            send(json!({"type": "chat.message", "event": "chunk"})).await;
            wait_for(client, "chunk").await;
        }
        if has_history {
            let epoch = connected["epoch"].as_str().unwrap();
            let path = format!("{PATH}?since={}&epoch={epoch}", connected["offset"]);
            let (mut back, _) = Client::connected(&nodes[1], &path).await;
            nodes[1].publish("chat_42", json!({"event": "very last", "task_id": ""})).await;
            let seen = events(&mut back, "very last").await;
            let ghosts = ["processing_started", "usage"];
            assert!(seen.iter().all(|(name, _)| !ghosts.contains(&&**name)), "{seen:?}");
        }
    }
}

async fn start(settings: &Settings) -> Gateway {
    let gateway = Gateway::start(settings).await;
    until("ready gateway", async || {
        (http::get(gateway.admin(), "/readyz").await.status == 200).then_some(())
    })
    .await;
    gateway
}

#[tokio::test]
async fn the_core_layer_brings_nothing_of_a_cancelled_task() {
    a_channel_layer_brings_nothing_of_a_cancelled_task("channels-core").await;
}

#[tokio::test]
async fn the_pubsub_layer_brings_nothing_of_a_cancelled_task() {
    a_channel_layer_brings_nothing_of_a_cancelled_task("channels-pubsub").await;
}
