//! Messages that a Django backend sends to groups reach the clients, with either layer of channels_redis.

use serde_json::{Value, json};

use rustix::process::Signal;

use crate::rig::{Backend, Client, Event, Gateway, Redis, Settings, http, until};

pub const PATH: &str = "/ws/chat/42/";

pub fn settings(redis: &Redis, wire: &str) -> Settings {
    Settings::chat("http://127.0.0.1:1/")
        .redis(&redis.url())
        // A slow machine needs longer to hand groups over.
        .section("shutdown", "drain = \"300ms\"\ngrace = \"5s\"")
        .also("engine.redis", &format!("wire = {wire:?}"))
        .also("engine.redis.channels", "refresh = \"1s\"")
}

pub async fn start(settings: Settings) -> Gateway {
    let gateway = Gateway::start(settings).await;
    until("ready gateway", async || {
        (http::get(gateway.admin(), "/readyz").await.status == 200).then_some(())
    })
    .await;
    gateway
}

pub fn chunk(number: usize) -> Value {
    json!({"type": "chat.message", "event": "chunk", "chunk": format!("{number} "), "n": number})
}

/// Sends chunks to the group of channel `chat_42`.
pub async fn send(backend: &mut Backend, wire: &str, numbers: std::ops::Range<usize>) {
    for number in numbers {
        if wire == "channels-core" {
            assert_eq!(
                backend.send("chat_42", &chunk(number)).await,
                0,
                "a full mailbox at {number}"
            );
        } else {
            backend.publish("chat_42", &chunk(number)).await;
        }
    }
}

/// Expects chunks with these `numbers` next, and returns the offset of the last one.
pub async fn expect(client: &mut Client, numbers: std::ops::Range<usize>) -> Option<u64> {
    let mut offset = None;
    for number in numbers {
        let event = client.next_json().await;
        assert_eq!(event["n"], number, "{event}");
        assert_eq!(event["type"], "chat.message");
        if let (Some(last), Some(now)) = (offset, event["offset"].as_u64()) {
            assert_eq!(now, last + 1, "{event}");
        }
        offset = event["offset"].as_u64();
    }
    offset
}

async fn messages(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metric("tidegate_channel_layer_messages_total", &[("outcome", outcome)]).await
}

async fn keys(redis: &Redis, pattern: &str) -> Vec<String> {
    redis.run(&["KEYS", pattern]).await
}

async fn events_come_in_order_and_can_be_resumed(wire: &str) {
    let redis = Redis::start().await;
    let gateway = start(settings(&redis, wire)).await;
    let mut backend = Backend::new(&redis).await;
    let (mut client, connected) = Client::connected(&gateway, PATH).await;
    send(&mut backend, wire, 0..50).await;
    let offset = expect(&mut client, 0..50).await.expect("an offset");
    drop(client);
    gateway
        .wait_for_metric("tidegate_connections", &[("route", "/ws/chat/{conversation_id}/")], 0.0)
        .await;
    // Nothing is lost while nobody is connected.
    send(&mut backend, wire, 50..60).await;
    let epoch = connected["epoch"].as_str().expect("an epoch");
    let path = format!("{PATH}?since={offset}&epoch={epoch}");
    let (mut client, connected) = Client::connected(&gateway, &path).await;
    assert_eq!(connected["recovered"], true, "{connected}");
    expect(&mut client, 50..60).await;
    send(&mut backend, wire, 60..70).await;
    expect(&mut client, 60..70).await;
}

#[tokio::test]
async fn core_events_come_in_order_and_can_be_resumed() {
    events_come_in_order_and_can_be_resumed("channels-core").await;
}

#[tokio::test]
async fn pubsub_events_come_in_order_and_can_be_resumed() {
    events_come_in_order_and_can_be_resumed("channels-pubsub").await;
}

