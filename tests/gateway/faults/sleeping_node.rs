//! A node that stops for half a minute, as a paused container or a suspended virtual machine does, and wakes up.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::rig::{Client, Gateway, Reply, Settings, Upstream, http, in_turn, recovered, until};

/// Longer than any lease of a node.
const ASLEEP: Duration = Duration::from_secs(30);

async fn wait_until_ready(gateway: &Gateway) {
    until("readiness", async || {
        (http::get(gateway.admin(), "/readyz").await.status == 200).then_some(())
    })
    .await;
}

/// The chunks of a reply that a client got until its terminal event, and that event.
async fn until_end(client: &mut Client) -> (Vec<u64>, Value) {
    let mut chunks = Vec::new();
    loop {
        let frame = client.next_json().await;
        match frame["event"].as_str() {
            Some("chunk") => chunks.push(frame["n"].as_u64().expect("a number")),
            Some("error" | "complete") => return (chunks, frame),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_reply_ends_once_although_its_node_wakes_up_again() {
    let engine = Engine::redis().await;
    let (writer, reply) = Reply::stream("text/event-stream");
    let upstream = Upstream::start(in_turn([reply])).await;
    let settings = Settings::chat(&upstream.url("/"));
    let asleep = engine.start(settings.clone()).await;
    let awake = engine.start(settings).await;
    let (mut sender, _) = Client::connected(&asleep, "/ws/chat/42/").await;
    let (mut tab, _) = Client::connected(&awake, "/ws/chat/42/").await;
    sender.send_json(&json!({"message": "hello"})).await;
    let chunk = |n: u64| format!("data: {}\n\n", json!({"event": "chunk", "n": n}));
    for n in 0..3 {
        assert!(writer.write(chunk(n)));
    }
    for client in [&mut sender, &mut tab] {
        while client.next_json().await["n"] != 2 {}
    }
    let redis = engine.server().expect("this engine is Redis");
    until("generation in the ledger", async || {
        (redis.run::<u64>(&["ZCARD", "tg:generations"]).await == 1).then_some(())
    })
    .await;

    let (stopped, waking) = (Instant::now(), Instant::now() + ASLEEP);
    asleep.signal(Signal::STOP);
    // The upstream goes on, and its reply has ended when the node wakes up.
    for n in 3..6 {
        assert!(writer.write(chunk(n)));
    }
    assert!(writer.write(format!("data: {}\n\n", json!({"event": "complete"}))));
    drop(writer);
    let (chunks, end) = until_end(&mut tab).await;
    assert_eq!((chunks, &end["code"]), (vec![], &json!("worker_lost")), "{end}");
    recovered("a paused node's reply is ended by another", stopped);
    tokio::time::sleep_until(waking.into()).await;

    let woken = Instant::now();
    asleep.signal(Signal::CONT);
    wait_until_ready(&asleep).await;
    recovered("a node that was paused for 30 s is ready again", woken);
    awake.publish("chat_42", json!({"event": "marker"})).await;
    // Neither client gets anything of the reply after its end, and nobody gets a second end.
    let after = tab.next_json().await;
    assert_eq!(after["event"], "marker", "{after}");
    let (chunks, end) = until_end(&mut sender).await;
    assert_eq!((chunks, &end["code"]), (vec![], &json!("worker_lost")), "{end}");
    let after = sender.next_json().await;
    assert_eq!(after["event"], "marker", "{after}");
    assert_eq!(awake.events("connection_closed") + asleep.events("connection_closed"), 0);
    // Commands reach it again, and it relays.
    let answer = awake.api("/v1/disconnect", json!({"channel": "chat_42"})).await;
    assert_eq!(answer.json(), json!({"closed": 2, "nodes": 2}), "{}", answer.text());
    let (mut client, _) = Client::connected(&asleep, "/ws/chat/42/").await;
    client.send_json(&json!({"message": "hello"})).await;
    client.next_event("task_queued").await;
}
