//! Each message is relayed once and each reply ends once, whatever clients repeat and on whichever node.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::chat::{relayed, session, session_with};
use crate::engine::Engine;
use crate::outcome::{Outcome, attempt, outcome};
use crate::rig::upstream::StreamWriter;
use crate::rig::{Client, Gateway, Reply, Settings, Upstream, http, until};

const PATH: &str = "/ws/chat/42/";

on_both_engines! {
    a_repeat_gets_the_first_answer_and_is_not_relayed,
    a_repeat_is_not_counted_against_the_users_limit,
    an_id_whose_relay_failed_may_be_tried_again,
    anonymous_clients_share_no_ids,
    without_an_id_or_with_it_off_every_message_is_relayed,
    a_repeat_waits_for_the_first,
    the_number_of_replies_in_progress_is_limited_per_user,
    a_relay_that_fails_releases_its_permit,
    a_reply_is_cancelled_from_any_tab_of_its_channel_once,
    a_reply_continues_or_ends_with_the_connection_of_its_sender,
    a_reply_that_starts_after_its_client_disconnected_is_cancelled,
    replies_of_a_gateway_that_stops_are_reported,
    an_answer_without_a_reply_takes_no_permit,
    a_workers_reply_runs_until_its_terminal_event,
    a_worker_that_falls_silent_is_reported_once,
    a_workers_reply_is_cancelled_and_ends_once,
    a_reply_without_an_end_stops_counting,
    a_second_end_reaches_nobody_now_or_later,
    a_worker_on_a_queue_of_its_own_learns_that_its_task_is_cancelled,
}

async fn signed_in(gateway: &Gateway, session: &str) -> Client {
    let cookie = format!("access_token={session}");
    attempt(gateway, PATH, &[("cookie", &cookie)]).await.expect("a session")
}

async fn send_message(client: &mut Client, id: &str) -> Value {
    client.send_json(&json!({"message": "hello", "id": id})).await;
    client.next_json().await
}

/// An upstream that counts messages and names each task after its number.
async fn counting_upstream() -> Upstream {
    let count = Arc::new(AtomicUsize::new(0));
    Upstream::start(move |_| {
        let task = count.fetch_add(1, Ordering::SeqCst);
        Reply::json(202, &json!({"task_id": format!("task {task}")}))
    })
    .await
}

fn settings(upstream: &Upstream, more: &str) -> Settings {
    relayed(&upstream.url("/"), &format!("auth = [\"cookie\", \"anonymous\"]\n{more}"))
}

async fn a_repeat_gets_the_first_answer_and_is_not_relayed(engine: Engine) {
    let upstream = counting_upstream().await;
    let gateway = engine.start(settings(&upstream, "")).await;
    let mut client = signed_in(&gateway, &session()).await;
    let first = send_message(&mut client, "m-1").await;
    assert_eq!(first, json!({"event": "task_queued", "task_id": "task 0", "id": "m-1"}));
    let again =
        json!({"event": "task_queued", "task_id": "task 0", "id": "m-1", "duplicate": true});
    assert_eq!(send_message(&mut client, "m-1").await, again);
    client.close(1000, "").await;
    client.closed().await;
    let mut client = signed_in(&gateway, &session()).await;
    assert_eq!(send_message(&mut client, "m-1").await, again, "across a reconnect");
    assert_eq!(send_message(&mut client, "m-2").await["task_id"], "task 1");
    let mut other = signed_in(&gateway, &session_with(json!({"user_id": 8}))).await;
    assert_eq!(send_message(&mut other, "m-1").await["task_id"], "task 2", "ids are a user's own");
    assert_eq!(upstream.requests().len(), 3);
    let duplicates = gateway.metric("tidegate_messages_total", &[("outcome", "duplicate")]).await;
    assert_eq!(duplicates, 2.0);
}

async fn a_repeat_is_not_counted_against_the_users_limit(engine: Engine) {
    let upstream = counting_upstream().await;
    let limits = "[route.limits]\nmessages_per_user = \"2/1h\"";
    let gateway = engine.start(settings(&upstream, limits)).await;
    let mut client = signed_in(&gateway, &session()).await;
    for duplicate in [Value::Null, json!(true), json!(true)] {
        assert_eq!(send_message(&mut client, "m-1").await["duplicate"], duplicate);
    }
    assert_eq!(send_message(&mut client, "m-2").await["event"], "task_queued");
    assert_eq!(send_message(&mut client, "m-3").await["code"], "rate_limited");
    assert_eq!(
        send_message(&mut client, "m-3").await["code"],
        "rate_limited",
        "and its id is free"
    );
    assert_eq!(send_message(&mut client, "m-1").await["duplicate"], true);
}

