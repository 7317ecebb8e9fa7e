//! Clients that reconnect receive every publication once and in order, or are told explicitly that they have not.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::{Value, json};

use crate::engine::Engine;
use crate::rig::upstream::{Reply, Upstream};
use crate::rig::{Client, Event, Gateway, Redis, Settings, http, recovered, until};

pub const PATH: &str = "/ws/chat/42/";

on_both_engines! {
    missed_publications_arrive_once_and_in_order,
    a_reply_that_has_ended_can_be_resumed,
    what_cannot_be_recovered_is_reported,
    the_first_frame_resumes_as_well,
    a_long_history_is_sent_at_the_clients_pace,
    missed_chunks_may_come_as_one,
    a_channel_without_history_is_reported_as_such,
    a_call_is_published_once_under_its_key,
}

fn settings() -> Settings {
    Settings::chat("http://127.0.0.1:1/")
}

fn history(lines: &str) -> Settings {
    settings().each_route(|route| format!("{route}\n[route.history]\n{lines}\n"))
}

/// A client that knows the position to resume from.
pub struct Position {
    pub connected: Value,
    epoch: String,
    pub offset: u64,
}

impl Position {
    fn new(connected: Value) -> Self {
        let epoch = connected["epoch"].as_str().expect("an epoch").to_owned();
        let offset = connected["offset"].as_u64().expect("an offset");
        Self { connected, epoch, offset }
    }

    /// Updates the position from a frame, as a client library does.
    fn follow(&mut self, frame: &Value) {
        let Some(offset) = frame["offset"].as_u64() else { return };
        if offset == 1 {
            self.epoch = frame["epoch"].as_str().expect("an epoch starts").to_owned();
        }
        self.offset = offset;
    }

    fn path(&self) -> String {
        format!("{PATH}?since={}&epoch={}", self.offset, self.epoch)
    }

    pub fn outcome(&self) -> (&Value, &Value) {
        (&self.connected["recovered"], &self.connected["missed"])
    }
}

pub async fn connect(gateway: &Gateway, path: &str) -> (Client, Position) {
    let (client, connected) = Client::connected(gateway, path).await;
    (client, Position::new(connected))
}

/// Answers the first request with `reply`.
pub async fn upstream(reply: Reply) -> Upstream {
    let reply = Arc::new(Mutex::new(Some(reply)));
    Upstream::start(move |_| reply.lock().unwrap().take().unwrap_or(Reply::status(202))).await
}

pub async fn publish(gateway: &Gateway, numbers: std::ops::Range<u64>) {
    for n in numbers {
        gateway.publish("chat_42", json!({"event": "chunk", "chunk": format!("{n} ")})).await;
    }
}

/// Expects chunks with these numbers.
pub async fn expect(client: &mut Client, position: &mut Position, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let frame = client.next_event("chunk").await;
        assert_eq!(frame["chunk"], format!("{n} "));
        assert_eq!(frame["offset"], position.offset + 1);
        position.follow(&frame);
    }
}

async fn missed_publications_arrive_once_and_in_order(engine: Engine) {
    let gateway = engine.start(settings()).await;
    let (mut client, mut position) = connect(&gateway, PATH).await;
    assert_eq!(position.outcome(), (&Value::Null, &Value::Null), "no resume was requested");
    publish(&gateway, 0..3).await;
    expect(&mut client, &mut position, 0..3).await;
    drop(client);
    publish(&gateway, 3..6).await;
    let (mut client, mut again) = connect(&gateway, &position.path()).await;
    assert_eq!(again.outcome(), (&json!(true), &json!(3)));
    assert_eq!((&again.epoch, again.offset), (&position.epoch, 3));
    publish(&gateway, 6..9).await;
    expect(&mut client, &mut again, 3..9).await;
    let (_client, same) = connect(&gateway, &again.path()).await;
    assert_eq!(same.outcome(), (&json!(true), &json!(0)));
}

