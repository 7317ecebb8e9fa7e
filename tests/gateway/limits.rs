//! Limits: each refusal says when to retry, and all nodes count together.

use serde_json::{Value, json};

use crate::chat::{chat, open_to_all, relayed, session, session_with};
use crate::engine::Engine;
use crate::outcome::Outcome::{Closed, Connected};
use crate::outcome::{attempt, outcome};
use crate::rig::echo::{Echo, WebSocketServer};
use crate::rig::raw::{Received, handshake};
use crate::rig::{Client, Gateway, RawClient, Upstream, frame, until};

async fn signed_in(gateway: &Gateway, session: &str) -> Client {
    let cookie = format!("access_token={session}");
    attempt(gateway, "/ws/chat/42/", &[("cookie", &cookie)]).await.expect("a session")
}

async fn send_message(client: &mut Client, id: &str) -> Value {
    client.send_json(&json!({"message": "hello", "id": id})).await;
    client.next_json().await
}

#[track_caller]
fn assert_rate_limited(event: &Value, id: &str, most: u64) {
    assert_eq!(
        (&event["event"], &event["code"]),
        (&json!("error"), &json!("rate_limited")),
        "{event}"
    );
    assert_eq!(event["id"], id, "{event}");
    let wait = event["retry_after"].as_u64().expect("a retry_after in seconds");
    assert!((1..=most).contains(&wait), "{event}");
    assert!(event["error"].is_string(), "{event}");
}

async fn messages_of_a_user_are_counted_over_all_connections(engine: Engine) {
    let upstream = Upstream::accepting().await;
    let limits = "[route.limits]\nmessages_per_user = \"3/1h\"";
    let gateway = engine.start(relayed(&upstream.url("/"), limits)).await;
    let mut first = signed_in(&gateway, &session()).await;
    let mut second = signed_in(&gateway, &session()).await;
    for (client, id) in [(&mut first, "a"), (&mut second, "b")] {
        assert_eq!(send_message(client, id).await["event"], "task_queued");
    }
    assert_eq!(send_message(&mut first, "bb").await["event"], "task_queued");
    assert_rate_limited(&send_message(&mut first, "c").await, "c", 1200);
    assert_rate_limited(&send_message(&mut second, "d").await, "d", 1200);
    let mut other = signed_in(&gateway, &session_with(json!({"user_id": "7x"}))).await;
    assert_eq!(send_message(&mut other, "e").await["event"], "task_queued");
    assert_eq!(upstream.requests().len(), 4, "what is refused is not relayed");
}

async fn a_fixed_window_counts_under_the_key_of_another_application(engine: Engine) {
    let upstream = Upstream::accepting().await;
    let limits = "[route.limits]\ngenerations_per_user = 0\n\
        messages_per_user = { limit = \"4/1h\", window = \"fixed\", \
        key = \"app:1:rate_limit:messages:user:{user_id}\" }\n\
        connects_per_user = { limit = \"3/1m\", window = \"fixed\", key = \"app:1:ws_rate:user:{user_id}\" }";
    let gateway = engine.start(relayed(&upstream.url("/"), limits)).await;
    let mut client = signed_in(&gateway, &session()).await;
    let mut allowed = 4;
    if let Some(redis) = engine.server() {
        // Counted as Django's cache does it: the first message of this hour was sent through the REST API.
        let key = "app:1:rate_limit:messages:user:7";
        assert_eq!(redis.run::<Option<String>>(&["GET", key]).await, None);
        let () = redis.run(&["SET", key, "1", "EX", "1800"]).await;
        allowed = 3;
    }
    for id in ["a", "b", "c", "d"].into_iter().take(allowed) {
        assert_eq!(send_message(&mut client, id).await["event"], "task_queued");
    }
    assert_rate_limited(&send_message(&mut client, "e").await, "e", 3600);
    assert_eq!(upstream.requests().len(), allowed);
    if let Some(redis) = engine.server() {
        let keys = [
            ("app:1:rate_limit:messages:user:7", "4", 1790..=1800),
            ("app:1:ws_rate:user:7", "1", 50..=60),
        ];
        for (key, value, ttl) in keys {
            assert_eq!(redis.run::<String>(&["GET", key]).await, value);
            assert!(ttl.contains(&redis.run::<i64>(&["TTL", key]).await), "{key}");
        }
    }

    let cookie = format!("access_token={}", session());
    let cookie = [("cookie", cookie.as_str())];
    for expected in [Connected, Connected, Closed(4029)] {
        assert_eq!(outcome(&gateway, "/ws/chat/42/", &cookie).await, expected);
    }
}

