//! An open connection: its first frame, the answers to what it sends, and every way it ends.

use serde_json::{Value, json};

use crate::chat::{SECRET, chat, open_to_all, relayed, session_with};
use crate::engine::Engine;
use crate::outcome::attempt;
use crate::rig::raw::Received;
use crate::rig::{Client, Event, Gateway, RawClient, Settings, Upstream, frame, http, jwt};

const PING: &str = r#"{"type":"ping"}"#;

async fn connected_is_the_first_frame_and_has_the_user_and_the_channel(engine: Engine) {
    let route = "path = \"/rooms/{room}/seats/{seat}/\"\nchannel = \"room_{room}\"\n\
                 auth = [\"connection_token\", \"anonymous\"]";
    let gateway = engine.start(Settings::new().route(route)).await;
    let (_one, first) = Client::connected(&gateway, "/rooms/blue/seats/7/").await;
    let (_two, second) = Client::connected(&gateway, "/rooms/blue/seats/7/").await;
    assert_eq!((&first["room"], &first["seat"]), (&json!("blue"), &json!("7")), "{first}");
    assert_eq!(first["user_id"], Value::Null, "{first}");
    let id = first["connection_id"].as_str().expect("a connection_id");
    assert!(!id.is_empty() && second["connection_id"] != id, "{first} {second}");
    let token = gateway.token(json!({"user_id": "u-1"})).await;
    let path = format!("/rooms/blue/seats/7/?connection_token={token}");
    let (_three, third) = Client::connected(&gateway, &path).await;
    assert_eq!(third["user_id"], "u-1");
}

async fn publications_follow_connected(engine: Engine) {
    let gateway = engine.start(open_to_all()).await;
    let (mut one, _) = Client::connected(&gateway, "/ws/chat/42/").await;
    let (mut two, _) = Client::connected(&gateway, "/ws/chat/42/").await;
    let (mut elsewhere, _) = Client::connected(&gateway, "/ws/chat/43/").await;
    for number in 0..20 {
        gateway.publish("chat_42", json!({"event": "chunk", "number": number})).await;
    }
    gateway.publish("chat_43", json!({"event": "chunk", "number": "other"})).await;
    for client in [&mut one, &mut two] {
        for number in 0..20 {
            assert_eq!(client.next_event("chunk").await["number"], number);
        }
    }
    assert_eq!(elsewhere.next_event("chunk").await["number"], "other");
}