async fn an_id_whose_relay_failed_may_be_tried_again(engine: Engine) {
    let count = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::status(500),
        1 => Reply::Hang,
        _ => Reply::status(202),
    })
    .await;
    let short = format!("kind = \"http\"\nurl = {:?}\ntimeout = \"1s\"", upstream.url("/"));
    let gateway = engine.start(settings(&upstream, "").upstream("worker", &short)).await;
    let mut client = signed_in(&gateway, &session()).await;
    for _ in 0..2 {
        assert_eq!(send_message(&mut client, "m-1").await["code"], "upstream_unavailable");
    }
    let answer = send_message(&mut client, "m-1").await;
    assert_eq!((&answer["event"], &answer["duplicate"]), (&json!("task_queued"), &Value::Null));
    let requests = upstream.requests();
    assert_eq!(requests.len(), 3);
    for request in &requests {
        assert_eq!(request.header("idempotency-key"), Some("7:m-1"));
    }
}

async fn anonymous_clients_share_no_ids(engine: Engine) {
    let upstream = counting_upstream().await;
    let gateway = engine.start(settings(&upstream, "")).await;
    let (mut one, _) = Client::connected(&gateway, PATH).await;
    let (mut two, _) = Client::connected(&gateway, PATH).await;
    assert_eq!(send_message(&mut one, "m-1").await["task_id"], "task 0");
    assert_eq!(send_message(&mut two, "m-1").await["task_id"], "task 1");
    let again = send_message(&mut one, "m-1").await;
    assert_eq!((&again["task_id"], &again["duplicate"]), (&json!("task 0"), &json!(true)));
}

async fn without_an_id_or_with_it_off_every_message_is_relayed(engine: Engine) {
    let upstream = counting_upstream().await;
    let limits = "[route.limits]\ngenerations_per_user = 0\n";
    let off = format!("{limits}[route.generations]\ndedup_ttl = \"0s\"");
    for (settings, message) in [
        (settings(&upstream, limits), json!({"message": "hello"})),
        (settings(&upstream, &off), json!({"message": "hello", "id": "m-1"})),
    ] {
        let gateway = engine.start(settings).await;
        let mut client = signed_in(&gateway, &session()).await;
        let before = upstream.requests().len();
        for _ in 0..3 {
            client.send_json(&message).await;
            let answer = client.next_event("task_queued").await;
            assert_eq!(answer.get("duplicate"), None, "{answer}");
        }
        assert_eq!(upstream.requests().len(), before + 3);
        if let Some(redis) = engine.server() {
            let keys: Vec<String> = redis.run(&["KEYS", "tg:message:*"]).await;
            assert_eq!(keys, Vec::<String>::new());
        }
    }
}

/// An upstream that holds its first answer until the test releases it, and accepts everything after that.
async fn late_upstream(first: Reply) -> (Upstream, watch::Sender<bool>) {
    let (release, released) = watch::channel(false);
    let first = Mutex::new(Some(Reply::Delayed(released, Box::new(first))));
    let first = Arc::new(first);
    let upstream = Upstream::start(move |_| {
        first.lock().unwrap().take().unwrap_or_else(|| Reply::status(202))
    })
    .await;
    (upstream, release)
}

async fn a_repeat_waits_for_the_first(engine: Engine) {
    for (status, relays) in [(202, 1), (500, 2)] {
        let (upstream, answer) = late_upstream(Reply::status(status)).await;
        let gateway = engine.start(settings(&upstream, "")).await;
        let user = session_with(json!({ "user_id": status }));
        let mut first = signed_in(&gateway, &user).await;
        let mut second = signed_in(&gateway, &user).await;
        first.send_json(&json!({"message": "hello", "id": "m-1"})).await;
        upstream.next_request().await;
        second.send_json(&json!({"message": "hello", "id": "m-1"})).await;
        // The second message is being processed once a later ping on its connection has been answered.
        second.send_json(&json!({"type": "ping"})).await;
        second.next_event("pong").await;
        answer.send_replace(true);
        let first = first.next_json().await;
        let second = second.next_event("task_queued").await;
        match status {
            202 => assert_eq!(
                (&first["task_id"], &json!(true)),
                (&second["task_id"], &second["duplicate"])
            ),
            _ => assert_eq!(
                (&first["code"], &Value::Null),
                (&json!("upstream_unavailable"), &second["duplicate"])
            ),
        }
        assert_eq!(upstream.requests().len(), relays);
    }
}