#[tokio::test]
async fn a_counter_that_is_not_an_integer_admits_no_client() {
    let engine = Engine::redis().await;
    let limits = "[route.limits]\n\
        connects_per_user = { limit = \"3/1m\", window = \"fixed\", key = \"rate:{user_id}\" }";
    let gateway = engine.start(chat(limits)).await;
    let redis = engine.server().expect("a Redis");
    let () = redis.run(&["SET", "rate:7", "pickled"]).await;
    let cookie = format!("access_token={}", session());
    let refused = outcome(&gateway, "/ws/chat/42/", &[("cookie", &cookie)]).await;
    assert_eq!(refused, Closed(1013));
    assert!(gateway.wait_for_log("redis_refused").await.contains("not an integer"));
    assert_eq!(redis.run::<String>(&["GET", "rate:7"]).await, "pickled");
}

#[tokio::test]
async fn two_nodes_count_a_users_messages_together() {
    let engine = Engine::redis().await;
    let upstream = Upstream::accepting().await;
    let limits = "[route.limits]\nmessages_per_user = \"3/1h\"";
    let settings = relayed(&upstream.url("/"), limits);
    let (one, two) = (engine.start(settings.clone()).await, engine.start(settings).await);
    let mut on_one = signed_in(&one, &session()).await;
    let mut on_two = signed_in(&two, &session()).await;
    assert_eq!(send_message(&mut on_one, "a").await["event"], "task_queued");
    assert_eq!(send_message(&mut on_two, "b").await["event"], "task_queued");
    assert_eq!(send_message(&mut on_one, "c").await["event"], "task_queued");
    assert_rate_limited(&send_message(&mut on_two, "d").await, "d", 1200);
    assert_rate_limited(&send_message(&mut on_one, "e").await, "e", 1200);
    assert_eq!(upstream.requests().len(), 3);
}

#[tokio::test]
async fn messages_of_a_connection_are_counted_for_itself() {
    let upstream = Upstream::accepting().await;
    let lines = "auth = [\"anonymous\"]\n[route.limits]\nmessages_per_connection = \"2/1h\"";
    let gateway = Gateway::start(relayed(&upstream.url("/"), lines)).await;
    let (mut client, _) = Client::connected(&gateway, "/ws/chat/42/").await;
    for id in ["a", "b"] {
        assert_eq!(send_message(&mut client, id).await["event"], "task_queued");
    }
    assert_rate_limited(&send_message(&mut client, "c").await, "c", 1800);
    let (mut other, _) = Client::connected(&gateway, "/ws/chat/42/").await;
    assert_eq!(send_message(&mut other, "d").await["event"], "task_queued");
    let refused = [("limit", "messages_per_connection")];
    gateway.wait_for_metric("tidegate_limit_refusals_total", &refused, 1.0).await;
}

/// Sends messages until the connection is closed. Returns the events from `connected` on, and the close code.
async fn flood(gateway: &Gateway, frames: &[u8]) -> (Vec<Received>, Option<u16>) {
    let mut client = RawClient::open(gateway.addr(), "/ws/chat/42/").await;
    assert!(matches!(client.next().await, Received::Text(_)), "connected");
    // The connection may be closed before everything has been sent.
    let _ = client.try_write(frames).await;
    let mut received = Vec::new();
    loop {
        match client.next().await {
            Received::Close(code, _) => return (received, code),
            Received::End => panic!("ended without a close frame after {} frames", received.len()),
            other => received.push(other),
        }
    }
}

fn count(received: &[Received], needle: &str) -> usize {
    let has = |text: &[u8]| String::from_utf8_lossy(text).contains(needle);
    received.iter().filter(|received| matches!(received, Received::Text(text) if has(text))).count()
}

