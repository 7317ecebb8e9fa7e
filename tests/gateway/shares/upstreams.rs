//! One client has a share of what an upstream takes at the same time.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{BEHIND_PROXY, address, others_are_served, send_and_receive};
use crate::chat::{relayed, session};
use crate::engine::Engine;
use crate::outcome::Outcome::Connected;
use crate::outcome::outcome;
use crate::rig::echo::Echo;
use crate::rig::{Client, Gateway, Redis, Reply, Settings, Upstream};

on_both_engines! {
    one_address_has_half_of_the_messages_that_wait,
}

/// An upstream that never ends its reply to the message "hold".
async fn holding() -> Upstream {
    let held = Arc::new(Mutex::new(Vec::new()));
    Upstream::start(move |request| {
        if request.json()["message"] != "hold" {
            return Reply::status(202);
        }
        let (writer, reply) = Reply::stream("text/event-stream");
        held.lock().unwrap().push(writer);
        reply
    })
    .await
}

async fn connect(gateway: &Gateway, headers: &[(&str, &str)]) -> Client {
    let mut client = Client::open(gateway.addr(), "/ws/chat/42/", headers).await;
    client.next_event("connected").await;
    client
}

/// Sends "hold" from five connections. Returns them, and their answers: the event, or the code of the error.
async fn hold_all(gateway: &Gateway, headers: &[(&str, &str)]) -> (Vec<Client>, Vec<Value>) {
    let (mut clients, mut answers) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let mut client = connect(gateway, headers).await;
        client.send_json(&json!({"message": "hold"})).await;
        let answer = loop {
            let event = client.next_json().await;
            match event["event"].as_str() {
                Some("error") => break event["code"].clone(),
                Some("task_queued") => break event["event"].clone(),
                _ => {}
            }
        };
        answers.push(answer);
        clients.push(client);
    }
    (clients, answers)
}

fn share_of(answers: &[Value]) -> usize {
    assert!(
        answers.iter().all(|answer| answer == "task_queued" || answer == "busy"),
        "{answers:?}"
    );
    answers.iter().filter(|answer| *answer == "task_queued").count()
}

#[tokio::test]
async fn one_address_and_one_user_hold_a_quarter_of_max_in_flight() {
    let upstream = holding().await;
    let lines = "auth = [\"cookie\", \"anonymous\"]\n[route.limits]\ngenerations_per_user = 0";
    let settings = relayed(&upstream.url("/"), lines).section("server", BEHIND_PROXY).upstream(
        "worker",
        &format!("kind = \"http\"\nurl = {:?}\nmax_in_flight = 8", upstream.url("/")),
    );
    let gateway = Gateway::start(settings).await;
    let (name, stranger) = address(200);
    let (strangers, answers) = hold_all(&gateway, &[(name, &stranger)]).await;
    assert_eq!(share_of(&answers), 2, "anonymous clients of one address");
    let cookie = format!("access_token={}", session());
    let headers = [("cookie", cookie.as_str()), (name, stranger.as_str())];
    let (_users, answers) = hold_all(&gateway, &headers).await;
    assert_eq!(share_of(&answers), 2, "a user, whose address does not matter");
    let refused = [("upstream", "worker"), ("outcome", "share_full")];
    assert!(gateway.metric("tidegate_upstream_requests_total", &refused).await >= 6.0);
    others_are_served(&gateway, async |client, number| {
        send_and_receive(&gateway, client, number).await;
    })
    .await;
    drop(strangers);
}

#[tokio::test]
async fn the_share_can_be_configured() {
    let upstream = holding().await;
    let worker = format!(
        "kind = \"http\"\nurl = {:?}\nmax_in_flight = 8\nmax_in_flight_per_user = 3",
        upstream.url("/")
    );
    let settings =
        relayed(&upstream.url("/"), "auth = [\"anonymous\"]").upstream("worker", &worker);
    let gateway = Gateway::start(settings).await;
    let (_clients, answers) = hold_all(&gateway, &[]).await;
    assert_eq!(share_of(&answers), 3);
}

