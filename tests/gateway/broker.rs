//! Publications between nodes that share a Redis, and what clients are told while Redis is unavailable.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::rig::{
    Client, Event, Gateway, Redis, Reply, Settings, Upstream, http, recovered, until,
};

const PATH: &str = "/ws/chat/42/";

fn settings(redis: &Redis) -> Settings {
    Settings::chat("http://127.0.0.1:1/").redis(&redis.url())
}

/// Waits for a `/readyz` with this status, and returns its checks.
async fn readiness(gateway: &Gateway, status: u16) -> Value {
    until(&format!("/readyz with {status}"), async || {
        let page = http::get(gateway.admin(), "/readyz").await;
        (page.status == status).then(|| page.json()["checks"].clone())
    })
    .await
}

async fn subscribers(redis: &Redis, channel: &str) -> u64 {
    let (_, count): (String, u64) = redis.run(&["PUBSUB", "NUMSUB", channel]).await;
    count
}

async fn expect_refused(gateway: &Gateway, code: u16) {
    let mut client = Client::open(gateway.addr(), PATH, &[]).await;
    assert_eq!(client.closed().await, Some(code));
}

#[tokio::test]
async fn a_plain_publish_reaches_the_clients_of_every_node_as_it_is() {
    let redis = Redis::start().await;
    let nodes = [Gateway::start(settings(&redis)).await, Gateway::start(settings(&redis)).await];
    let mut clients = Vec::new();
    for node in &nodes {
        readiness(node, 200).await;
        clients.push(Client::connected(node, PATH).await.0);
    }
    // `connected` means subscribed: nothing that is published from now on is lost.
    for text in [
        r#"{"event":"chunk","n":1}"#,
        r#"  { "event" : "odd spacing" , "n": 1.0 }  "#,
        "no JSON at all",
        "ünïcode \u{1F600}",
        "",
    ] {
        let reached: u64 = redis.run(&["PUBLISH", "chat_42", text]).await;
        assert_eq!(reached, 2, "one subscription a node");
        for client in &mut clients {
            assert_eq!(client.next().await, Event::Text(text.to_owned()));
        }
    }
    let _: u64 = redis.run(&["PUBLISH", "chat_43", "for somebody else"]).await;
    nodes[0].publish("chat_42", json!({"event": "by the API"})).await;
    for client in &mut clients {
        // Of all these, only this one can be resumed from.
        assert_eq!(client.next_event("by the API").await["offset"], 1);
    }
}