async fn a_reply_that_has_ended_can_be_resumed(engine: Engine) {
    let (stream, reply) = Reply::stream("text/event-stream");
    let upstream = upstream(reply).await;
    let gateway = engine.start(Settings::chat(&upstream.url("/"))).await;
    let (mut client, mut position) = connect(&gateway, PATH).await;
    client.send_json(&json!({"message": "hi"})).await;
    client.next_event("task_queued").await;
    position.follow(&client.next_event("processing_started").await);
    stream.write("data: one\n\n");
    position.follow(&client.next_event("chunk").await);
    drop(client);
    stream.write("data: two\n\n");
    drop(stream);
    gateway.wait_for_metric("tidegate_generations_total", &[], 1.0).await;
    let (mut client, again) = connect(&gateway, &position.path()).await;
    assert_eq!(again.outcome(), (&json!(true), &json!(2)));
    assert_eq!(client.next_event("chunk").await["chunk"], "two");
    client.next_event("complete").await;
}

async fn what_cannot_be_recovered_is_reported(engine: Engine) {
    let gateway = engine.start(history("size = 5")).await;
    let (client, position) = connect(&gateway, PATH).await;
    drop(client);
    publish(&gateway, 0..10).await;
    let epoch = &position.epoch;
    for (query, missed) in [
        (format!("since=4&epoch={epoch}"), json!(6)),
        (format!("since=11&epoch={epoch}"), Value::Null),
        ("since=10&epoch=abc".to_owned(), Value::Null),
        ("since=10".to_owned(), Value::Null),
        (format!("since=x&epoch={epoch}"), Value::Null),
        (format!("since=-1&epoch={epoch}"), Value::Null),
        (format!("since=10&since=9&epoch={epoch}"), Value::Null),
        (format!("since=99999999999999999999&epoch={epoch}"), Value::Null),
        ("epoch=%00&since=%ff".to_owned(), Value::Null),
    ] {
        let (mut client, position) = connect(&gateway, &format!("{PATH}?{query}")).await;
        assert_eq!(position.outcome(), (&json!(false), &missed), "{query}");
        assert_eq!((&position.epoch, position.offset), (epoch, 10), "{query}");
        client.send_json(&json!({"type": "ping"})).await;
        client.next_event("pong").await;
    }
    let (mut client, position) = connect(&gateway, &format!("{PATH}?since=5&epoch={epoch}")).await;
    assert_eq!(position.outcome(), (&json!(true), &json!(5)));
    assert_eq!(client.next_event("chunk").await["offset"], 6);
}

async fn the_first_frame_resumes_as_well(engine: Engine) {
    let gateway = engine.start(settings()).await;
    let (client, position) = connect(&gateway, PATH).await;
    drop(client);
    publish(&gateway, 0..4).await;
    for since in [json!(position.offset + 1), json!((position.offset + 1).to_string())] {
        let (mut client, _) = connect(&gateway, PATH).await;
        client.send_json(&json!({"type": "resume", "since": since, "epoch": position.epoch})).await;
        let mut position = Position::new(client.next_event("resumed").await);
        assert_eq!(position.outcome(), (&json!(true), &json!(3)));
        expect(&mut client, &mut position, 1..4).await;
    }
    let (mut client, _) = connect(&gateway, PATH).await;
    client.send_json(&json!({"type": "resume", "since": [], "epoch": 1})).await;
    let mut position = Position::new(client.next_event("resumed").await);
    assert_eq!(position.outcome(), (&json!(false), &Value::Null));
    publish(&gateway, 4..5).await;
    expect(&mut client, &mut position, 4..5).await;
}

async fn a_long_history_is_sent_at_the_clients_pace(engine: Engine) {
    // This is many times the send queue, in messages and in bytes.
    let settings = history("size = 5000")
        .each_route(|route| format!("send_queue = {{ messages = 8, bytes = \"16KiB\" }}\n{route}"));
    let gateway = engine.start(settings).await;
    let (client, position) = connect(&gateway, PATH).await;
    drop(client);
    let filler = "x".repeat(500);
    for part in 0..3 {
        let many: Vec<Value> = (part * 1000..(part + 1) * 1000)
            .map(|n| json!({"channel": "chat_42", "data": {"n": n, "filler": filler}}))
            .collect();
        let answer = gateway.api("/v1/publish", json!({"publications": many})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["channels"][0]["offset"], (part + 1) * 1000);
    }
    let (mut client, again) = connect(&gateway, &position.path()).await;
    assert_eq!(again.outcome(), (&json!(true), &json!(3000)));
    for n in 0..3000 {
        if n == 10 {
            // These are published while the history is still being sent.
            publish(&gateway, 0..5).await;
        }
        assert_eq!(client.next_json().await["n"], n);
    }
    let mut position = Position { offset: 3000, ..again };
    expect(&mut client, &mut position, 0..5).await;
}

