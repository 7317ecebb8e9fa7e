//! Disconnecting clients through the server API, on whichever node they are.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::engine::Engine;
use crate::rig::echo::WebSocketServer;
use crate::rig::gateway::MEMORY_ONLY;
use crate::rig::{Client, Event, Gateway, Redis, Reply, Settings, Upstream, http, until};

const NOWHERE: &str = "http://127.0.0.1:1/";

on_both_engines! {
    only_matching_connections_are_closed,
    a_code_and_a_reason_may_be_given,
    a_command_with_missing_or_unknown_fields_is_refused,
    many_connections_are_closed,
    the_upstream_of_a_bridge_gets_the_code,
}

fn settings() -> Settings {
    Settings::chat(NOWHERE)
}

/// A client of this conversation; a `user` that is not `null` is signed in.
async fn client(gateway: &Gateway, conversation: u32, user: Value) -> (Client, Value) {
    let mut path = format!("/ws/chat/{conversation}/");
    if !user.is_null() {
        let token = gateway.token(json!({"user_id": user})).await;
        path = format!("{path}?connection_token={token}");
    }
    Client::connected(gateway, &path).await
}

async fn disconnect(gateway: &Gateway, command: Value) -> Value {
    let answer = gateway.api("/v1/disconnect", command).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn closed(closed: u64, nodes: u64) -> Value {
    json!({"closed": closed, "nodes": nodes})
}

async fn expect_closed(client: &mut Client, code: u16, reason: &str) {
    assert_eq!(client.next().await, Event::Closed(Some(code), reason.to_owned()));
}

/// Expects that the client is still connected and has received nothing meanwhile.
async fn expect_open(client: &mut Client) {
    client.send_json(&json!({"type": "ping"})).await;
    client.next_event("pong").await;
}

async fn readiness(gateway: &Gateway, status: u16) -> Value {
    until(&format!("/readyz with {status}"), async || {
        let page = http::get(gateway.admin(), "/readyz").await;
        (page.status == status).then(|| page.json()["checks"].clone())
    })
    .await
}

async fn only_matching_connections_are_closed(engine: Engine) {
    const REASON: &str = "disconnected by the server";
    let gateway = engine.start(settings()).await;
    let (mut phone, _) = client(&gateway, 42, json!(7)).await;
    let (mut laptop, _) = client(&gateway, 43, json!(7)).await;
    // Credentials may write the same id as a number or as text.
    let (mut namesake, _) = client(&gateway, 42, json!("70")).await;
    let (mut tablet, _) = client(&gateway, 42, json!("7")).await;
    let (mut other, connected) = client(&gateway, 42, json!(8)).await;
    let (mut anonymous, _) = client(&gateway, 43, Value::Null).await;

    assert_eq!(disconnect(&gateway, json!({"user_id": 7})).await, closed(3, 1));
    for client in [&mut phone, &mut laptop, &mut tablet] {
        expect_closed(client, 4001, REASON).await;
    }
    for client in [&mut namesake, &mut other, &mut anonymous] {
        expect_open(client).await;
    }
    assert_eq!(
        disconnect(&gateway, json!({"user_id": 7})).await,
        closed(0, 1),
        "they are closed already"
    );
    assert_eq!(disconnect(&gateway, json!({"user_id": "anonymous"})).await, closed(0, 1));

    let command = json!({"connection_id": connected["connection_id"]});
    assert_eq!(disconnect(&gateway, command).await, closed(1, 1));
    expect_closed(&mut other, 4001, REASON).await;
    expect_open(&mut namesake).await;

    assert_eq!(disconnect(&gateway, json!({"channel": "chat_42"})).await, closed(1, 1));
    expect_closed(&mut namesake, 4001, REASON).await;
    expect_open(&mut anonymous).await;

    let by_order = [("by", "server"), ("reason", "disconnected")];
    gateway.wait_for_metric("tidegate_closes_total", &by_order, 5.0).await;
    let calls = [("call", "disconnect"), ("outcome", "ok")];
    assert_eq!(gateway.metric("tidegate_api_calls_total", &calls).await, 5.0);
    // A disconnected client may connect again with valid credentials.
    client(&gateway, 42, json!(7)).await;
}

async fn a_code_and_a_reason_may_be_given(engine: Engine) {
    let gateway = engine.start(settings()).await;
    for (more, code, reason) in [
        (json!({"code": 1000, "reason": ""}), 1000, ""),
        (json!({"code": 1012}), 1012, "disconnected by the server"),
        (json!({"reason": "signed out elsewhere \u{2713}"}), 4001, "signed out elsewhere \u{2713}"),
        (json!({"code": 4999, "reason": "x".repeat(123)}), 4999, &"x".repeat(123)),
    ] {
        let (mut client, _) = client(&gateway, 42, json!("ana")).await;
        let mut command = json!({"user_id": "ana"});
        command.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(disconnect(&gateway, command).await, closed(1, 1), "{more}");
        expect_closed(&mut client, code, reason).await;
    }
    let ordered = gateway.wait_for_event("disconnect_ordered").await;
    let fields = ordered.get("fields").unwrap_or(&ordered);
    for (name, value) in [
        ("by", json!("user_id")),
        ("id", json!("ana")),
        ("code", json!(1000)),
        ("closed", json!(1)),
        ("answered", json!(1)),
        ("asked", json!(1)),
    ] {
        assert_eq!(fields[name], value, "{ordered}");
    }
}

async fn a_command_with_missing_or_unknown_fields_is_refused(engine: Engine) {
    let gateway = engine.start(settings()).await;
    let (mut client, _) = client(&gateway, 42, json!(7)).await;
    for (body, status, code) in [
        (json!({}), 400, "bad_request"),
        (json!([7]), 400, "bad_request"),
        (json!({"user_id": 7, "channel": "chat_42"}), 400, "bad_request"),
        (json!({"user_id": true}), 400, "bad_request"),
        (json!({"user": 7}), 400, "bad_request"),
        (json!({"connection_id": "nobody"}), 400, "bad_request"),
        (json!({"channel": ""}), 400, "bad_channel"),
        (json!({"user_id": 7, "code": 1005}), 400, "bad_request"),
        (json!({"user_id": 7, "code": 2000}), 400, "bad_request"),
        (json!({"user_id": 7, "reason": "\u{2713}".repeat(42)}), 400, "bad_request"),
        (json!({"user_id": "7".repeat(100_000)}), 413, "too_large"),
    ] {
        let answer = gateway.api("/v1/disconnect", body.clone()).await;
        let shown: String = body.to_string().chars().take(80).collect();
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (status, &json!(code)),
            "{shown}"
        );
    }
    let command = json!({"user_id": 7});
    let without_key = http::post(gateway.admin(), "/v1/disconnect", &[], &command).await;
    assert_eq!(without_key.status, 401);
    expect_open(&mut client).await;
    assert_eq!(gateway.events("disconnect_ordered"), 0);
}