#[tokio::test]
async fn each_bad_message_is_answered_and_the_socket_stays_open() {
    let upstream = Upstream::accepting().await;
    let gateway = Gateway::start(relayed(&upstream.url("/"), "auth = [\"anonymous\"]")).await;
    let (mut client, _) = Client::connected(&gateway, "/ws/chat/42/").await;
    let too_long = json!({"message": "ü".repeat(10_001), "id": "long"}).to_string();
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    let too_deep = format!(r#"{{"message":"m","x":{}{}}}"#, "[".repeat(127), "]".repeat(127));
    for (text, code) in [
        ("", "invalid_json"),
        ("rubbish", "invalid_json"),
        (r#"{"message":"m""#, "invalid_json"),
        (r#"{"message":"m"} {}"#, "invalid_json"),
        (r#"{"message":"m","x":1e999}"#, "invalid_json"),
        (r#"{"message":"m","x":99999999999999999999}"#, "invalid_json"),
        (&too_deep, "invalid_json"),
        (r#"{"message":"m","message":"n"}"#, "invalid_json"),
        ("{\"message\":\"raw\u{1}control\"}", "invalid_json"),
        ("7", "invalid_json"),
        ("null", "invalid_json"),
        ("\"message\"", "invalid_json"),
        (r#"["message"]"#, "invalid_json"),
        (&deep, "invalid_json"),
        (r#"{"message":"m","id":7}"#, "invalid_json"),
        (r#"{"message":"m","id":""}"#, "invalid_json"),
        ("{}", "empty_message"),
        (r#"{"type":"unknown"}"#, "empty_message"),
        (r#"{"message":""}"#, "empty_message"),
        (r#"{"message":" \n\t "}"#, "empty_message"),
        (r#"{"message":null}"#, "empty_message"),
        (r#"{"message":7}"#, "empty_message"),
        (r#"{"message":["m"]}"#, "empty_message"),
        (r#"{"message":{"text":"m"}}"#, "empty_message"),
        (&too_long, "message_too_long"),
    ] {
        client.send_text(text).await;
        let shown: String = text.chars().take(40).collect();
        let event = client.next_json().await;
        assert_eq!((&event["event"], &event["code"]), (&json!("error"), &json!(code)), "{shown}");
        assert!(event["error"].as_str().is_some_and(|text| !text.is_empty()), "{event}");
    }
    assert!(upstream.requests().is_empty(), "a bad message was relayed");
    client.send_text(PING).await;
    client.next_event("pong").await;
    let longest = "ü".repeat(10_000);
    client.send_json(&json!({"message": longest})).await;
    client.next_event("task_queued").await;
    assert_eq!(upstream.next_request().await.json()["message"], longest);
}

#[tokio::test]
async fn a_message_over_the_size_ends_the_connection() {
    let gateway = Gateway::start(open_to_all()).await;
    let (mut client, _) = Client::connected(&gateway, "/ws/chat/42/").await;
    client.send_json(&json!({"message": "m", "more": "x".repeat(1 << 20)})).await;
    assert_eq!(client.closed().await, Some(1009));
}

#[tokio::test]
async fn a_binary_message_ends_the_connection() {
    let gateway = Gateway::start(open_to_all()).await;
    let (mut client, _) = Client::connected(&gateway, "/ws/chat/42/").await;
    client.send_binary(PING.as_bytes()).await;
    assert_eq!(client.closed().await, Some(1003));
}

#[tokio::test]
async fn a_route_without_an_upstream_takes_no_messages() {
    let gateway = Gateway::start(open_to_all()).await;
    let (mut client, _) = Client::connected(&gateway, "/ws/chat/42/").await;
    client.send_json(&json!({"message": "m", "id": "mine"})).await;
    let error = client.next_event("error").await;
    assert_eq!((&error["code"], &error["id"]), (&json!("forbidden"), &json!("mine")));
    client.send_text(PING).await;
    client.next_event("pong").await;
}

#[tokio::test]
async fn a_peer_that_shows_no_sign_of_life_is_closed() {
    let lines = "auth = [\"anonymous\"]\nidle_ping = \"300ms\"\npong_timeout = \"300ms\"";
    let gateway = Gateway::start(chat(lines)).await;
    let mut silent = RawClient::open(gateway.addr(), "/ws/chat/42/").await;
    assert!(matches!(silent.next().await, Received::Text(_)), "connected");
    assert!(matches!(silent.next().await, Received::Ping(_)), "a ping");
    assert_eq!(silent.read_close().await, Some(4009));
    let closed = gateway.wait_for_event("connection_closed").await;
    assert_eq!(closed["code"], 4009, "{closed}");
}

#[tokio::test]
async fn a_peer_that_answers_pings_stays() {
    let lines = "auth = [\"anonymous\"]\nidle_ping = \"300ms\"\npong_timeout = \"5s\"";
    let gateway = Gateway::start(chat(lines)).await;
    let mut client = RawClient::open(gateway.addr(), "/ws/chat/42/").await;
    assert!(matches!(client.next().await, Received::Text(_)), "connected");
    for _ in 0..5 {
        let Received::Ping(payload) = client.next().await else { panic!("no ping") };
        client.send(&frame::pong(payload)).await;
    }
    client.send(&frame::text(PING)).await;
    client.expect(Received::Text(br#"{"event":"pong"}"#.to_vec())).await;
}

#[tokio::test]
async fn a_half_open_connection_is_forgotten() {
    let lines = "auth = [\"anonymous\"]\nidle_ping = \"100ms\"\npong_timeout = \"100ms\"";
    let gateway = Gateway::start(chat(lines)).await;
    let mut silent = RawClient::open(gateway.addr(), "/ws/chat/42/").await;
    // It stops in the middle of a frame: neither bytes nor an end follow.
    silent.write(&frame::text(PING).bytes()[..4]).await;
    let closed = gateway.wait_for_event("connection_closed").await;
    assert_eq!(closed["code"], 4009, "{closed}");
    gateway.wait_for_metric("tidegate_connections", &[], 0.0).await;
    drop(silent);
}

#[tokio::test]
async fn the_end_of_the_stream_ends_the_session() {
    let gateway = Gateway::start(open_to_all()).await;
    for begun in [0, 1, 5] {
        let mut client = RawClient::open(gateway.addr(), "/ws/chat/42/").await;
        assert!(matches!(client.next().await, Received::Text(_)), "connected");
        client.write(&frame::text(PING).bytes()[..begun]).await;
        client.shutdown().await;
        client.expect(Received::End).await;
        gateway.wait_for_metric("tidegate_connections", &[], 0.0).await;
    }
}

async fn expired_credentials_end_the_session(engine: Engine) {
    let gateway = engine.start(chat("").also("jwt", "leeway = \"0s\"")).await;
    let token = gateway.token(json!({"user_id": 1, "session_expires_in": 2})).await;
    let path = format!("/ws/chat/42/?connection_token={token}");
    let (mut by_record, _) = Client::connected(&gateway, &path).await;

    let session = || session_with(json!({"exp": jwt::in_seconds(2)}));
    let cookie = format!("access_token={}", session());
    let mut by_jwt =
        attempt(&gateway, "/ws/chat/42/", &[("cookie", &cookie)]).await.expect("a session");

    // A token is valid no longer than the session that it was issued for.
    let bearer = format!("Bearer {}", session());
    let issue = "/api/v1/auth/ws-connection-token/";
    let headers = [("authorization", bearer.as_str())];
    let answer = http::post(gateway.addr(), issue, &headers, &json!({})).await;
    let token = answer.json()["connection_token"].as_str().expect("a token").to_owned();
    let path = format!("/ws/chat/42/?connection_token={token}");
    let (mut by_token, _) = Client::connected(&gateway, &path).await;

    let lasting = jwt::hs256(SECRET, &json!({"user_id": 1, "exp": jwt::in_seconds(600)}));
    let cookie = format!("access_token={lasting}");
    let mut stays =
        attempt(&gateway, "/ws/chat/42/", &[("cookie", &cookie)]).await.expect("a session");

    for client in [&mut by_record, &mut by_jwt, &mut by_token] {
        assert_eq!(client.closed().await, Some(4001));
    }
    stays.send_text(PING).await;
    stays.next_event("pong").await;
}

async fn a_client_that_never_reads_is_closed_and_nobody_waits_for_it(engine: Engine) {
    let lines = "auth = [\"anonymous\"]\nsend_queue = { messages = 64, bytes = \"1MiB\" }";
    let gateway = engine.start(chat(lines)).await;
    let mut slow = RawClient::open(gateway.addr(), "/ws/chat/42/").await;
    let (mut other, _) = Client::connected(&gateway, "/ws/chat/42/").await;
    // This is more than the kernel buffers at both ends of a connection.
    let filling = "x".repeat(512 << 10);
    for number in 0..32 {
        gateway.publish("chat_42", json!({"event": "chunk", "n": number, "x": filling})).await;
        assert_eq!(other.next_event("chunk").await["n"], number);
    }
    let mut received = 0;
    let code = loop {
        match slow.next().await {
            Received::Text(_) => received += 1,
            Received::Close(code, _) => break code,
            other => panic!("neither text nor close: {other:?}"),
        }
    };
    assert_eq!(code, Some(4008));
    assert!(received < 32, "{received} messages");
    slow.send(&frame::close(4008, "")).await;
    slow.expect(Received::End).await;
    drop(slow);
    let too_slow = [("reason", "too_slow")];
    gateway.wait_for_metric("tidegate_closes_total", &too_slow, 1.0).await;
    gateway.publish("chat_42", json!({"event": "chunk", "n": "last"})).await;
    assert_eq!(other.next_event("chunk").await["n"], "last");
}

#[tokio::test]
async fn a_goodbye_is_answered_and_nothing_follows_it() {
    let gateway = Gateway::start(open_to_all()).await;
    for (code, answer) in [(1000, 1000), (1001, 1001), (4000, 4000)] {
        let (mut client, _) = Client::connected(&gateway, "/ws/chat/42/").await;
        client.close(code, "bye").await;
        let Event::Closed(found, _) = client.next().await else { panic!("no close frame") };
        assert_eq!(found, Some(answer));
    }
    gateway.wait_for_metric("tidegate_connections", &[], 0.0).await;
}

on_both_engines!(
    connected_is_the_first_frame_and_has_the_user_and_the_channel,
    publications_follow_connected,
    expired_credentials_end_the_session,
    a_client_that_never_reads_is_closed_and_nobody_waits_for_it,
);

/// Expects a time as `datetime.utcnow().isoformat() + "Z"` writes it.
#[track_caller]
fn assert_stamped(event: &Value) {
    let text = event["timestamp"].as_str().unwrap_or_else(|| panic!("no timestamp: {event}"));
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000000Z", "{event}");
}

#[tokio::test]
async fn the_gateways_own_events_carry_the_time_where_that_is_asked_for() {
    let upstream = Upstream::accepting().await;
    let lines = "auth = [\"anonymous\"]\ntimestamps = true\n[route.history]\nsize = 0";
    let gateway = Gateway::start(relayed(&upstream.url("/"), lines)).await;
    let (mut client, connected) = Client::connected(&gateway, "/ws/chat/42/").await;
    assert_stamped(&connected);
    for (frame, event) in
        [(PING, "pong"), ("no JSON", "error"), (r#"{"message":"hi"}"#, "task_queued")]
    {
        client.send_text(frame).await;
        let answer = client.next_json().await;
        assert_eq!(answer["event"], event, "{answer}");
        assert_stamped(&answer);
    }
    gateway.publish("chat_42", json!({"event": "chunk", "chunk": "a"})).await;
    assert_eq!(client.next_json().await, json!({"event": "chunk", "chunk": "a"}));

    let limits = "timestamps = true\n[route.limits]\nconnects_per_user = \"1/1h\"";
    let gateway = Gateway::start(chat(limits)).await;
    let cookie = format!("access_token={}", session_with(json!({})));
    let cookie = [("cookie", cookie.as_str())];
    attempt(&gateway, "/ws/chat/42/", &cookie).await.expect("a session");
    let mut refused = Client::open(gateway.addr(), "/ws/chat/42/", &cookie).await;
    assert_stamped(&refused.next_event("error").await);
    assert_eq!(refused.closed().await, Some(4029));
}