#[tokio::test]
async fn one_address_holds_a_quarter_of_the_upstream_sockets() {
    let echo = Echo::start().await;
    let worker = format!("kind = \"websocket\"\nurl = {:?}\nmax_in_flight = 8", echo.url());
    let settings = relayed("http://127.0.0.1:1/", "auth = [\"anonymous\"]")
        .section("server", BEHIND_PROXY)
        .upstream("worker", &worker);
    let gateway = Gateway::start(settings).await;
    let (name, stranger) = address(200);
    let headers = [(name, stranger.as_str())];
    let (_first, _second) = (connect(&gateway, &headers).await, connect(&gateway, &headers).await);
    let mut third = Client::open(gateway.addr(), "/ws/chat/42/", &headers).await;
    assert_eq!(third.closed().await, Some(1013));
    others_are_served(&gateway, async |client, _| {
        client.send_json(&json!({"message": "hello"})).await;
        assert_eq!(client.next_json().await["message"], "hello");
    })
    .await;
    let (name, other) = address(201);
    assert_eq!(outcome(&gateway, "/ws/chat/1/", &[(name, &other)]).await, Connected);
}

#[tokio::test]
async fn one_address_has_a_share_of_the_tasks_of_a_queue() {
    let redis = Redis::start().await;
    for (kind, queue) in
        [("redis-list", "key = \"jobs\""), ("redis-stream", "key = \"jobs:stream\"")]
    {
        let worker = format!(
            "kind = {kind:?}\nredis_url = {:?}\n{queue}\nmax_len_per_user = 2",
            redis.url()
        );
        let settings: Settings = relayed("http://127.0.0.1:1/", "auth = [\"anonymous\"]")
            .section("server", BEHIND_PROXY)
            .upstream("worker", &worker);
        let gateway = Gateway::start(settings).await;
        let (name, stranger) = address(200);
        let (mut clients, answers) = hold_all(&gateway, &[(name, &stranger)]).await;
        assert_eq!(share_of(&answers), 2, "{kind}");
        others_are_served(&gateway, async |client, number| {
            send_and_receive(&gateway, client, number).await;
        })
        .await;
        // A reply that has ended makes room.
        gateway.publish("chat_42", json!({"event": "complete"})).await;
        clients[4].next_event("complete").await;
        crate::rig::until("room for another task", async || {
            clients[4].send_json(&json!({"message": "hold"})).await;
            loop {
                let event = clients[4].next_json().await;
                match event["event"].as_str() {
                    Some("error") => return None,
                    Some("task_queued") => return Some(()),
                    _ => {}
                }
            }
        })
        .await;
    }
}

async fn one_address_has_half_of_the_messages_that_wait(engine: Engine) {
    let upstream = holding().await;
    let lines = "auth = [\"anonymous\"]\ngenerations = { concurrent = \"queue\", max_waiting = 4 }";
    let settings = relayed(&upstream.url("/"), lines).section("server", BEHIND_PROXY);
    let gateway = engine.start(settings).await;
    let (name, stranger) = address(200);
    let headers = [(name, stranger.as_str())];
    let mut strangers = Vec::new();
    for waiting in 0..3 {
        let mut client = connect(&gateway, &headers).await;
        client.send_json(&json!({"message": "hold"})).await;
        gateway.wait_for_metric("tidegate_messages_waiting", &[], f64::from(waiting)).await;
        if waiting == 0 {
            client.next_event("task_queued").await;
        }
        strangers.push(client);
    }
    let mut fourth = connect(&gateway, &headers).await;
    fourth.send_json(&json!({"message": "hold", "id": "d"})).await;
    let busy = loop {
        let event = fourth.next_json().await;
        if event["event"] == "error" {
            break event;
        }
    };
    assert_eq!((&busy["code"], &busy["id"]), (&json!("busy"), &json!("d")));
    let (name, other) = address(201);
    let mut other = connect(&gateway, &[(name, &other)]).await;
    other.send_json(&json!({"message": "hello"})).await;
    gateway.wait_for_metric("tidegate_messages_waiting", &[], 3.0).await;
    // Other channels are served meanwhile.
    others_are_served(&gateway, async |client, number| {
        send_and_receive(&gateway, client, number).await;
    })
    .await;
}