async fn many_connections_are_closed(engine: Engine) {
    // This takes several slices of work on each thread.
    const CONNECTIONS: u64 = 900;
    let gateway = engine.start(settings()).await;
    let mut clients = Vec::new();
    for number in 0..CONNECTIONS {
        // Every third client is in another conversation.
        clients.push(client(&gateway, if number % 3 == 0 { 43 } else { 42 }, Value::Null).await.0);
    }
    assert_eq!(disconnect(&gateway, json!({"channel": "chat_42"})).await, closed(600, 1));
    for (number, client) in clients.iter_mut().enumerate() {
        if number % 3 == 0 {
            expect_open(client).await;
        } else {
            assert_eq!(client.closed().await, Some(4001));
        }
    }
}

async fn the_upstream_of_a_bridge_gets_the_code(engine: Engine) {
    let mut server = WebSocketServer::start().await;
    let gateway = engine.start(Settings::echo(&server.url())).await;
    let mut client = Client::open(gateway.addr(), "/echo", &[]).await;
    let mut upstream = server.accept().await.socket;
    let command = json!({"channel": "echo", "code": 4100, "reason": "moved"});
    assert_eq!(disconnect(&gateway, command).await, closed(1, 1));
    expect_closed(&mut client, 4100, "moved").await;
    assert_eq!(upstream.closed().await, Some(4100));
}