#[tokio::test]
async fn fifty_sends_of_one_message_over_two_nodes_are_one_relay() {
    let engine = Engine::redis().await;
    let upstream = counting_upstream().await;
    let nodes =
        [engine.start(settings(&upstream, "")).await, engine.start(settings(&upstream, "")).await];
    let mut clients = Vec::new();
    let limits = session();
    for n in 0..20 {
        clients.push(signed_in(&nodes[n % 2], &limits).await);
    }
    for n in 0..50 {
        clients[n % 20].send_json(&json!({"message": "hello", "id": "m-1"})).await;
    }
    let mut answers = Vec::new();
    for n in 0..50 {
        answers.push(clients[n % 20].next_event("task_queued").await);
    }
    assert!(answers.iter().all(|answer| answer["task_id"] == "task 0"), "{answers:?}");
    let first = answers.iter().filter(|answer| answer.get("duplicate").is_none()).count();
    assert_eq!(first, 1, "{answers:?}");
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_node_that_died_blocks_an_id_for_a_bounded_time() {
    let engine = Engine::redis().await;
    let (upstream, _answer) = late_upstream(Reply::status(202)).await;
    let node = engine.start(settings(&upstream, "")).await;
    let mut client = signed_in(&node, &session()).await;
    client.send_json(&json!({"message": "hello", "id": "m-1"})).await;
    upstream.next_request().await;
    drop(node);
    let redis = engine.server().expect("this engine is Redis");
    let keys: Vec<String> = redis.run(&["KEYS", "tg:message:*"]).await;
    let [key] = keys.as_slice() else { panic!("one claim: {keys:?}") };
    let left: i64 = redis.run(&["PTTL", key]).await;
    assert!((1..=20_000).contains(&left), "{left} ms");
    // As if that time had passed.
    let _: i64 = redis.run(&["DEL", key]).await;
    let node = engine.start(settings(&upstream, "")).await;
    let answer = send_message(&mut signed_in(&node, &session()).await, "m-1").await;
    assert_eq!((&answer["event"], answer.get("duplicate")), (&json!("task_queued"), None));
}

/// A node may die at the very moment its client knows the task.
#[tokio::test]
async fn other_nodes_know_a_reply_before_its_client_does() {
    let redis = crate::rig::Redis::start().await;
    let (_writer, reply) = Reply::stream("text/event-stream");
    let replies =
        Arc::new(Mutex::new(vec![Reply::json(202, &json!({"task_id": "worker"})), reply]));
    let upstream = Upstream::start(move |_| replies.lock().unwrap().pop().expect("a reply")).await;
    let gateway = Gateway::start(settings(&upstream, "").redis(&redis.url())).await;
    gateway.wait_for_event("redis_connected").await;
    let mut client = signed_in(&gateway, &session()).await;
    for id in ["m-1", "m-2"] {
        client.send_json(&json!({"message": "hello", "id": id})).await;
        let task = wait_for_event(&mut client, "task_queued").await["task_id"].clone();
        let member = format!("chat_42 {}", task.as_str().expect("an id"));
        let score: Option<f64> = redis.run(&["ZSCORE", "tg:generations", &member]).await;
        assert!(score.is_some(), "{member}");
    }
}

#[tokio::test]
async fn while_the_engine_is_away_messages_with_an_id_are_not_relayed() {
    let mut redis = crate::rig::Redis::start().await;
    let upstream = counting_upstream().await;
    let limits = "[route.limits]\nmessages_per_user = \"off\"\ngenerations_per_user = 0";
    let gateway = Gateway::start(settings(&upstream, limits).redis(&redis.url())).await;
    gateway.wait_for_event("redis_connected").await;
    let mut client = signed_in(&gateway, &session()).await;
    assert_eq!(send_message(&mut client, "m-1").await["event"], "task_queued");
    redis.stop();
    let answer = send_message(&mut client, "m-2").await;
    assert_eq!((&answer["code"], &answer["id"]), (&json!("engine_unavailable"), &json!("m-2")));
    assert!(answer["retry_after"].as_u64().is_some(), "{answer}");
    client.send_json(&json!({"message": "hello"})).await;
    client.next_event("task_queued").await;
    assert_eq!(upstream.requests().len(), 2);
    redis.restart().await;
    // The channel's history is lost: who is connected when the node notices is told to reconnect.
    assert_eq!(client.closed().await, Some(1012));
    until("ready gateway", async || {
        (http::get(gateway.admin(), "/readyz").await.status == 200).then_some(())
    })
    .await;
    let mut client = signed_in(&gateway, &session()).await;
    assert_eq!(send_message(&mut client, "m-2").await["event"], "task_queued");
}

/// An upstream that streams every reply, and the writers of the replies in order.
async fn streaming_upstream() -> (Upstream, Arc<Mutex<Vec<StreamWriter>>>) {
    let writers = Arc::new(Mutex::new(Vec::new()));
    let replies = Arc::clone(&writers);
    let upstream = Upstream::start(move |_| {
        let (writer, reply) = Reply::stream("text/event-stream");
        replies.lock().unwrap().push(writer);
        reply
    })
    .await;
    (upstream, writers)
}

/// Waits for the event and skips other messages.
async fn wait_for_event(client: &mut Client, event: &str) -> Value {
    loop {
        let json = client.next_json().await;
        if json["event"] == event {
            return json;
        }
    }
}

async fn until_queued(client: &mut Client, message: &str) -> Value {
    until("permit for one more reply", async || {
        client.send_json(&json!({ "message": message })).await;
        loop {
            let json = client.next_json().await;
            match json["event"].as_str() {
                Some("task_queued") => return Some(json),
                Some("error") => return None,
                _ => {}
            }
        }
    })
    .await
}

async fn the_number_of_replies_in_progress_is_limited_per_user(engine: Engine) {
    let (upstream, writers) = streaming_upstream().await;
    let limits = "[route.limits]\ngenerations_per_user = 2\nmessages_per_user = \"3/1h\"";
    let gateway = engine.start(settings(&upstream, limits)).await;
    let mut one = signed_in(&gateway, &session()).await;
    let mut two = signed_in(&gateway, &session()).await;
    for client in [&mut one, &mut two] {
        client.send_json(&json!({"message": "tell me"})).await;
        wait_for_event(client, "task_queued").await;
    }
    one.send_json(&json!({"message": "more", "id": "m-3"})).await;
    let busy = wait_for_event(&mut one, "error").await;
    assert_eq!((&busy["code"], &busy["id"]), (&json!("busy"), &json!("m-3")), "{busy}");
    assert!(busy["retry_after"].as_u64().is_some_and(|wait| (1..=5).contains(&wait)), "{busy}");
    assert_eq!(upstream.requests().len(), 2, "it was not relayed");
    let mut other = signed_in(&gateway, &session_with(json!({"user_id": 8}))).await;
    other.send_json(&json!({"message": "tell me"})).await;
    wait_for_event(&mut other, "task_queued").await;
    // The end of a reply releases its permit, and a refusal has cost nothing.
    writers.lock().unwrap().remove(0);
    wait_for_event(&mut one, "complete").await;
    until_queued(&mut one, "more").await;
}

async fn a_relay_that_fails_releases_its_permit(engine: Engine) {
    let upstream = Upstream::start(|_| Reply::status(400)).await;
    let limits = "[route.limits]\ngenerations_per_user = 1";
    let gateway = engine.start(settings(&upstream, limits)).await;
    let mut client = signed_in(&gateway, &session()).await;
    for _ in 0..5 {
        assert_eq!(send_message(&mut client, "m-1").await["code"], "upstream_rejected");
    }
}

#[tokio::test]
async fn two_nodes_count_a_users_replies_together() {
    let engine = Engine::redis().await;
    let (upstream, writers) = streaming_upstream().await;
    let limits = "[route.limits]\ngenerations_per_user = 1";
    let (a, b) = (
        engine.start(settings(&upstream, limits)).await,
        engine.start(settings(&upstream, limits)).await,
    );
    let mut one = signed_in(&a, &session()).await;
    let mut two = signed_in(&b, &session()).await;
    one.send_json(&json!({"message": "tell me"})).await;
    wait_for_event(&mut one, "task_queued").await;
    two.send_json(&json!({"message": "me too"})).await;
    assert_eq!(wait_for_event(&mut two, "error").await["code"], "busy");
    // The client that asked has disconnected; its reply continues and is counted.
    drop(one);
    a.wait_for_event("connection_closed").await;
    two.send_json(&json!({"message": "me too"})).await;
    assert_eq!(wait_for_event(&mut two, "error").await["code"], "busy");
    writers.lock().unwrap().clear();
    wait_for_event(&mut two, "complete").await;
    until_queued(&mut two, "me too").await;
}

fn cancel(task_id: &Value) -> Value {
    json!({"type": "cancel", "task_id": task_id})
}

/// Expects that nothing else arrives before the answer to a ping.
async fn expect_nothing_more(client: &mut Client) {
    client.send_json(&json!({"type": "ping"})).await;
    client.next_event("pong").await;
}

async fn queue_message(client: &mut Client) -> Value {
    client.send_json(&json!({"message": "tell me"})).await;
    wait_for_event(client, "task_queued").await["task_id"].clone()
}

async fn a_reply_is_cancelled_from_any_tab_of_its_channel_once(engine: Engine) {
    let (upstream, writers) = streaming_upstream().await;
    let gateway = engine.start(settings(&upstream, "")).await;
    let mut sender = signed_in(&gateway, &session()).await;
    // With this many, some are on another thread than the sender.
    let mut tabs = Vec::new();
    for _ in 0..4 {
        tabs.push(Client::connected(&gateway, PATH).await.0);
    }
    let (mut outsider, _) = Client::connected(&gateway, "/ws/chat/43/").await;
    for number in 0..tabs.len() {
        let task_id = queue_message(&mut sender).await;
        wait_for_event(&mut sender, "processing_started").await;
        outsider.send_json(&cancel(&task_id)).await;
        let error = outsider.next_event("error").await;
        assert_eq!((&error["code"], &error["task_id"]), (&json!("unknown_task"), &task_id));
        tabs[number].send_json(&cancel(&task_id)).await;
        for client in tabs.iter_mut().chain([&mut sender]) {
            let end = wait_for_event(client, "cancelled").await;
            assert_eq!(end["task_id"], task_id, "{end}");
        }
        let writer = writers.lock().unwrap().pop().expect("a reply");
        writer.closed().await;
        sender.send_json(&cancel(&task_id)).await;
        assert_eq!(sender.next_event("error").await["code"], "unknown_task", "it has ended");
        expect_nothing_more(&mut tabs[number]).await;
    }
    gateway.wait_for_metric("tidegate_generations_total", &[("outcome", "cancelled")], 4.0).await;
    gateway.wait_for_metric("tidegate_upstream_in_flight", &[("upstream", "worker")], 0.0).await;
}

async fn a_reply_continues_or_ends_with_the_connection_of_its_sender(engine: Engine) {
    for on_disconnect in ["continue", "cancel"] {
        let (upstream, writers) = streaming_upstream().await;
        let worker = format!(
            "kind = \"http\"\nurl = {:?}\non_disconnect = {on_disconnect:?}",
            upstream.url("/")
        );
        let gateway = engine.start(settings(&upstream, "").upstream("worker", &worker)).await;
        let (mut tab, _) = Client::connected(&gateway, PATH).await;
        let mut other = signed_in(&gateway, &session()).await;
        let mut sender = signed_in(&gateway, &session()).await;
        let of_other = queue_message(&mut other).await;
        let of_sender = queue_message(&mut sender).await;
        drop(sender);
        gateway.wait_for_event("connection_closed").await;
        let (first, second) = {
            let mut writers = writers.lock().unwrap();
            (writers.remove(0), writers.remove(0))
        };
        if on_disconnect == "continue" {
            assert!(second.write("data: {\"event\":\"complete\",\"n\":2}\n\n"));
            assert_eq!(wait_for_event(&mut tab, "complete").await["n"], 2);
        } else {
            second.closed().await;
            assert_eq!(wait_for_event(&mut tab, "cancelled").await["task_id"], of_sender);
        }
        drop(first);
        assert_eq!(wait_for_event(&mut tab, "complete").await["task_id"], of_other);
        expect_nothing_more(&mut tab).await;
    }
}

async fn a_reply_that_starts_after_its_client_disconnected_is_cancelled(engine: Engine) {
    let (writer, reply) = Reply::stream("text/event-stream");
    let (upstream, answer) = late_upstream(reply).await;
    let worker =
        format!("kind = \"http\"\nurl = {:?}\non_disconnect = \"cancel\"", upstream.url("/"));
    let gateway = engine.start(settings(&upstream, "").upstream("worker", &worker)).await;
    let (mut tab, _) = Client::connected(&gateway, PATH).await;
    let mut sender = signed_in(&gateway, &session()).await;
    sender.send_json(&json!({"message": "tell me"})).await;
    upstream.next_request().await;
    drop(sender);
    gateway.wait_for_event("connection_closed").await;
    answer.send_replace(true);
    writer.closed().await;
    wait_for_event(&mut tab, "cancelled").await;
    expect_nothing_more(&mut tab).await;
}

async fn replies_of_a_gateway_that_stops_are_reported(engine: Engine) {
    let (upstream, _writers) = streaming_upstream().await;
    let settings = settings(&upstream, "[route.limits]\ngenerations_per_user = 1")
        .section("shutdown", "drain = \"200ms\"\ngrace = \"2s\"");
    let mut gateway = engine.start(settings.clone()).await;
    let mut sender = signed_in(&gateway, &session()).await;
    let task_id = queue_message(&mut sender).await;
    let Some(_) = engine.server() else {
        // Nobody is left to receive the reply; it delays the exit no longer than necessary.
        assert_eq!(gateway.stop().await, Some(1));
        return;
    };
    let other = engine.start(settings).await;
    let (mut tab, _) = Client::connected(&other, PATH).await;
    assert_eq!(gateway.stop().await, Some(1), "a reply was forced to end");
    let error = wait_for_event(&mut tab, "error").await;
    assert_eq!((&error["code"], &error["task_id"]), (&json!("worker_lost"), &task_id));
    expect_nothing_more(&mut tab).await;
    // Its permit is free for the user's next message at once.
    let mut sender = signed_in(&other, &session()).await;
    queue_message(&mut sender).await;
}

/// A config whose upstream accepts messages for workers; the test acts as the worker.
fn with_worker(upstream: &Upstream, limits: &str, generations: &str) -> Settings {
    let lines = format!("[route.limits]\n{limits}\n[route.generations]\n{generations}");
    settings(upstream, &lines)
}

/// Expects that a message is refused with `busy`.
async fn expect_busy(client: &mut Client) {
    client.send_json(&json!({"message": "more"})).await;
    assert_eq!(wait_for_event(client, "error").await["code"], "busy");
}

async fn an_answer_without_a_reply_takes_no_permit(engine: Engine) {
    let done = Upstream::start(|_| Reply::status(204)).await;
    let gateway = engine.start(with_worker(&done, "generations_per_user = 1", "")).await;
    let mut client = signed_in(&gateway, &session()).await;
    for _ in 0..3 {
        let task_id = queue_message(&mut client).await;
        client.send_json(&json!({"type": "cancel", "task_id": task_id})).await;
        assert_eq!(wait_for_event(&mut client, "error").await["code"], "unknown_task");
    }
    assert_eq!(gateway.metric("tidegate_generations_total", &[]).await, 0.0);
}

async fn a_workers_reply_runs_until_its_terminal_event(engine: Engine) {
    let upstream = Upstream::accepting().await;
    let gateway = engine.start(with_worker(&upstream, "generations_per_user = 1", "")).await;
    let mut client = signed_in(&gateway, &session()).await;
    for names_its_task in [true, false] {
        let task_id = queue_message(&mut client).await;
        let event = |name: &str| match names_its_task {
            true => json!({"event": name, "task_id": task_id}),
            false => json!({"event": name}),
        };
        gateway.publish("chat_42", json!({"event": "complete", "task_id": "another"})).await;
        gateway.publish("chat_42", event("chunk")).await;
        wait_for_event(&mut client, "chunk").await;
        expect_busy(&mut client).await;
        gateway.publish("chat_42", event("completed")).await;
        wait_for_event(&mut client, "completed").await;
        let next = until_queued(&mut client, "next").await["task_id"].clone();
        // Its client disconnects; the node keeps monitoring the reply until its end.
        drop(client);
        until("no connection", async || {
            (gateway.metric("tidegate_connections", &[]).await == 0.0).then_some(())
        })
        .await;
        client = signed_in(&gateway, &session()).await;
        expect_busy(&mut client).await;
        drop(client);
        until("no connection", async || {
            (gateway.metric("tidegate_connections", &[]).await == 0.0).then_some(())
        })
        .await;
        gateway.publish("chat_42", json!({"event": "error", "task_id": next})).await;
        client = signed_in(&gateway, &session()).await;
        let last = until_queued(&mut client, "last").await["task_id"].clone();
        gateway.publish("chat_42", json!({"event": "complete", "task_id": last})).await;
        until("free permit", async || {
            let ended = gateway.metric("tidegate_generations_total", &[("outcome", "completed")]);
            (ended.await == if names_its_task { 3.0 } else { 6.0 }).then_some(())
        })
        .await;
    }
}

async fn a_worker_that_falls_silent_is_reported_once(engine: Engine) {
    let upstream = Upstream::accepting().await;
    let idle = "reply_idle_timeout = \"1s\"";
    let gateway = engine.start(with_worker(&upstream, "generations_per_user = 1", idle)).await;
    let mut client = signed_in(&gateway, &session()).await;
    let task_id = queue_message(&mut client).await;
    // A worker that publishes from time to time is not silent.
    let started = std::time::Instant::now();
    until("a while", async || {
        gateway.publish("chat_42", json!({"event": "chunk", "task_id": task_id})).await;
        wait_for_event(&mut client, "chunk").await;
        (started.elapsed().as_millis() > 1500).then_some(())
    })
    .await;
    let lost = client.next_event("error").await;
    assert_eq!((&lost["code"], &lost["task_id"]), (&json!("worker_lost"), &task_id));
    // What the worker publishes after that is too late.
    gateway.publish("chat_42", json!({"event": "complete", "task_id": task_id})).await;
    gateway.publish("chat_42", json!({"event": "seen"})).await;
    client.next_event("seen").await;
    until_queued(&mut client, "next").await;
}

async fn a_workers_reply_is_cancelled_and_ends_once(engine: Engine) {
    let upstream = Upstream::accepting().await;
    let gateway = engine.start(with_worker(&upstream, "generations_per_user = 1", "")).await;
    let mut sender = signed_in(&gateway, &session()).await;
    let (mut tab, _) = Client::connected(&gateway, PATH).await;
    let task_id = queue_message(&mut sender).await;
    tab.send_json(&cancel(&task_id)).await;
    for client in [&mut sender, &mut tab] {
        assert_eq!(client.next_event("cancelled").await["task_id"], task_id);
    }
    tab.send_json(&cancel(&task_id)).await;
    assert_eq!(tab.next_event("error").await["code"], "unknown_task");
    gateway.publish("chat_42", json!({"event": "complete", "task_id": task_id})).await;
    expect_nothing_more(&mut tab).await;
    until_queued(&mut sender, "next").await;
}

async fn a_reply_without_an_end_stops_counting(engine: Engine) {
    let upstream = Upstream::accepting().await;
    for (idle, reported) in [("# never", false), ("reply_idle_timeout = \"1h\"", true)] {
        let generations = format!("max_duration = \"300ms\"\n{idle}");
        let gateway =
            engine.start(with_worker(&upstream, "generations_per_user = 1", &generations)).await;
        let mut client = signed_in(&gateway, &session_with(json!({ "user_id": idle }))).await;
        let task_id = queue_message(&mut client).await;
        if reported {
            let lost = client.next_event("error").await;
            assert_eq!((&lost["code"], &lost["task_id"]), (&json!("worker_lost"), &task_id));
        }
        let outcome = [("outcome", if reported { "worker_lost" } else { "overdue" })];
        gateway.wait_for_metric("tidegate_generations_total", &outcome, 1.0).await;
        until_queued(&mut client, "next").await;
    }
}

async fn a_second_end_reaches_nobody_now_or_later(engine: Engine) {
    let upstream = Upstream::accepting().await;
    for (setting, second) in [("drop", None), ("pass", Some("error"))] {
        let generations = format!("duplicate_terminal = {setting:?}");
        let gateway = engine.start(with_worker(&upstream, "", &generations)).await;
        let channel = format!("chat_{setting}");
        let path = format!("/ws/chat/{setting}/");
        let (mut client, connected) = Client::connected(&gateway, &path).await;
        for event in ["complete", "error", "seen"] {
            gateway.publish(&channel, json!({"event": event, "task_id": "t"})).await;
        }
        let expected: Vec<_> = ["complete"].into_iter().chain(second).chain(["seen"]).collect();
        for event in &expected {
            client.next_event(event).await;
        }
        // A client that resumes gets the same.
        let since = format!("{path}?since=0&epoch={}", connected["epoch"].as_str().unwrap());
        until("history without the second end", async || {
            let (mut late, _) = Client::connected(&gateway, &since).await;
            let mut events = Vec::new();
            while events.last().is_none_or(|event| event != "seen") {
                events.push(late.next_json().await["event"].as_str().unwrap().to_owned());
            }
            (events == expected).then_some(())
        })
        .await;
    }
}

/// Two nodes on one Redis.
async fn two_nodes(engine: &Engine, settings: &Settings) -> (Gateway, Gateway) {
    (engine.start(settings.clone()).await, engine.start(settings.clone()).await)
}

#[tokio::test]
async fn a_streamed_reply_is_cancelled_from_another_node() {
    let engine = Engine::redis().await;
    let (upstream, writers) = streaming_upstream().await;
    let (one, two) = two_nodes(&engine, &settings(&upstream, "")).await;
    let mut sender = signed_in(&one, &session()).await;
    let (mut tab, _) = Client::connected(&two, PATH).await;
    let (mut outsider, _) = Client::connected(&two, "/ws/chat/43/").await;
    let task_id = queue_message(&mut sender).await;
    outsider.send_json(&cancel(&task_id)).await;
    assert_eq!(outsider.next_event("error").await["code"], "unknown_task");
    tab.next_event("processing_started").await;
    let started = std::time::Instant::now();
    tab.send_json(&cancel(&task_id)).await;
    assert_eq!(tab.next_event("cancelled").await["task_id"], task_id);
    assert!(started.elapsed().as_secs() < 2, "by order, not by the next renewal");
    assert_eq!(wait_for_event(&mut sender, "cancelled").await["task_id"], task_id);
    let writer = writers.lock().unwrap().pop().expect("a reply");
    writer.closed().await;
    expect_nothing_more(&mut sender).await;
}

#[tokio::test]
async fn a_worker_on_a_queue_learns_that_its_task_is_cancelled() {
    let engine = Engine::redis().await;
    let redis = engine.server().expect("this engine is Redis");
    let upstream = Upstream::accepting().await;
    let queue = "kind = \"redis-list\"\nkey = \"jobs\"";
    let (one, two) = two_nodes(&engine, &settings(&upstream, "").upstream("worker", queue)).await;
    let client = redis::Client::open(redis.url()).unwrap();
    let mut cancels = client.get_async_pubsub().await.unwrap();
    cancels.subscribe("tg:cancel").await.unwrap();
    let mut cancels = cancels.into_on_message();
    let mut sender = signed_in(&one, &session()).await;
    let mut tab = signed_in(&two, &session()).await;
    let task_id = queue_message(&mut sender).await;
    let (_, job): (String, String) = redis.run(&["BRPOP", "jobs", "5"]).await;
    let job: Value = serde_json::from_str(&job).unwrap();
    assert_eq!(job["task_id"], task_id);
    let key = format!("tg:cancel:{}", task_id.as_str().unwrap());
    assert_eq!(redis.run::<u64>(&["EXISTS", &key]).await, 0);
    until("generation in the ledger", async || {
        (redis.run::<u64>(&["ZCARD", "tg:generations"]).await == 1).then_some(())
    })
    .await;
    tab.send_json(&cancel(&task_id)).await;
    let cancelled =
        crate::rig::within("cancellation for the workers", cancels.next()).await.unwrap();
    assert_eq!(cancelled.get_payload::<String>().unwrap(), task_id.as_str().unwrap());
    assert_eq!(redis.run::<u64>(&["EXISTS", &key]).await, 1);
    for client in [&mut sender, &mut tab] {
        assert_eq!(wait_for_event(client, "cancelled").await["task_id"], task_id);
    }
    until("empty ledger", async || {
        (redis.run::<u64>(&["ZCARD", "tg:generations"]).await == 0).then_some(())
    })
    .await;
    tab.send_json(&cancel(&task_id)).await;
    assert_eq!(tab.next_event("error").await["code"], "unknown_task");
}

#[tokio::test]
async fn the_reply_of_a_node_that_died_is_reported_by_another() {
    let engine = Engine::redis().await;
    let (upstream, _writers) = streaming_upstream().await;
    let (one, two) = two_nodes(&engine, &settings(&upstream, "")).await;
    let mut sender = signed_in(&one, &session()).await;
    let (mut tab, _) = Client::connected(&two, PATH).await;
    let task_id = queue_message(&mut sender).await;
    tab.next_event("processing_started").await;
    let redis = engine.server().expect("this engine is Redis");
    until("generation in the ledger", async || {
        (redis.run::<u64>(&["ZCARD", "tg:generations"]).await == 1).then_some(())
    })
    .await;
    drop(one);
    let lost = tab.next_event("error").await;
    assert_eq!((&lost["code"], &lost["task_id"]), (&json!("worker_lost"), &task_id));
    expect_nothing_more(&mut tab).await;
}

#[tokio::test]
async fn a_workers_reply_is_monitored_by_another_node_when_its_own_dies_or_stops() {
    for stops in [true, false] {
        let engine = Engine::redis().await;
        let upstream = Upstream::accepting().await;
        let settings =
            with_worker(&upstream, "generations_per_user = 1", "reply_idle_timeout = \"3s\"")
                .section("shutdown", "drain = \"100ms\"\ngrace = \"5s\"");
        let (mut one, two) = two_nodes(&engine, &settings).await;
        let mut sender = signed_in(&one, &session()).await;
        let task_id = queue_message(&mut sender).await;
        let redis = engine.server().expect("this engine is Redis");
        until("generation in the ledger", async || {
            (redis.run::<u64>(&["ZCARD", "tg:generations"]).await == 1).then_some(())
        })
        .await;
        if stops {
            assert_eq!(one.stop().await, Some(0));
        }
        drop(one);
        let (mut tab, _) = Client::connected(&two, PATH).await;
        let mut user = signed_in(&two, &session()).await;
        expect_busy(&mut user).await;
        two.wait_for_metric("tidegate_generations_taken_over_total", &[], 1.0).await;
        expect_busy(&mut user).await;
        let lost = tab.next_event("error").await;
        assert_eq!((&lost["code"], &lost["task_id"]), (&json!("worker_lost"), &task_id));
        two.wait_for_metric("tidegate_generations_total", &[("outcome", "worker_lost")], 1.0).await;
        until_queued(&mut user, "next").await;
    }
}

/// A client that comes after the end gets nothing of the reply, although the node that tracked it is dead and no other
/// has noticed that yet.
#[tokio::test]
async fn a_reply_whose_node_died_is_over_for_late_clients_at_its_end() {
    let engine = Engine::redis().await;
    let upstream = Upstream::accepting().await;
    let (one, two) = two_nodes(&engine, &with_worker(&upstream, "", "")).await;
    let mut sender = signed_in(&one, &session()).await;
    queue_message(&mut sender).await;
    let (mut tab, _) = Client::connected(&two, PATH).await;
    two.publish("chat_42", json!({"event": "chunk"})).await;
    tab.next_event("chunk").await;
    drop(one);
    let (mut late, _) = Client::connected(&two, PATH).await;
    late.next_event("chunk").await;
    // As many workers do, this one names no task.
    two.publish("chat_42", json!({"event": "complete"})).await;
    tab.next_event("complete").await;
    late.next_event("complete").await;
    until("a client that gets nothing of it", async || {
        let (mut later, _) = Client::connected(&two, PATH).await;
        later.send_json(&json!({"type": "ping"})).await;
        (later.next_json().await["event"] == "pong").then_some(())
    })
    .await;
    assert_eq!(two.metric("tidegate_generations_taken_over_total", &[]).await, 0.0);
}

async fn a_worker_on_a_queue_of_its_own_learns_that_its_task_is_cancelled(engine: Engine) {
    let redis = crate::rig::Redis::start().await;
    let queue = format!("kind = \"redis-stream\"\nkey = \"jobs\"\nredis_url = {:?}", redis.url());
    let upstream = Upstream::accepting().await;
    let gateway = engine.start(settings(&upstream, "").upstream("worker", &queue)).await;
    let mut cancels = redis::Client::open(redis.url()).unwrap().get_async_pubsub().await.unwrap();
    cancels.subscribe("tg:cancel").await.unwrap();
    let mut cancels = cancels.into_on_message();
    let mut client = signed_in(&gateway, &session()).await;
    let task_id = queue_message(&mut client).await;
    client.send_json(&cancel(&task_id)).await;
    wait_for_event(&mut client, "cancelled").await;
    let cancelled =
        crate::rig::within("cancellation for the workers", cancels.next()).await.unwrap();
    assert_eq!(cancelled.get_payload::<String>().unwrap(), task_id.as_str().unwrap());
    let left: i64 = redis.run(&["TTL", &format!("tg:cancel:{}", task_id.as_str().unwrap())]).await;
    assert!((1..=1800).contains(&left), "{left}");
    // Clients cannot subscribe to the channels for workers.
    if engine.server().is_some() {
        let raw = "path = \"/any/{name}\"\nchannel = \"t{name}\"\nupstream = \"\"\nauth = [\"anonymous\"]";
        let gateway = engine.start(Settings::new().route(raw)).await;
        assert_eq!(outcome(&gateway, "/any/g:cancel", &[]).await, Outcome::Closed(4003));
        assert_eq!(outcome(&gateway, "/any/g-cancel", &[]).await, Outcome::Connected);
    }
}