async fn missed_chunks_may_come_as_one(engine: Engine) {
    let gateway = engine.start(history("compact = \"chunks\"")).await;
    let (mut live, position) = connect(&gateway, PATH).await;
    gateway.publish("chat_42", json!({"event": "processing_started"})).await;
    publish(&gateway, 0..50).await;
    gateway.publish("chat_42", json!({"event": "complete"})).await;
    live.next_event("processing_started").await;
    let mut expected = String::new();
    for n in 0..50 {
        let chunk = live.next_event("chunk").await;
        assert_eq!(chunk["offset"], n + 2, "live, each is its own");
        write!(expected, "{n} ").unwrap();
    }
    let (mut late, again) = connect(&gateway, &position.path()).await;
    assert_eq!(again.outcome(), (&json!(true), &json!(52)));
    late.next_event("processing_started").await;
    let merged = late.next_event("chunk").await;
    assert_eq!((&merged["chunk"], &merged["offset"]), (&json!(expected), &json!(51)));
    assert_eq!(late.next_event("complete").await["offset"], 52);
}

async fn a_channel_without_history_is_reported_as_such(engine: Engine) {
    let gateway = engine.start(settings().without_history()).await;
    let (_, connected) = Client::connected(&gateway, PATH).await;
    for name in ["epoch", "offset", "recovered", "missed"] {
        assert_eq!(connected[name], Value::Null, "{connected}");
    }
    let (mut client, connected) =
        Client::connected(&gateway, &format!("{PATH}?since=1&epoch=a")).await;
    assert_eq!(connected["recovered"], false);
    client.send_json(&json!({"type": "resume", "since": 1, "epoch": "a"})).await;
    assert_eq!(client.next_json().await, json!({"event": "resumed", "recovered": false}));
    gateway.publish("chat_42", json!({"n": 1})).await;
    assert_eq!(client.next_json().await, json!({"n": 1}));
}

async fn a_call_is_published_once_under_its_key(engine: Engine) {
    let gateway = engine.start(settings()).await;
    let (mut client, _) = connect(&gateway, PATH).await;
    let call = json!({"channel": "chat_42", "data": {"event": "x"}, "idempotency_key": "k-1"});
    let first = gateway.api("/v1/publish", call.clone()).await.json();
    let mut repeat = gateway.api("/v1/publish", call).await.json();
    assert_eq!(repeat["duplicate"].take(), true);
    repeat.as_object_mut().unwrap().remove("duplicate");
    assert_eq!(repeat, first);
    let many = json!([
        {"channel": "chat_42", "data": {"event": "y"}},
        {"channel": "chat_43", "data": {"event": "z"}},
        {"channel": "chat_42", "data": {"event": "y"}},
    ]);
    let call = json!({"publications": many, "idempotency_key": "k-2"});
    for duplicate in [Value::Null, json!(true)] {
        let answer = gateway.api("/v1/publish", call.clone()).await.json();
        assert_eq!(answer["published"], 3);
        let positions: Vec<_> = answer["channels"].as_array().unwrap().iter().collect();
        assert_eq!(
            (&positions[0]["channel"], &positions[0]["offset"]),
            (&json!("chat_42"), &json!(3))
        );
        assert_eq!(
            (&positions[1]["channel"], &positions[1]["offset"]),
            (&json!("chat_43"), &json!(1))
        );
        assert_eq!(positions[0]["duplicate"], duplicate);
    }
    for (event, offset) in [("x", 1), ("y", 2), ("y", 3)] {
        assert_eq!(client.next_event(event).await["offset"], offset);
    }
    gateway.publish("chat_42", json!({"event": "end"})).await;
    client.next_event("end").await;
    let empty = json!({"channel": "chat_42", "data": 1, "idempotency_key": ""});
    assert_eq!(gateway.api("/v1/publish", empty).await.status, 400);
}

/// Publishes as a worker does, with the script in the documentation.
async fn worker_publishes(redis: &Redis, json: &Value) {
    let script = redis::Script::new(include_str!("../../clients/redis/publish.lua"));
    let mut call = script.key("tg:{chat_42}:stream");
    call.key("tg:{chat_42}:meta").arg("chat_42").arg(1000).arg(300_000).arg(json.to_string());
    let _: redis::Value = call.invoke_async(&mut redis.connection().await).await.unwrap();
}

