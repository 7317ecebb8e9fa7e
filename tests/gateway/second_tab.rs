//! A client that connects while a reply is running, for example a second tab, sees all of it.

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::engine::Engine;
use crate::resume::{PATH, connect, expect, publish, upstream};
use crate::rig::upstream::{Reply, Upstream};
use crate::rig::{Gateway, Redis, Settings};

on_both_engines! {
    sees_the_reply_from_its_start,
    sees_a_workers_reply_from_its_start,
    sees_what_came_before_the_upstreams_answer,
    is_told_that_the_start_is_missing,
}

async fn sees_the_reply_from_its_start(engine: Engine) {
    let (stream, reply) = Reply::stream("text/event-stream");
    let upstream = upstream(reply).await;
    let gateway = engine.start(Settings::chat(&upstream.url("/"))).await;
    let (mut sender, _) = connect(&gateway, PATH).await;
    gateway.publish("chat_42", json!({"event": "before"})).await;
    sender.next_event("before").await;
    sender.send_json(&json!({"message": "hi"})).await;
    let task = sender.next_event("task_queued").await;
    sender.next_event("processing_started").await;
    stream.write("data: one\n\n");
    sender.next_event("chunk").await;
    drop(sender);
    let (mut tab, _) = connect(&gateway, PATH).await;
    assert_eq!(tab.next_event("processing_started").await["task_id"], task["task_id"]);
    assert_eq!(tab.next_event("chunk").await["chunk"], "one");
    stream.write("data: two\n\n");
    assert_eq!(tab.next_event("chunk").await["chunk"], "two");
    drop(stream);
    tab.next_event("complete").await;
    gateway.wait_for_metric("tidegate_generations_total", &[], 1.0).await;
    let (mut later, _) = connect(&gateway, PATH).await;
    gateway.publish("chat_42", json!({"event": "after"})).await;
    later.next_event("after").await;
}

async fn sees_a_workers_reply_from_its_start(engine: Engine) {
    let upstream = Upstream::accepting().await;
    let gateway = engine.start(Settings::chat(&upstream.url("/"))).await;
    let (mut sender, mut position) = connect(&gateway, PATH).await;
    publish(&gateway, 0..3).await;
    expect(&mut sender, &mut position, 0..3).await;
    sender.send_json(&json!({"message": "hi"})).await;
    let task = sender.next_event("task_queued").await["task_id"].clone();
    publish(&gateway, 3..5).await;
    expect(&mut sender, &mut position, 3..5).await;
    let (mut tab, mut joined) = connect(&gateway, PATH).await;
    assert_eq!(joined.offset, 3);
    assert_eq!(joined.outcome().0, &Value::Null);
    expect(&mut tab, &mut joined, 3..5).await;
    gateway.publish("chat_42", json!({"event": "complete", "task_id": task})).await;
    gateway.wait_for_metric("tidegate_generations_total", &[], 1.0).await;
    let (_, later) = connect(&gateway, PATH).await;
    assert_eq!(later.offset, 6);
}

/// Regression test: the reply counted from the upstream's answer on, since that gave it another id.
async fn sees_what_came_before_the_upstreams_answer(engine: Engine) {
    let (answer, may_answer) = watch::channel(false);
    let upstream = Upstream::start(move |_| {
        let accepted = Reply::json(202, &json!({"task_id": "t-1"}));
        Reply::Delayed(may_answer.clone(), Box::new(accepted))
    })
    .await;
    let gateway = engine.start(Settings::chat(&upstream.url("/"))).await;
    let (mut sender, _) = connect(&gateway, PATH).await;
    sender.send_json(&json!({"message": "hi"})).await;
    upstream.next_request().await;
    gateway.publish("chat_42", json!({"event": "chunk", "task_id": "t-1"})).await;
    answer.send(true).unwrap();
    sender.next_event("task_queued").await;
    sender.next_event("chunk").await;
    let (mut tab, _) = connect(&gateway, PATH).await;
    tab.next_event("chunk").await;
    gateway.publish("chat_42", json!({"event": "complete", "task_id": "t-1"})).await;
    gateway.wait_for_metric("tidegate_generations_total", &[], 1.0).await;
    let (_, later) = connect(&gateway, PATH).await;
    assert_eq!(later.offset, 2);
}

/// Regression test: the start was recorded while the upstream had the message already, so a worker that was faster than
/// the engine had published before it.
#[tokio::test]
async fn the_start_is_recorded_before_the_upstream_has_the_message() {
    let redis = Redis::start().await;
    let upstream = Upstream::accepting().await;
    let gateway = Settings::chat(&upstream.url("/")).redis(&redis.url());
    let gateway = Gateway::start(gateway).await;
    let (mut sender, _) = connect(&gateway, PATH).await;
    let () = redis.run(&["CLIENT", "PAUSE", "500", "WRITE"]).await;
    sender.send_json(&json!({"message": "hi"})).await;
    upstream.next_request().await;
    let running: Vec<String> = redis.run(&["KEYS", "*running*"]).await;
    assert_eq!(running.len(), 1, "{running:?}");
    sender.next_event("task_queued").await;
}

async fn is_told_that_the_start_is_missing(engine: Engine) {
    let upstream = Upstream::accepting().await;
    let settings = Settings::chat(&upstream.url("/"))
        .each_route(|route| format!("{route}\n[route.history]\nsize = 3\n"));
    let gateway = engine.start(settings).await;
    let (mut sender, mut position) = connect(&gateway, PATH).await;
    sender.send_json(&json!({"message": "hi"})).await;
    sender.next_event("task_queued").await;
    publish(&gateway, 0..5).await;
    expect(&mut sender, &mut position, 0..5).await;
    let (mut tab, mut joined) = connect(&gateway, PATH).await;
    assert_eq!((joined.offset, joined.outcome().0), (2, &Value::Bool(false)));
    expect(&mut tab, &mut joined, 2..5).await;
}