/// Two gateways on one Redis.
async fn nodes(redis: &Redis) -> [Gateway; 2] {
    let settings = settings().redis(&redis.url());
    let nodes = [Gateway::start(&settings).await, Gateway::start(&settings).await];
    for node in &nodes {
        readiness(node, 200).await;
    }
    nodes
}

#[tokio::test]
async fn a_command_to_one_node_is_executed_on_all() {
    let redis = Redis::start().await;
    let [a, b] = nodes(&redis).await;
    let (mut here, _) = client(&a, 42, json!(7)).await;
    let (mut there, _) = client(&b, 42, json!(7)).await;
    let (mut also_there, connected) = client(&b, 43, json!(8)).await;
    let (mut stays, _) = client(&b, 44, json!("77")).await;
    assert_eq!(disconnect(&a, json!({"user_id": 7, "code": 4003})).await, closed(2, 2));
    for client in [&mut here, &mut there] {
        assert_eq!(client.closed().await, Some(4003));
    }
    let command = json!({"connection_id": connected["connection_id"], "reason": "bye"});
    assert_eq!(disconnect(&a, command).await, closed(1, 2));
    expect_closed(&mut also_there, 4001, "bye").await;

    let (mut here, _) = client(&a, 45, Value::Null).await;
    let (mut there, _) = client(&b, 45, json!(9)).await;
    assert_eq!(disconnect(&b, json!({"channel": "chat_45"})).await, closed(2, 2));
    for client in [&mut here, &mut there] {
        assert_eq!(client.closed().await, Some(4001));
    }
    expect_open(&mut stays).await;
    // A command is logged on the node that received it.
    until("an audit line for each", async || {
        let logged = (a.events("disconnect_ordered"), b.events("disconnect_ordered"));
        (logged == (2, 1)).then_some(())
    })
    .await;
    for node in [&a, &b] {
        let done = [("outcome", "done")];
        node.wait_for_metric("tidegate_control_orders_total", &done, 3.0).await;
    }
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_reported_and_one_that_has_exited_is_not() {
    let redis = Redis::start().await;
    let [a, mut b] = nodes(&redis).await;
    let (mut here, _) = client(&a, 42, json!(7)).await;
    b.signal(rustix::process::Signal::STOP);
    let answer = a.api("/v1/disconnect", json!({"user_id": 7})).await;
    let error = answer.json()["error"].clone();
    assert_eq!((answer.status, &error["code"]), (504, &json!("incomplete")));
    assert_eq!(error["message"], "1 of 2 nodes answered; they closed 1");
    assert_eq!(here.closed().await, Some(4001));
    b.signal(rustix::process::Signal::CONT);
    assert_eq!(b.stop().await, Some(0));
    let command = json!({"user_id": 7});
    until("an order without the node that ended", async || {
        (a.api("/v1/disconnect", command.clone()).await.json() == closed(0, 1)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_redis_a_command_is_refused_and_afterwards_it_is_not() {
    let mut redis = Redis::start().await;
    let [a, b] = nodes(&redis).await;
    let (mut here, _) = client(&a, 42, json!(7)).await;
    redis.stop();
    let checks = readiness(&a, 503).await;
    assert_eq!(checks["control"], "commands do not reach this node", "{checks}");
    let answer = a.api("/v1/disconnect", json!({"user_id": 7})).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (503, &json!("engine_down")));
    a.wait_for_event("disconnect_failed").await;
    expect_open(&mut here).await;

    redis.restart().await;
    for node in [&a, &b] {
        // A connection without commands notices by its next PING and counts as ready until then.
        until("all three connections", async || {
            (node.events("redis_reconnected") >= 2 && node.events("subscription_live") >= 2)
                .then_some(())
        })
        .await;
        assert_eq!(readiness(node, 200).await["control"], "ok");
    }
    let (mut here, _) = client(&a, 45, Value::Null).await;
    let (mut there, _) = client(&b, 45, Value::Null).await;
    assert_eq!(disconnect(&a, json!({"channel": "chat_45"})).await, closed(2, 2));
    for client in [&mut here, &mut there] {
        assert_eq!(client.closed().await, Some(4001));
    }
}

#[tokio::test]
async fn a_redis_that_hangs_is_reported_in_time() {
    let redis = Redis::start().await;
    let [a, _b] = nodes(&redis).await;
    redis.pause();
    let answer = a.api("/v1/disconnect", json!({"user_id": 7})).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (503, &json!("engine_down")));
    redis.resume();
    readiness(&a, 200).await;
}

#[tokio::test]
async fn clients_cannot_use_the_channels_of_commands() {
    let redis = Redis::start().await;
    let route = "path = \"/ws/{name}/\"\nchannel = \"t{name}\"\nupstream = \"\"\n\
                 auth = [\"connection_token\", \"anonymous\"]\n";
    let open = Settings::new().route(route);
    let gateway = Gateway::start(open.clone().redis(&redis.url())).await;
    readiness(&gateway, 200).await;
    for name in ["g:control", "g%3Acontrol", "g:control:0123456789abcdef", "g:cancel"] {
        let token = gateway.token(json!({"user_id": 1, "channels": ["*"]})).await;
        for path in [format!("/ws/{name}/"), format!("/ws/{name}/?connection_token={token}")] {
            let mut client = Client::open(gateway.addr(), &path, &[]).await;
            assert_eq!(client.next().await, Event::Closed(Some(4003), "not allowed".to_owned()));
        }
    }
    for channel in ["tg:control", "tg:control:0123456789abcdef"] {
        let single = json!({"channel": channel, "data": 1});
        for body in [single.clone(), json!({"publications": [single]})] {
            let answer = gateway.api("/v1/publish", body).await;
            let code = &answer.json()["error"]["code"];
            assert_eq!((answer.status, code), (400, &json!("bad_channel")), "{channel}");
        }
    }
    for name in ["g", "control", "G:control"] {
        Client::connected(&gateway, &format!("/ws/{name}/")).await;
        gateway.publish(&format!("t{name}"), json!(1)).await;
    }
    // A single node has no such channels.
    let alone = Gateway::start(open.without_history().section("engine", MEMORY_ONLY)).await;
    let (mut client, _) = Client::connected(&alone, "/ws/g:control/").await;
    alone.publish("tg:control", json!({"event": "heard"})).await;
    client.next_event("heard").await;
}

#[tokio::test]
async fn another_prefix_is_another_set_of_nodes() {
    let redis = Redis::start().await;
    let of = |prefix: &str| {
        settings().redis(&redis.url()).also("engine.redis", &format!("key_prefix = {prefix:?}"))
    };
    let (a, b) = (Gateway::start(of("a:")).await, Gateway::start(of("b:")).await);
    for node in [&a, &b] {
        readiness(node, 200).await;
    }
    let (mut stays, _) = client(&b, 42, Value::Null).await;
    assert_eq!(disconnect(&a, json!({"channel": "chat_42"})).await, closed(0, 1));
    expect_open(&mut stays).await;
    let (code, log) = Gateway::start_failing(of("with space")).await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("key_prefix"), "{log}");
}

#[tokio::test]
async fn messages_from_redis_that_are_not_commands_do_nothing() {
    let redis = Redis::start().await;
    let [a, _b] = nodes(&redis).await;
    let (mut stays, _) = client(&a, 42, json!(7)).await;
    let command = |v: u32, kind: &str, command: Value| {
        json!({"v": v, "kind": kind, "id": "a1", "from": "b2", "order": command}).to_string()
    };
    let all = json!({"user_id": 7});
    for (payload, outcome) in [
        ("nonsense".to_owned(), "malformed"),
        (command(1, "disconnect", json!({"user_id": 7, "code": 1006})), "malformed"),
        (command(1, "disconnect", json!({"user_id": 7, "unless": 8})), "malformed"),
        (command(2, "disconnect", all.clone()), "unknown"),
        (command(1, "reload", all.clone()), "unknown"),
        (command(1, "disconnect", json!({"user_id": "7".repeat(20_000)})), "too_large"),
    ] {
        let before = a.metric("tidegate_control_orders_total", &[("outcome", outcome)]).await;
        let reached: u64 = redis.run(&["PUBLISH", "tg:control", &payload]).await;
        assert_eq!(reached, 2, "one subscription a node");
        a.wait_for_metric("tidegate_control_orders_total", &[("outcome", outcome)], before + 1.0)
            .await;
    }
    expect_open(&mut stays).await;
    // A client that is subscribed to everything with PSUBSCRIBE is not counted as a node.
    let watcher = redis::Client::open(redis.url()).unwrap();
    let mut watcher = watcher.get_async_pubsub().await.unwrap();
    watcher.psubscribe("*").await.unwrap();
    assert_eq!(disconnect(&a, all).await, closed(1, 2));
    assert_eq!(stays.closed().await, Some(4001));
}

#[tokio::test]
async fn a_reply_is_cancelled_by_an_order_of_another_node() {
    let redis = Redis::start().await;
    let (writer, reply) = Reply::stream("text/event-stream");
    let reply = Arc::new(Mutex::new(Some(reply)));
    let upstream =
        Upstream::start(move |_| reply.lock().unwrap().take().unwrap_or(Reply::status(202))).await;
    let settings = Settings::chat(&upstream.url("/")).redis(&redis.url());
    let gateway = Gateway::start(settings).await;
    readiness(&gateway, 200).await;
    let (mut client, _) = client(&gateway, 42, Value::Null).await;
    client.send_json(&json!({"message": "tell me"})).await;
    let task = client.next_event("task_queued").await["task_id"].clone();
    client.next_event("processing_started").await;
    let command = |channel: &str| {
        let command = json!({"channel": channel, "task_id": task});
        json!({"v": 1, "kind": "cancel", "id": "a1", "from": "b2", "order": command}).to_string()
    };
    for (channel, affected) in [("chat_43", 0), ("chat_42", 1)] {
        let mut replies = subscribe(&redis, "tg:control:b2").await;
        let _: u64 = redis.run(&["PUBLISH", "tg:control", &command(channel)]).await;
        let mut reply: Value = serde_json::from_str(&replies.recv().await.unwrap()).unwrap();
        assert!(reply.as_object_mut().and_then(|it| it.remove("node")).is_some(), "{reply}");
        assert_eq!(reply, json!({"v": 1, "id": "a1", "affected": affected, "complete": true}));
    }
    assert_eq!(client.next_event("cancelled").await["task_id"], task);
    writer.closed().await;
}

/// Subscribes to what is published to `channel` from now on.
async fn subscribe(redis: &Redis, channel: &str) -> tokio::sync::mpsc::Receiver<String> {
    use futures_util::StreamExt;
    let client = redis::Client::open(redis.url()).unwrap();
    let mut pubsub = client.get_async_pubsub().await.unwrap();
    pubsub.subscribe(channel).await.unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        let mut messages = pubsub.on_message();
        while let Some(message) = messages.next().await {
            if sender.send(message.get_payload().unwrap()).await.is_err() {
                return;
            }
        }
    });
    receiver
}