#[tokio::test]
async fn a_message_sent_to_one_node_is_answered_to_a_client_on_the_other() {
    let redis = Redis::start().await;
    let (stream, reply) = Reply::stream("text/event-stream");
    let reply = Arc::new(std::sync::Mutex::new(Some(reply)));
    let upstream =
        Upstream::start(move |_| reply.lock().unwrap().take().unwrap_or(Reply::status(202))).await;
    let settings = Settings::chat(&upstream.url("/")).redis(&redis.url());
    let (a, b) = (Gateway::start(&settings).await, Gateway::start(&settings).await);
    for node in [&a, &b] {
        readiness(node, 200).await;
    }
    let (mut sender, _) = Client::connected(&a, PATH).await;
    let (mut listener, _) = Client::connected(&b, PATH).await;

    // The reply is streamed in the answer,
    sender.send_json(&json!({"message": "hi"})).await;
    let task = sender.next_event("task_queued").await;
    stream.write("data: word\n\n");
    drop(stream);
    for client in [&mut sender, &mut listener] {
        let started = client.next_event("processing_started").await;
        assert_eq!(started["task_id"], task["task_id"]);
        assert_eq!(client.next_event("chunk").await["chunk"], "word");
        client.next_event("complete").await;
    }
    // or a worker publishes it to Redis directly.
    sender.send_json(&json!({"message": "hi"})).await;
    sender.next_event("task_queued").await;
    let _: u64 = redis.run(&["PUBLISH", "chat_42", r#"{"event":"complete"}"#]).await;
    for client in [&mut sender, &mut listener] {
        client.next_event("complete").await;
    }
}

#[tokio::test]
async fn the_last_client_of_a_channel_takes_its_subscription_along() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(settings(&redis)).await;
    readiness(&gateway, 200).await;
    let (mut first, _) = Client::connected(&gateway, PATH).await;
    let (second, _) = Client::connected(&gateway, PATH).await;
    assert_eq!(subscribers(&redis, "chat_42").await, 1);
    drop(second);
    gateway.wait_for_event("connection_closed").await;
    let _: u64 = redis.run(&["PUBLISH", "chat_42", "still"]).await;
    assert_eq!(first.next_text().await, "still");
    drop(first);
    until("end of the subscription", async || {
        (subscribers(&redis, "chat_42").await == 0).then_some(())
    })
    .await;
    let (mut third, _) = Client::connected(&gateway, PATH).await;
    let _: u64 = redis.run(&["PUBLISH", "chat_42", "again"]).await;
    assert_eq!(third.next_text().await, "again");
}

#[tokio::test]
async fn a_redis_that_starts_late_is_waited_for() {
    let mut redis = Redis::start().await;
    redis.stop();
    let gateway = Gateway::start(settings(&redis)).await;
    let checks = readiness(&gateway, 503).await;
    assert_eq!(checks["subscriptions"], "subscriptions are not live", "{checks}");
    let redis_check = checks["redis"].as_str().unwrap();
    assert!(redis_check.starts_with("Redis cannot be reached: "), "{checks}");
    assert_eq!(http::get(gateway.admin(), "/livez").await.status, 200);
    expect_refused(&gateway, 1013).await;

    redis.restart().await;
    readiness(&gateway, 200).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    let _: u64 = redis.run(&["PUBLISH", "chat_42", "hello"]).await;
    assert_eq!(client.next_text().await, "hello");
}

#[tokio::test]
async fn a_lost_redis_is_reported_to_all_clients() {
    let mut redis = Redis::start().await;
    let list = format!("kind = \"redis-list\"\nredis_url = {:?}\nkey = \"jobs\"", redis.url());
    let gateway = Gateway::start(settings(&redis).upstream("worker", &list)).await;
    readiness(&gateway, 200).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;

    redis.stop();
    gateway.wait_for_event("subscription_lost").await;
    readiness(&gateway, 503).await;
    assert_eq!(http::get(gateway.admin(), "/livez").await.status, 200);
    expect_refused(&gateway, 1013).await;
    // Open connections stay open and are answered.
    client.send_json(&json!({"message": "hi", "id": "lost"})).await;
    let error = client.next_event("error").await;
    assert_eq!((&error["code"], &error["id"]), (&json!("engine_unavailable"), &json!("lost")));

    redis.restart().await;
    // What was published meanwhile is unknown, so clients have to reconnect.
    assert_eq!(client.closed().await, Some(1012));
    readiness(&gateway, 200).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    let _: u64 = redis.run(&["PUBLISH", "chat_42", "hello again"]).await;
    assert_eq!(client.next_text().await, "hello again");
}

#[tokio::test]
async fn a_user_whose_limits_cannot_be_checked_is_refused() {
    let mut redis = Redis::start().await;
    let gateway = Gateway::start(
        settings(&redis)
            .each_route(|route| format!("{route}[route.limits]\nmessages_per_user = \"50/1h\"\n")),
    )
    .await;
    readiness(&gateway, 200).await;
    let token = gateway.token(json!({"user_id": 7})).await;
    let path = format!("{PATH}?connection_token={token}");
    let (mut client, _) = Client::connected(&gateway, &path).await;
    redis.stop();
    gateway.wait_for_event("subscription_lost").await;
    client.send_json(&json!({"message": "hi"})).await;
    assert_eq!(client.next_event("error").await["code"], "engine_unavailable");
}

#[tokio::test]
async fn a_hung_redis_is_noticed_without_traffic() {
    let redis = Redis::start().await;
    let with_history = Gateway::start(settings(&redis)).await;
    let without = Gateway::start(settings(&redis).without_history()).await;
    let mut clients = Vec::new();
    for gateway in [&with_history, &without] {
        readiness(gateway, 200).await;
        clients.push(Client::connected(gateway, PATH).await.0);
    }
    redis.pause();
    for gateway in [&with_history, &without] {
        gateway.wait_for_event("subscription_lost").await;
        readiness(gateway, 503).await;
        expect_refused(gateway, 1013).await;
    }
    redis.resume();
    let since = Instant::now();
    // What was published meanwhile is unknown, so clients have to reconnect, except where a history keeps it.
    assert_eq!(clients[1].closed().await, Some(1012));
    for gateway in [&with_history, &without] {
        readiness(gateway, 200).await;
        Client::connected(gateway, PATH).await;
    }
    recovered("Redis was paused and goes on", since);
    with_history.publish("chat_42", json!({"event": "after"})).await;
    assert_eq!(clients[0].next_event("after").await["offset"], 1);
}

#[tokio::test]
async fn a_publication_over_the_bound_is_dropped_and_counted() {
    let redis = Redis::start().await;
    let settings = settings(&redis).also("engine", "max_publication_bytes = \"1KiB\"");
    let gateway = Gateway::start(settings).await;
    readiness(&gateway, 200).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    let largest = "x".repeat(1024);
    for text in [&"y".repeat(1025), &largest] {
        let _: u64 = redis.run(&["PUBLISH", "chat_42", text]).await;
    }
    assert_eq!(client.next_text().await, largest);
    let dropped = [("outcome", "too_large")];
    assert_eq!(gateway.metric("tidegate_publications_total", &dropped).await, 1.0);
}

#[tokio::test]
async fn bytes_that_are_no_text_do_not_break_a_client() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(settings(&redis)).await;
    readiness(&gateway, 200).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    let mut connection = redis.connection().await;
    for payload in [&b"\xff\xfe"[..], b"after"] {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg("chat_42").arg(payload);
        let _: u64 = publish.query_async(&mut connection).await.unwrap();
    }
    assert_eq!(client.next().await, Event::Binary(b"\xff\xfe".into()), "text would be UTF-8");
    assert_eq!(client.next_text().await, "after");
}

#[tokio::test]
async fn fifty_clients_get_five_hundred_publications_in_order() {
    const PUBLICATIONS: usize = 500;
    let redis = Redis::start().await;
    let queue = "send_queue = { messages = 1024, bytes = \"1MiB\" }\n";
    let settings = settings(&redis).each_route(|route| format!("{route}{queue}"));
    let nodes = [Gateway::start(&settings).await, Gateway::start(&settings).await];
    let mut readers = Vec::new();
    for number in 0..50 {
        let node = &nodes[number % 2];
        if number < 2 {
            readiness(node, 200).await;
        }
        let (mut client, _) = Client::connected(node, PATH).await;
        readers.push(tokio::spawn(async move {
            for expected in 0..PUBLICATIONS {
                assert_eq!(client.next_text().await, format!("{{\"n\":{expected}}}"));
            }
        }));
    }
    let mut connection = redis.connection().await;
    for batch in (0..PUBLICATIONS).collect::<Vec<_>>().chunks(50) {
        let mut pipe = redis::pipe();
        for number in batch {
            pipe.cmd("PUBLISH").arg("chat_42").arg(format!("{{\"n\":{number}}}")).ignore();
        }
        pipe.query_async::<()>(&mut connection).await.unwrap();
    }
    for reader in readers {
        reader.await.expect("everything in order");
    }
}