#[tokio::test]
async fn pings_are_answered_up_to_a_bound() {
    let gateway = Gateway::start(open_to_all()).await;
    let pings = frame::text(r#"{"type":"ping"}"#).bytes().repeat(500);
    let (received, code) = flood(&gateway, &pings).await;
    let (pongs, refused) = (count(&received, "\"pong\""), count(&received, "rate_limited"));
    assert!((20..250).contains(&pongs), "{pongs} pongs");
    assert!((30..250).contains(&refused), "{refused} refusals");
    assert_eq!(count(&received, "retry_after"), refused);
    assert_eq!(code, Some(1008));

    let (_, code) = flood(&gateway, &frame::ping("x").bytes().repeat(500)).await;
    assert_eq!(code, Some(1008));
}

#[tokio::test]
async fn a_client_that_continues_after_refusals_is_closed() {
    let gateway = Gateway::start(open_to_all()).await;
    for (text, code) in
        [("rubbish", "invalid_json"), ("{}", "empty_message"), (r#"{"message":"m"}"#, "forbidden")]
    {
        let frames = frame::text(text).bytes().repeat(500);
        let (received, closed) = flood(&gateway, &frames).await;
        assert_eq!(closed, Some(1008), "{text}");
        let refusals = count(&received, code) + count(&received, "rate_limited");
        assert!((30..250).contains(&refusals), "{refusals} refusals of {text}");
        assert_eq!(refusals, received.len(), "{text}");
    }
}

async fn open_connections_of_a_user_are_bounded_and_given_back(engine: Engine) {
    let limits = "[route.limits]\nconnections_per_user = 2\nconnects_per_user = \"off\"";
    let gateway = engine.start(chat(limits)).await;
    let cookie = format!("access_token={}", session());
    let cookie = [("cookie", cookie.as_str())];
    let first = signed_in(&gateway, &session()).await;
    let mut second = signed_in(&gateway, &session()).await;
    let mut third = Client::open(gateway.addr(), "/ws/chat/42/", &cookie).await;
    let error = third.next_event("error").await;
    assert!(error["retry_after"].as_u64().is_some_and(|wait| wait >= 1), "{error}");
    assert_eq!(third.closed().await, Some(4029));
    let _other_user = signed_in(&gateway, &session_with(json!({"user_id": 8}))).await;

    // One closes without a close frame, the other with one.
    drop(first);
    second.close(1000, "").await;
    assert_eq!(second.closed().await, Some(1000));
    let connect = async || attempt(&gateway, "/ws/chat/42/", &cookie).await.ok();
    let _fourth = until("a free connection", connect).await;
    let _fifth = until("another free connection", connect).await;
    assert_eq!(outcome(&gateway, "/ws/chat/42/", &cookie).await, Closed(4029));
}

async fn a_client_that_disconnects_before_its_answer_is_not_counted(engine: Engine) {
    let limits = "[route.limits]\nconnections_per_user = 2\nconnects_per_user = \"off\"";
    let gateway = engine.start(chat(limits)).await;
    let cookie = format!("access_token={}", session());
    let cookie = [("cookie", cookie.as_str())];
    let request = handshake("/ws/chat/42/", &cookie);
    for _ in 0..40 {
        let mut client = RawClient::connect(gateway.addr()).await;
        client.write(request.as_bytes()).await;
        client.reset();
        let mut client = RawClient::connect(gateway.addr()).await;
        client.write(request.as_bytes()).await;
        client.shutdown().await;
    }
    let connect = async || attempt(&gateway, "/ws/chat/42/", &cookie).await.ok();
    let _first = until("a free connection", connect).await;
    let _second = until("another free connection", connect).await;
}

#[tokio::test]
async fn two_nodes_count_a_users_connections_together() {
    let engine = Engine::redis().await;
    let limits = "[route.limits]\nconnections_per_user = 2\nconnects_per_user = \"off\"";
    let (one, two) = (engine.start(chat(limits)).await, engine.start(chat(limits)).await);
    let cookie = format!("access_token={}", session());
    let cookie = [("cookie", cookie.as_str())];
    let first = signed_in(&one, &session()).await;
    let _second = signed_in(&two, &session()).await;
    for node in [&one, &two] {
        assert_eq!(outcome(node, "/ws/chat/42/", &cookie).await, Closed(4029));
    }
    drop(first);
    let _third = until("the connection that the other node released", async || {
        attempt(&two, "/ws/chat/42/", &cookie).await.ok()
    })
    .await;
}

async fn connects_of_a_user_are_bounded(engine: Engine) {
    let limits = "[route.limits]\nconnects_per_user = \"3/1h\"\nconnections_per_user = 0";
    let gateway = engine.start(chat(limits)).await;
    let cookie = format!("access_token={}", session());
    let cookie = [("cookie", cookie.as_str())];
    for _ in 0..3 {
        assert_eq!(outcome(&gateway, "/ws/chat/42/", &cookie).await, Connected);
    }
    assert_eq!(outcome(&gateway, "/ws/chat/42/", &cookie).await, Closed(4029));
    let mut refused = Client::open(gateway.addr(), "/ws/chat/42/", &cookie).await;
    let error = refused.next_event("error").await;
    assert!(
        error["retry_after"].as_u64().is_some_and(|wait| (1..=1200).contains(&wait)),
        "{error}"
    );
    let refused = [("limit", "connects_per_user")];
    assert_eq!(gateway.metric("tidegate_limit_refusals_total", &refused).await, 2.0);
    let _other_user = signed_in(&gateway, &session_with(json!({"user_id": 8}))).await;
}

/// Nothing can be answered on a raw route, and no message may be missing behind another: the client is closed.
async fn a_raw_message_over_the_limit_of_its_user_closes_the_client(engine: Engine) {
    let mut server = WebSocketServer::start().await;
    let settings = chat("").each_route(|_| {
        "path = \"/raw\"\nchannel = \"raw\"\nupstream = \"socket\"\nprotocol = \"raw\"\nauth = [\"cookie\"]\n\
         [route.limits]\nmessages_per_user = \"3/1h\"\n"
            .to_owned()
    });
    let upstream = format!("kind = \"websocket\"\nurl = \"{}\"", server.url());
    let gateway = engine.start(settings.upstream("socket", &upstream)).await;
    let cookie = format!("access_token={}", session());
    let open = async || Client::open(gateway.addr(), "/raw", &[("cookie", &cookie)]).await;
    let (mut first, mut second) = (open().await, server.accept().await.socket);
    for text in ["a", "b", "c", "d", "e"] {
        first.send_text(text).await;
    }
    for text in ["a", "b", "c"] {
        assert_eq!(second.next_text().await, text);
    }
    assert_eq!(second.closed().await, Some(1008), "what follows the refused message is not sent");
    assert_eq!(first.closed().await, Some(1008));
    // The limit is that of the user, over all connections.
    let (mut third, mut fourth) = (open().await, server.accept().await.socket);
    third.send_text("f").await;
    assert_eq!(third.closed().await, Some(1008));
    assert_eq!(fourth.closed().await, Some(1008));
    let refused = [("limit", "messages_per_user")];
    assert_eq!(gateway.metric("tidegate_limit_refusals_total", &refused).await, 2.0);
}

/// The limits of a chat suit no other application.
#[tokio::test]
async fn a_raw_route_has_no_limits_of_a_chat() {
    let echo = Echo::start().await;
    let settings = chat("").each_route(|_| {
        "path = \"/raw\"\nchannel = \"raw\"\nupstream = \"socket\"\nprotocol = \"raw\"\nauth = [\"cookie\"]\n"
            .to_owned()
    });
    let upstream = format!("kind = \"websocket\"\nurl = \"{}\"", echo.url());
    let gateway = Gateway::start(settings.upstream("socket", &upstream)).await;
    let cookie = format!("access_token={}", session());
    let mut client = Client::open(gateway.addr(), "/raw", &[("cookie", &cookie)]).await;
    for number in 0..300 {
        client.send_text(&number.to_string()).await;
        assert_eq!(client.next_text().await, number.to_string());
    }
    let large = "x".repeat(1 << 20);
    client.send_text(&large).await;
    assert_eq!(client.next_text().await, large);
}

on_both_engines!(
    a_raw_message_over_the_limit_of_its_user_closes_the_client,
    messages_of_a_user_are_counted_over_all_connections,
    a_fixed_window_counts_under_the_key_of_another_application,
    open_connections_of_a_user_are_bounded_and_given_back,
    a_client_that_disconnects_before_its_answer_is_not_counted,
    connects_of_a_user_are_bounded,
);