#[tokio::test]
async fn what_a_node_missed_is_read_from_the_history() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(settings().redis(&redis.url())).await;
    until("ready gateway", async || {
        (http::get(gateway.admin(), "/readyz").await.status == 200).then_some(())
    })
    .await;
    // One client has received nothing yet, the other has.
    let (mut idle, _) = Client::connected(&gateway, "/ws/chat/1/").await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    worker_publishes(&redis, &json!({"event": "first"})).await;
    client.next_event("first").await;
    for round in 0..5 {
        // One transaction, so that the node cannot reconnect before the publication.
        let mut connection = redis.connection().await;
        let mut cut = redis::pipe();
        cut.atomic().cmd("CLIENT").arg("KILL").arg("TYPE").arg("PUBSUB").ignore();
        for channel in ["chat_42", "chat_1"] {
            cut.cmd("EVAL").arg(include_str!("../../clients/redis/publish.lua")).arg(2);
            cut.arg(format!("tg:{{{channel}}}:stream")).arg(format!("tg:{{{channel}}}:meta"));
            cut.arg(channel).arg(1000).arg(300_000);
            cut.arg(json!({"event": "missed", "round": round}).to_string()).ignore();
        }
        let () = cut.query_async(&mut connection).await.unwrap();
        for client in [&mut client, &mut idle] {
            assert_eq!(client.next_event("missed").await["round"], round);
        }
        worker_publishes(&redis, &json!({"event": "live", "round": round})).await;
        assert_eq!(client.next_event("live").await["round"], round);
    }
    let complete = [("outcome", "complete")];
    assert!(gateway.metric("tidegate_catch_ups_total", &complete).await >= 10.0);
}

#[tokio::test]
async fn clients_do_not_notice_a_redis_that_restarts_with_its_data() {
    let mut redis = Redis::start_durable().await;
    let gateway = Gateway::start(settings().redis(&redis.url())).await;
    until("ready gateway", async || {
        (http::get(gateway.admin(), "/readyz").await.status == 200).then_some(())
    })
    .await;
    let (mut client, mut position) = connect(&gateway, PATH).await;
    publish(&gateway, 0..3).await;
    expect(&mut client, &mut position, 0..3).await;
    redis.stop();
    gateway.wait_for_event("subscription_lost").await;
    redis.restart().await;
    let since = Instant::now();
    worker_publishes(&redis, &json!({"event": "chunk", "chunk": "3 "})).await;
    expect(&mut client, &mut position, 3..4).await;
    recovered("Redis has restarted with its data", since);
    // After the loss of its data the client is disconnected, and then told what cannot be recovered.
    redis.stop();
    redis.lose_data();
    redis.restart().await;
    let since = Instant::now();
    assert_eq!(client.closed().await, Some(1012));
    until("ready gateway", async || {
        (http::get(gateway.admin(), "/readyz").await.status == 200).then_some(())
    })
    .await;
    recovered("Redis has restarted without its data", since);
    let (mut client, mut again) = connect(&gateway, &position.path()).await;
    assert_eq!(again.outcome(), (&json!(false), &Value::Null));
    assert_ne!(again.epoch, position.epoch);
    publish(&gateway, 4..6).await;
    expect(&mut client, &mut again, 4..6).await;
}

#[tokio::test]
async fn plain_publications_have_no_offset_and_do_not_disturb() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(settings().redis(&redis.url())).await;
    until("ready gateway", async || {
        (http::get(gateway.admin(), "/readyz").await.status == 200).then_some(())
    })
    .await;
    let (mut client, position) = connect(&gateway, PATH).await;
    worker_publishes(&redis, &json!({"event": "a"})).await;
    let _: u64 = redis.run(&["PUBLISH", "chat_42", r#"{"event":"plain"}"#]).await;
    worker_publishes(&redis, &json!({"event": "b"})).await;
    client.next_event("a").await;
    assert_eq!(client.next().await, Event::Text(r#"{"event":"plain"}"#.to_owned()));
    client.next_event("b").await;
    drop(client);
    let (mut client, again) = connect(&gateway, &position.path()).await;
    assert_eq!(again.outcome(), (&json!(true), &json!(2)));
    client.next_event("a").await;
    client.next_event("b").await;
}