/// Nobody is connected when the reply ends, and the node that tracks it is not there any more.
async fn an_end_is_recorded_when_it_is_appended(wire: &str) {
    let redis = Redis::start().await;
    let gateway = start(settings(&redis, wire)).await;
    let mut backend = Backend::new(&redis).await;
    let running = "tg:{chat_42}:running";
    for (end, task_id) in
        [(json!({"event": "complete"}), "1"), (json!({"event": "complete", "task_id": 2}), "2")]
    {
        let (mut client, _) = Client::connected(&gateway, PATH).await;
        let position: String = redis.run(&["HGET", "tg:{chat_42}:meta", "offset"]).await;
        let _: u64 =
            redis.run(&["HSET", running, task_id, &format!("{position} 99999999999")]).await;
        send(&mut backend, wire, 0..1).await;
        expect(&mut client, 0..1).await;
        drop(client);
        gateway
            .wait_for_metric(
                "tidegate_connections",
                &[("route", "/ws/chat/{conversation_id}/")],
                0.0,
            )
            .await;
        let mut message = end;
        message["type"] = json!("chat.message");
        if wire == "channels-core" {
            assert_eq!(backend.send("chat_42", &message).await, 0);
        } else {
            backend.publish("chat_42", &message).await;
        }
        until("recorded end", async || {
            let recorded: String = redis.run(&["HGET", running, task_id]).await;
            recorded.starts_with("ended ").then_some(())
        })
        .await;
        let (mut late, _) = Client::connected(&gateway, PATH).await;
        late.send_json(&json!({"type": "ping"})).await;
        assert_eq!(late.next_json().await["event"], "pong", "nothing of the reply is sent again");
        let _: u64 = redis.run(&["DEL", running]).await;
    }
}

#[tokio::test]
async fn core_records_ends() {
    an_end_is_recorded_when_it_is_appended("channels-core").await;
}

#[tokio::test]
async fn pubsub_records_ends() {
    an_end_is_recorded_when_it_is_appended("channels-pubsub").await;
}

async fn a_channel_without_history_receives_its_group(wire: &str) {
    let redis = Redis::start().await;
    let gateway = start(settings(&redis, wire).without_history()).await;
    let mut backend = Backend::new(&redis).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    send(&mut backend, wire, 0..50).await;
    assert_eq!(expect(&mut client, 0..50).await, None);
    // The same holds for what is published through the gateway.
    gateway.publish("chat_42", chunk(50)).await;
    expect(&mut client, 50..51).await;
}

#[tokio::test]
async fn core_without_history() {
    a_channel_without_history_receives_its_group("channels-core").await;
}

#[tokio::test]
async fn pubsub_without_history() {
    a_channel_without_history_receives_its_group("channels-pubsub").await;
}

/// Each event arrives once, with the same offset on both nodes.
async fn two_nodes_deliver_each_event_once(wire: &str) {
    let redis = Redis::start().await;
    let nodes = [start(settings(&redis, wire)).await, start(settings(&redis, wire)).await];
    let mut backend = Backend::new(&redis).await;
    let (mut one, _) = Client::connected(&nodes[0], PATH).await;
    send(&mut backend, wire, 0..20).await;
    expect(&mut one, 0..20).await;
    let (mut other, _) = Client::connected(&nodes[1], PATH).await;
    send(&mut backend, wire, 20..120).await;
    let (first, second) = (expect(&mut one, 20..120).await, expect(&mut other, 20..120).await);
    assert!(first.is_some() && first == second);
    send(&mut backend, wire, 120..130).await;
    expect(&mut one, 120..130).await;
    expect(&mut other, 120..130).await;
    until("all copies", async || {
        let duplicates =
            messages(&nodes[0], "duplicate").await + messages(&nodes[1], "duplicate").await;
        (duplicates == 110.0).then_some(())
    })
    .await;
    let mut caught = 0.0;
    for node in &nodes {
        caught += node.metric("tidegate_duplicates_total", &[("kind", "channel_layer")]).await;
    }
    assert_eq!(caught, 110.0);
}

#[tokio::test]
async fn core_of_two_nodes() {
    two_nodes_deliver_each_event_once("channels-core").await;
}

#[tokio::test]
async fn pubsub_of_two_nodes() {
    two_nodes_deliver_each_event_once("channels-pubsub").await;
}

