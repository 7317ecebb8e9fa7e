//! Reloading the config while the gateway runs: what takes effect for which clients, and what does not.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::rig::{Client, Event, Gateway, Redis, Reply, Settings, Upstream, http, until, within};

const PATH: &str = "/ws/chat/42/";

/// A config that is reloaded only when a test asks for it.
fn settings(upstream: &str) -> Settings {
    Settings::chat(upstream).section("reload", "watch = \"0s\"")
}

fn unreachable_upstream() -> Settings {
    settings("http://127.0.0.1:1/")
}

/// Writes another config into the file of a gateway; the engine stays the same.
fn write(gateway: &Gateway, settings: &Settings) {
    let before = std::fs::read_to_string(gateway.config_file()).expect("the config file");
    let text =
        match before.split_once("\n[engine.redis]\n").or(before.split_once("[engine.redis]\n")) {
            Some((_, redis)) => {
                let url = redis.lines().next().expect("the url of Redis");
                let kind = "[engine]\nkind = \"redis\"";
                format!("{kind}\n[engine.redis]\n{url}\n\n{settings}")
            }
            None => settings.to_string(),
        };
    std::fs::write(gateway.config_file(), text).expect("a new config file");
}

/// Writes the config, requests a reload, and waits until it has taken effect.
async fn reload(gateway: &Gateway, settings: &Settings) {
    write(gateway, settings);
    read_again(gateway, "config_reloaded").await;
}

/// Sends SIGHUP and waits for the event with the result.
async fn read_again(gateway: &Gateway, outcome: &str) -> Value {
    let before = gateway.events(outcome);
    gateway.signal(Signal::HUP);
    until(outcome, async || gateway.log_events(outcome).get(before).cloned()).await
}

fn each_route(settings: Settings, key: &str) -> Settings {
    settings.each_route(|route| format!("{key}\n{route}"))
}

async fn send_message(client: &mut Client, text: &str) -> Value {
    client.send_json(&json!({"message": text})).await;
    client.next_json().await
}

#[tokio::test]
async fn open_connections_follow_a_limit() {
    let upstream = Upstream::start(|_: &_| Reply::status(202)).await;
    let before = settings(&upstream.url("/"));
    let gateway = Gateway::start(&before).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    assert_eq!(send_message(&mut client, "long enough").await["event"], "task_queued");
    reload(&gateway, &each_route(before.clone(), "max_message_chars = 3")).await;
    assert_eq!(send_message(&mut client, "too long").await["code"], "message_too_long");
    let limited = before.each_route(|route| {
        format!("{route}\n[route.limits]\nmessages_per_connection = \"1/1h\"\n")
    });
    reload(&gateway, &limited).await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(send_message(&mut client, "once").await);
    }
    assert!(answers.iter().any(|answer| answer["code"] == "rate_limited"), "{answers:?}");
    reload(&gateway, &settings(&upstream.url("/"))).await;
    until("message that is not limited", async || {
        (send_message(&mut client, "again").await["event"] == "task_queued").then_some(())
    })
    .await;
    let (_second, connected) = Client::connected(&gateway, PATH).await;
    assert_eq!(connected["event"], "connected");
    assert_eq!(gateway.events("connection_closed"), 0, "no connection was closed");
}

#[tokio::test]
async fn origins_take_effect_on_connections_that_wait_for_a_request() {
    let allowing = |origin: &str| {
        each_route(unreachable_upstream(), "reject = \"http\"")
            .section("origins", &format!("allow = [{origin:?}]"))
    };
    let gateway = Gateway::start(allowing("https://old.example")).await;
    let from = async |origin: &str| {
        let opened = Client::try_open(gateway.addr(), PATH, &[("origin", origin)]).await;
        opened.map_or_else(|refused| refused.status, |_| 101)
    };
    assert_eq!(from("https://old.example").await, 101);
    assert_eq!(from("https://new.example").await, 403);
    let stream = TcpStream::connect(gateway.addr()).await.unwrap();
    let (mut idle, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut connect_from = async |origin: &str| {
        let request = Request::builder()
            .uri(PATH)
            .header("host", "gateway")
            .header("origin", origin)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==")
            .body(Empty::<Bytes>::new())
            .unwrap();
        let response = within("an answer", idle.send_request(request)).await.unwrap();
        let status = response.status().as_u16();
        response.into_body().collect().await.unwrap();
        status
    };
    assert_eq!(connect_from("https://new.example").await, 403);
    reload(&gateway, &allowing("https://new.example")).await;
    assert_eq!(from("https://new.example").await, 101);
    assert_eq!(from("https://old.example").await, 403);
    assert_eq!(connect_from("https://old.example").await, 403, "on a connection of before");
    assert_eq!(connect_from("https://new.example").await, 101);
}

#[tokio::test]
async fn keys_are_rotated() {
    let keyed = |secret: &str, api_key: &str| {
        unreachable_upstream()
            .each_route(|route| route.replace(", \"anonymous\"", ""))
            .section("jwt", &format!("keys = [{{ alg = \"HS256\", secret = {secret:?} }}]"))
            .section("admin", &format!("listen = \"127.0.0.1:0\"\napi_keys = [{api_key:?}]"))
    };
    let (old, new) = ("old-old-old-old-old-old-old-old-", "new-new-new-new-new-new-new-new-");
    let gateway = Gateway::start(keyed(old, "api-old")).await;
    let opens = async |secret: &str| {
        let jwt = crate::rig::jwt::hs256(secret, &json!({"user_id": 1, "exp": 4_000_000_000_u64}));
        let bearer = format!("Bearer {jwt}");
        let mut client = Client::open(gateway.addr(), PATH, &[("authorization", &bearer)]).await;
        matches!(client.next().await, Event::Text(first) if first.contains("\"connected\""))
    };
    let api = async |key: &str| {
        let body = json!({"channel": "chat_42", "data": {}});
        http::post(gateway.admin(), "/v1/publish", &[("x-api-key", key)], &body).await.status
    };
    assert!(opens(old).await && !opens(new).await);
    // What was verified before the reload is known, and counts for nothing after it.
    assert!(opens(old).await);
    assert_eq!(gateway.metric("tidegate_jwts_verified_before_total", &[]).await, 1.0);
    assert_eq!((api("api-old").await, api("api-new").await), (200, 401));
    reload(&gateway, &keyed(new, "api-new")).await;
    assert!(opens(new).await && !opens(old).await);
    assert_eq!((api("api-old").await, api("api-new").await), (401, 200));
}

#[tokio::test]
async fn messages_go_to_the_new_upstream_and_replies_of_the_old_are_finished() {
    let (writer, reply) = Reply::stream("text/event-stream");
    let reply = Arc::new(Mutex::new(Some(reply)));
    let once = move |_: &_| reply.lock().unwrap().take().unwrap_or(Reply::Hangup);
    let old = Upstream::start(once).await;
    let new = Upstream::start(|_: &_| Reply::json(200, &json!({"task_id": "of-the-new"}))).await;
    let gateway = Gateway::start(settings(&old.url("/"))).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    client.send_json(&json!({"message": "one"})).await;
    client.next_event("task_queued").await;
    client.next_event("processing_started").await;
    reload(&gateway, &settings(&new.url("/"))).await;
    assert_eq!(send_message(&mut client, "two").await["task_id"], "of-the-new");
    writer.write("data: still here\n\n");
    drop(writer);
    assert_eq!(client.next_event("chunk").await["chunk"], "still here");
    client.next_event("complete").await;
}

#[tokio::test]
async fn connections_of_a_changed_route_are_told_to_reconnect() {
    let other = "path = \"/ws/other/{id}/\"\nchannel = \"other_{id}\"\nauth = [\"anonymous\"]";
    let before = unreachable_upstream().route(other);
    let gateway = Gateway::start(&before).await;
    let (mut removed, _) = Client::connected(&gateway, "/ws/other/1/").await;
    let (mut moved, _) = Client::connected(&gateway, PATH).await;
    let moving = unreachable_upstream()
        .each_route(|route| route.replace("chat_{conversation_id}", "room_{conversation_id}"))
        .route("path = \"/ws/new/\"\nchannel = \"new\"\nauth = [\"anonymous\"]");
    reload(&gateway, &moving).await;
    for client in [&mut removed, &mut moved] {
        client.next_event("going_away").await;
        assert_eq!(client.closed().await, Some(1012));
    }
    Client::connected(&gateway, "/ws/new/").await;
    let (mut back, _) = Client::connected(&gateway, PATH).await;
    gateway.publish("room_42", json!({"event": "hello"})).await;
    back.next_event("hello").await;
    let refused = Client::try_open(gateway.addr(), "/ws/other/1/", &[]).await;
    assert_eq!(refused.err().map(|refused| refused.status), Some(404));
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_explained() {
    let before = unreachable_upstream();
    let gateway = Gateway::start(&before).await;
    let good = std::fs::read_to_string(gateway.config_file()).unwrap();
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    let broken = |old: &str, new: &str| {
        assert!(good.contains(old), "{good}");
        good.replace(old, new)
    };
    for (text, expected) in [
        ("[server\n".to_owned(), "line 1"),
        (String::new(), "route"),
        (broken("threads = 2", "threads = 2\nmax_conections = 5"), "max_conections"),
        (broken("http://127.0.0.1:1/", "ftp://127.0.0.1:1/"), "upstream.worker.url"),
        (broken("format = \"json\"", "format = \"json\"\nlevel = \"loud and clear\""), "log.level"),
    ] {
        std::fs::write(gateway.config_file(), text).unwrap();
        let event = read_again(&gateway, "config_rejected").await;
        assert!(event["why"].as_str().unwrap().contains(expected), "{event}");
        assert_eq!(event["level"], "ERROR");
        assert_eq!(gateway.metric("tidegate_config_last_reload_successful", &[]).await, 0.0);
        client.send_json(&json!({"type": "ping"})).await;
        client.next_event("pong").await;
    }
    std::fs::remove_file(gateway.config_file()).unwrap();
    read_again(&gateway, "config_rejected").await;
    std::fs::write(gateway.config_file(), good).unwrap();
    read_again(&gateway, "config_unchanged").await;
    assert_eq!(gateway.metric("tidegate_config_last_reload_successful", &[]).await, 1.0);
    let rejected = [("outcome", "rejected")];
    assert_eq!(gateway.metric("tidegate_config_reloads_total", &rejected).await, 6.0);
    Client::connected(&gateway, PATH).await;
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_the_rest_is_applied() {
    let gateway = Gateway::start(unreachable_upstream()).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    let changed = each_route(unreachable_upstream(), "max_message_chars = 3")
        .section("server", "listen = \"127.0.0.1:0\"\nthreads = 1\nreuse_port = true")
        .section("tokens", "ttl = \"5s\"");
    reload(&gateway, &changed).await;
    let needed = gateway.wait_for_event("config_restart_needed").await;
    assert_eq!(needed["keys"], "server.reuse_port server.threads tokens.ttl", "{needed}");
    assert_eq!(gateway.metric("tidegate_config_restart_needed", &[]).await, 1.0);
    assert_eq!(send_message(&mut client, "too long").await["code"], "message_too_long");
    reload(&gateway, &unreachable_upstream()).await;
    assert_eq!(gateway.metric("tidegate_config_restart_needed", &[]).await, 0.0);
}

#[tokio::test]
async fn a_changed_file_is_seen_without_a_signal() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    let watching = |more: &str| {
        each_route(Settings::chat("http://127.0.0.1:1/"), more)
            .section("reload", "watch = \"20ms\"")
            .section("jwt", &format!("keys = [{{ alg = \"HS256\", secret_file = {key:?} }}]"))
    };
    std::fs::write(&key, "a-key-of-thirty-two-bytes-or-more").unwrap();
    let gateway = Gateway::start(watching("")).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    write(&gateway, &watching("max_message_chars = 3"));
    let event = gateway.wait_for_event("config_reloaded").await;
    assert_eq!(event["changed"], "route");
    assert_eq!(send_message(&mut client, "too long").await["code"], "message_too_long");
    // The config refers to this file.
    std::fs::write(&key, "another-key-of-thirty-two-bytes-or-more").unwrap();
    until("second reload", async || {
        gateway
            .log_events("config_reloaded")
            .get(1)
            .map(|event| assert_eq!(event["changed"], "jwt"))
    })
    .await;
    // A mistake is logged once, however often the file is checked.
    std::fs::write(gateway.config_file(), "[server\n").unwrap();
    gateway.wait_for_event("config_rejected").await;
    std::fs::write(gateway.config_file(), "[other\n").unwrap();
    until("second refusal", async || (gateway.events("config_rejected") == 2).then_some(())).await;
}

#[tokio::test]
async fn the_log_level_is_changed() {
    let gateway = Gateway::start(unreachable_upstream()).await;
    Client::connected(&gateway, PATH).await;
    assert_eq!(gateway.events("connection_opened"), 0);
    reload(&gateway, &unreachable_upstream().also("log", "level = \"tidegate=debug,audit=info\""))
        .await;
    Client::connected(&gateway, PATH).await;
    gateway.wait_for_event("connection_opened").await;
}

#[tokio::test]
async fn a_removed_queue_is_disconnected() {
    let redis = Redis::start().await;
    let queue = |key: &str| {
        let lines = format!("kind = \"redis-list\"\nredis_url = {:?}\nkey = {key:?}", redis.url());
        unreachable_upstream().upstream("worker", &lines)
    };
    let gateway = Gateway::start(queue("first")).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    let queued = send_message(&mut client, "one").await;
    assert_eq!(queued["event"], "task_queued");
    reload(&gateway, &queue("second")).await;
    assert_eq!(send_message(&mut client, "two").await["event"], "task_queued");
    let mut commands = redis.connection().await;
    let lengths: (u64, u64) =
        redis::pipe().llen("first").llen("second").query_async(&mut commands).await.unwrap();
    assert_eq!(lengths, (1, 1));
    // A generation of the old upstream is monitored until its end.
    let end = json!({"event": "complete", "task_id": queued["task_id"]});
    gateway.publish("chat_42", end).await;
    // One connection of the test, and of the queue with its new settings one that is shared and one for each thread.
    until("end of the old connection", async || {
        let list: String = redis::cmd("CLIENT")
            .arg("LIST")
            .arg("TYPE")
            .arg("normal")
            .query_async(&mut commands)
            .await
            .unwrap();
        (list.lines().count() == 4).then_some(())
    })
    .await;
}