/// Both nodes lose all connections to Redis while messages arrive; their mailboxes remain.
#[tokio::test]
async fn core_of_two_nodes_that_are_cut_off() {
    let redis = Redis::start().await;
    let settings = settings(&redis, "channels-core");
    let nodes = [start(settings.clone()).await, start(settings).await];
    let mut backend = Backend::new(&redis).await;
    let (mut one, _) = Client::connected(&nodes[0], PATH).await;
    let (mut other, _) = Client::connected(&nodes[1], PATH).await;
    send(&mut backend, "channels-core", 0..20).await;
    expect(&mut one, 0..20).await;
    expect(&mut other, 0..20).await;
    let _: i64 = redis.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    let mut backend = Backend::new(&redis).await;
    send(&mut backend, "channels-core", 20..40).await;
    // Each client has received everything, or has been told that it has not.
    for client in [&mut one, &mut other] {
        let mut next = 20;
        while next < 40 {
            match client.next().await {
                Event::Text(text) => {
                    let event: Value = serde_json::from_str(&text).expect("JSON");
                    assert_eq!(event["n"], next, "{event}");
                    next += 1;
                }
                Event::Closed(code, _) => {
                    assert_eq!(code, Some(1012));
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Another node joins the groups before the stopping one leaves them, although no client of theirs is there.
#[tokio::test]
async fn a_gateway_that_stops_leaves_its_groups_to_another() {
    let redis = Redis::start().await;
    let mut first = start(settings(&redis, "channels-core")).await;
    let second = start(settings(&redis, "channels-core")).await;
    let (_one, _) = Client::connected(&first, PATH).await;
    let (_other, _) = Client::connected(&first, "/ws/chat/43/").await;
    let members =
        async |group: &str| -> Vec<String> { redis.run(&["ZRANGE", group, "0", "-1"]).await };
    let before = members("asgi:group:chat_42").await;
    first.stop().await;
    for group in ["asgi:group:chat_42", "asgi:group:chat_43"] {
        let after = members(group).await;
        assert_eq!(after.len(), 1, "{after:?}");
        assert!(!before.contains(&after[0]), "{before:?}, then {after:?}");
    }
    second.wait_for_event("layer_channels_taken_over").await;
}

/// What is sent while no node runs is delivered by the next one, on the core layer. On the pub/sub layer nobody has it.
async fn a_restart_of_the_only_gateway(wire: &str, killed: bool) {
    let redis = Redis::start().await;
    let mut backend = Backend::new(&redis).await;
    let mut first = start(settings(&redis, wire)).await;
    let (mut client, connected) = Client::connected(&first, PATH).await;
    send(&mut backend, wire, 0..5).await;
    let offset = expect(&mut client, 0..5).await.expect("an offset");
    if killed {
        first.signal(Signal::KILL);
        first.wait_exit().await;
    } else {
        first.stop().await;
    }
    send(&mut backend, wire, 5..10).await;
    let second = start(settings(&redis, wire)).await;
    let epoch = connected["epoch"].as_str().expect("an epoch");
    let path = format!("{PATH}?since={offset}&epoch={epoch}");
    let (mut client, connected) = Client::connected(&second, &path).await;
    let is_recovered = wire == "channels-core";
    if is_recovered {
        assert_eq!(connected["recovered"], true, "{connected}");
        expect(&mut client, 5..10).await;
    } else if connected["recovered"] == true {
        // The node is considered alive for a while. Then clients are told.
        assert_eq!(client.closed().await, Some(1012));
        client = Client::connected(&second, PATH).await.0;
    }
    send(&mut backend, wire, 10..15).await;
    expect(&mut client, 10..15).await;
}

#[tokio::test]
async fn core_messages_without_a_gateway_are_delivered_by_the_next() {
    a_restart_of_the_only_gateway("channels-core", false).await;
    a_restart_of_the_only_gateway("channels-core", true).await;
}

#[tokio::test]
async fn pubsub_messages_without_a_gateway_are_reported() {
    a_restart_of_the_only_gateway("channels-pubsub", false).await;
    a_restart_of_the_only_gateway("channels-pubsub", true).await;
}

/// The only client of the killed node comes back to the other node, at once or later, while the backend sends.
#[tokio::test]
async fn core_a_killed_node_loses_nothing() {
    for has_other_client in [false, true] {
        let redis = Redis::start().await;
        let settings = settings(&redis, "channels-core");
        let mut backend = Backend::new(&redis).await;
        let mut first = start(settings.clone()).await;
        let second = start(settings).await;
        let (mut client, connected) = Client::connected(&first, PATH).await;
        let mut other = match has_other_client {
            true => Some(Client::connected(&second, PATH).await.0),
            false => None,
        };
        send(&mut backend, "channels-core", 0..5).await;
        let offset = expect(&mut client, 0..5).await.expect("an offset");
        first.signal(Signal::KILL);
        first.wait_exit().await;
        send(&mut backend, "channels-core", 5..10).await;
        let epoch = connected["epoch"].as_str().expect("an epoch");
        let path = format!("{PATH}?since={offset}&epoch={epoch}");
        let (mut client, connected) = Client::connected(&second, &path).await;
        assert_eq!(connected["recovered"], true, "{connected}");
        send(&mut backend, "channels-core", 10..15).await;
        expect(&mut client, 5..15).await;
        if let Some(other) = &mut other {
            expect(other, 0..15).await;
        }
        // The other node removes what the dead one left.
        until("a layer without the dead node", async || {
            let members: Vec<String> =
                redis.run(&["ZRANGE", "asgi:group:chat_42", "0", "-1"]).await;
            let left = keys(&redis, "asgi*specific*").await;
            (members.len() == 1 && left.is_empty()).then_some(())
        })
        .await;
        second.wait_for_event("layer_node_died").await;
    }
}

/// A message for the dead node alone, which no other node expects there.
#[tokio::test]
async fn core_a_message_that_only_the_dead_node_gets_is_reported() {
    let redis = Redis::start().await;
    let settings = settings(&redis, "channels-core");
    let backend = Backend::new(&redis).await;
    let mut first = start(settings.clone()).await;
    let second = start(settings).await;
    let (mut other, _) = Client::connected(&second, PATH).await;
    let members =
        async || -> Vec<String> { redis.run(&["ZRANGE", "asgi:group:chat_42", "0", "-1"]).await };
    let [of_second] = &members().await[..] else { panic!("one member") };
    let (_client, _) = Client::connected(&first, PATH).await;
    let of_first = members().await.into_iter().find(|member| member != of_second);
    first.signal(Signal::KILL);
    first.wait_exit().await;
    backend.put(&of_first.expect("another member"), &chunk(0)).await;
    assert_eq!(other.closed().await, Some(1012));
}

/// Waits until two nodes count the messages of the channel.
async fn until_two_count(redis: &Redis) {
    until("a second node that counts", async || {
        let nodes: Vec<String> = redis.run(&["ZRANGE", "tg:{chat_42}:nodes", "0", "-1"]).await;
        (nodes.len() == 2).then_some(())
    })
    .await;
}

/// Both nodes count the messages, so each appends what the other can no longer append.
#[tokio::test]
async fn pubsub_a_killed_node_loses_nothing_that_another_has() {
    let redis = Redis::start().await;
    let settings = settings(&redis, "channels-pubsub");
    let mut backend = Backend::new(&redis).await;
    let mut first = start(settings.clone()).await;
    let second = start(settings).await;
    let (mut client, connected) = Client::connected(&first, PATH).await;
    let (mut other, _) = Client::connected(&second, PATH).await;
    send(&mut backend, "channels-pubsub", 0..5).await;
    let offset = expect(&mut client, 0..5).await.expect("an offset");
    expect(&mut other, 0..5).await;
    until_two_count(&redis).await;
    first.signal(Signal::KILL);
    send(&mut backend, "channels-pubsub", 5..10).await;
    first.wait_exit().await;
    let epoch = connected["epoch"].as_str().expect("an epoch");
    let path = format!("{PATH}?since={offset}&epoch={epoch}");
    let (mut client, connected) = Client::connected(&second, &path).await;
    assert_eq!(connected["recovered"], true, "{connected}");
    send(&mut backend, "channels-pubsub", 10..15).await;
    expect(&mut client, 5..15).await;
    expect(&mut other, 5..15).await;
}

/// Copies in another node's mailbox are used as soon as the node that appended to the history has stopped.
#[tokio::test]
async fn a_gateway_that_stops_hands_its_channels_on() {
    for wire in ["channels-core", "channels-pubsub"] {
        let redis = Redis::start().await;
        // On a busy machine the other node may take longer than the grace of the other tests.
        let settings =
            settings(&redis, wire).section("shutdown", "drain = \"300ms\"\ngrace = \"10s\"");
        let mut backend = Backend::new(&redis).await;
        let mut first = start(settings.clone()).await;
        let second = start(settings).await;
        let (mut client, _) = Client::connected(&first, PATH).await;
        send(&mut backend, wire, 0..5).await;
        expect(&mut client, 0..5).await;
        assert_eq!(first.stop().await, Some(0));
        let (mut client, _) = Client::connected(&second, PATH).await;
        send(&mut backend, wire, 5..10).await;
        expect(&mut client, 5..10).await;
    }
}

/// Regression test: for three seconds, a node that was killed looked like one that would go on.
#[tokio::test]
async fn pubsub_a_gateway_that_stops_does_not_rely_on_one_that_has_just_died() {
    let redis = Redis::start().await;
    let settings = settings(&redis, "channels-pubsub")
        .section("shutdown", "drain = \"300ms\"\ngrace = \"10s\"");
    let mut backend = Backend::new(&redis).await;
    let mut first = start(settings.clone()).await;
    let mut dying = start(settings.clone()).await;
    let third = start(settings).await;
    let (mut client, connected) = Client::connected(&first, PATH).await;
    let (mut other, _) = Client::connected(&dying, PATH).await;
    send(&mut backend, "channels-pubsub", 0..5).await;
    let offset = expect(&mut client, 0..5).await.expect("an offset");
    expect(&mut other, 0..5).await;
    until_two_count(&redis).await;
    dying.signal(Signal::KILL);
    dying.wait_exit().await;
    assert_eq!(first.stop().await, Some(0));
    send(&mut backend, "channels-pubsub", 5..10).await;
    let epoch = connected["epoch"].as_str().expect("an epoch");
    let path = format!("{PATH}?since={offset}&epoch={epoch}");
    let (mut client, connected) = Client::connected(&third, &path).await;
    assert_eq!(connected["recovered"], true, "{connected}");
    expect(&mut client, 5..10).await;
}

/// Sends 10,000 events while one client does not read.
#[tokio::test]
async fn a_flood_reaches_those_who_read() {
    const EVENTS: usize = 10_000;
    let redis = Redis::start().await;
    let settings = settings(&redis, "channels-core")
        .also("engine.redis.channels", "capacity = 1500")
        .each_route(|route| {
            format!("{route}\nsend_queue = {{ messages = 20000, bytes = \"64MiB\" }}\n")
        });
    let gateway = start(settings).await;
    let mut backend = Backend::new(&redis).await;
    let (mut reader, _) = Client::connected(&gateway, PATH).await;
    let (_sleeper, _) = Client::connected(&gateway, PATH).await;
    let sending = async {
        for start in (0..EVENTS).step_by(100) {
            // A machine that is too slow to keep up is not what this test is about.
            until("a reader that continues", async || {
                let waiting: usize = match &keys(&redis, "asgispecific*").await[..] {
                    [] => 0,
                    [mailbox, ..] => redis.run(&["ZCARD", mailbox]).await,
                };
                (waiting < 1000).then_some(())
            })
            .await;
            send(&mut backend, "channels-core", start..start + 100).await;
        }
    };
    let reading = async { expect(&mut reader, 0..EVENTS).await };
    let (_, offset) = tokio::join!(sending, reading);
    assert!(offset.is_some());
    assert_eq!(messages(&gateway, "appended").await, EVENTS as f64);
}

#[tokio::test]
async fn a_lost_membership_is_restored_and_reported() {
    let redis = Redis::start().await;
    let gateway = start(settings(&redis, "channels-core")).await;
    let mut backend = Backend::new(&redis).await;
    let (mut client, connected) = Client::connected(&gateway, PATH).await;
    send(&mut backend, "channels-core", 0..3).await;
    let offset = expect(&mut client, 0..3).await.expect("an offset");
    let _: i64 = redis.run(&["DEL", "asgi:group:chat_42"]).await;
    // This message reaches nobody.
    send(&mut backend, "channels-core", 3..4).await;
    assert_eq!(client.closed().await, Some(1012));
    let epoch = connected["epoch"].as_str().expect("an epoch");
    let path = format!("{PATH}?since={offset}&epoch={epoch}");
    let (mut client, connected) = Client::connected(&gateway, &path).await;
    assert_eq!(connected["recovered"], false, "{connected}");
    send(&mut backend, "channels-core", 4..6).await;
    expect(&mut client, 4..6).await;
}

#[tokio::test]
async fn groups_are_joined_again_after_redis_restarts_empty() {
    for wire in ["channels-core", "channels-pubsub"] {
        let mut redis = Redis::start().await;
        let gateway = start(settings(&redis, wire)).await;
        let (mut client, _) = Client::connected(&gateway, PATH).await;
        let mut backend = Backend::new(&redis).await;
        send(&mut backend, wire, 0..3).await;
        expect(&mut client, 0..3).await;
        redis.restart().await;
        // Clients that connected while Redis was unavailable may be disconnected once more.
        let mut backend = Backend::new(&redis).await;
        until("a client that receives its group", async || {
            let mut client = Client::attempt(gateway.addr(), PATH).await?;
            let Event::Text(_connected) = client.next().await else { return None };
            send(&mut backend, wire, 3..4).await;
            match client.next().await {
                Event::Text(text) => text.contains("\"n\":3").then_some(()),
                _ => None,
            }
        })
        .await;
    }
}

#[tokio::test]
async fn json_a_prefix_and_types() {
    let redis = Redis::start().await;
    let settings = settings(&redis, "channels-core").also(
        "engine.redis.channels",
        "serializer = \"json\"\nprefix = \"app:ws\"\ntypes = [\"chat.message\"]\nkeep_type = false",
    );
    let gateway = start(settings).await;
    let mut backend = Backend::new(&redis).await;
    (backend.json, backend.prefix) = (true, "app:ws".into());
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    backend.send("chat_42", &json!({"type": "battle.event", "n": 0})).await;
    backend.send("chat_42", &json!({"n": 1})).await;
    backend.send("chat_42", &json!({"type": "chat.message", "n": 2})).await;
    let event = client.next_json().await;
    assert_eq!((event["n"].as_u64(), event.get("type")), (Some(2), None), "{event}");
    assert_eq!(messages(&gateway, "other_type").await, 2.0);
    // Each type is logged once, with its name: it may be missing in `types`.
    backend.send("chat_42", &json!({"type": "battle.event", "n": 3})).await;
    backend.send("chat_42", &json!({"type": "chat.message", "n": 4})).await;
    assert_eq!(client.next_json().await["n"], 4);
    let warnings = gateway.log_events("layer_type_not_forwarded");
    let types: Vec<_> = warnings.iter().map(|warning| &warning["message_type"]).collect();
    assert_eq!(types, ["battle.event", ""], "{warnings:?}");
    assert_eq!(warnings[0]["channel"], "chat_42");
}

#[tokio::test]
async fn what_holds_no_message_harms_nobody() {
    let redis = Redis::start().await;
    let gateway = start(settings(&redis, "channels-core")).await;
    let mut backend = Backend::new(&redis).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    for body in [&b""[..], b"\xc1", b"\x81", &[0x91; 5000], b"\xdf\xff\xff\xff\xff", b"\x01", b"{}"]
    {
        backend.send_body("chat_42", |_, _| body.to_vec()).await;
    }
    send(&mut backend, "channels-core", 0..1).await;
    expect(&mut client, 0..1).await;
}

#[tokio::test]
async fn a_channel_that_is_no_group_is_refused() {
    let redis = Redis::start().await;
    let gateway = start(settings(&redis, "channels-core")).await;
    for name in ["a%20b", "caf%C3%A9", &"x".repeat(95)] {
        let mut client = Client::open(gateway.addr(), &format!("/ws/chat/{name}/"), &[]).await;
        assert_eq!(client.closed().await, Some(4003), "{name}");
    }
}

#[tokio::test]
async fn a_server_that_reports_no_changes_is_read_all_the_same() {
    let redis = Redis::start().await;
    let () = redis.run(&["ACL", "SETUSER", "default", "-client|tracking"]).await;
    let gateway = start(settings(&redis, "channels-core")).await;
    let mut backend = Backend::new(&redis).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    send(&mut backend, "channels-core", 0..20).await;
    expect(&mut client, 0..20).await;
}

/// Groups are distributed over the hosts, and every gateway's mailbox is on the first.
#[tokio::test]
async fn groups_of_two_hosts() {
    for wire in ["channels-core", "channels-pubsub"] {
        let hosts = [Redis::start().await, Redis::start().await];
        let urls = [hosts[0].url(), hosts[1].url()];
        let settings =
            settings(&hosts[0], wire).also("engine.redis.channels", &format!("hosts = {urls:?}"));
        let gateway = start(settings).await;
        for id in 0..8 {
            let (mut client, _) = Client::connected(&gateway, &format!("/ws/chat/{id}/")).await;
            let group = format!("chat_{id}");
            let mut received = 0;
            for host in &hosts {
                let mut backend = Backend::new(host).await;
                if wire == "channels-core" {
                    let key = format!("asgi:group:{group}");
                    let members: Vec<String> = host.run(&["ZRANGE", &key, "0", "-1"]).await;
                    received += members.len();
                    for member in members {
                        let to = Backend::new(&hosts[0]).await;
                        to.put(&member, &chunk(id)).await;
                    }
                } else {
                    received += backend.publish(&group, &chunk(id)).await;
                }
            }
            assert_eq!(received, 1);
            expect(&mut client, id..id + 1).await;
        }
    }
}

/// The output of a tail up to and including `text`.
async fn tailed(tail: &mut http::Stream, text: &str) {
    let mut output = String::new();
    while !output.contains(text) {
        let piece =
            tail.next().await.unwrap_or_else(|| panic!("the end, and no {text} in {output}"));
        output.push_str(&String::from_utf8_lossy(&piece));
    }
}

/// Tails receive what no client is subscribed to.
async fn a_tail_receives_a_group(wire: &str) {
    let redis = Redis::start().await;
    let gateway = start(settings(&redis, wire)).await;
    let mut backend = Backend::new(&redis).await;
    let key = [("x-api-key", crate::rig::API_KEY)];
    let mut tail = http::stream(gateway.admin(), "/v1/channels/chat_42/tail", &key).await;
    tailed(&mut tail, "event: live").await;
    send(&mut backend, wire, 0..3).await;
    tailed(&mut tail, "\"n\":2").await;
    // A channel name that is not a valid group name does no harm.
    let path = "/v1/channels/%C3%BC/tail";
    let odd = http::stream(gateway.admin(), path, &key).await;
    assert!(matches!(odd.status, 200 | 503), "{}", odd.status);
    send(&mut backend, wire, 3..6).await;
    tailed(&mut tail, "\"n\":5").await;
    drop(odd);
    gateway.publish("chat_42", chunk(6)).await;
    tailed(&mut tail, "\"n\":6").await;
    assert_eq!(gateway.events("subscription_lost"), 0);
}

#[tokio::test]
async fn core_a_tail_hears_a_group() {
    a_tail_receives_a_group("channels-core").await;
}

#[tokio::test]
async fn pubsub_a_tail_hears_a_group() {
    a_tail_receives_a_group("channels-pubsub").await;
}
