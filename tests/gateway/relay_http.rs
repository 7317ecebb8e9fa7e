//! Messages to an HTTP upstream: the requests, the effect of each answer, and that a streamed reply
//! always ends exactly once.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::rig::upstream::{Recorded, in_turn};
use super::rig::{
    API_KEY, Client, Gateway, RawClient, Reply, Settings, Upstream, frame, http, until,
};

const PATH: &str = "/ws/chat/42/";

fn settings(upstream: &Upstream, more: &str) -> Settings {
    let url = upstream.url("/chat/{conversation_id}");
    Settings::chat(&url).upstream("worker", &format!("kind = \"http\"\nurl = {url:?}\n{more}"))
}

async fn send_message(client: &mut Client, text: &str) -> Value {
    client.send_json(&json!({ "message": text })).await;
    client.next_json().await
}

/// Expects `task_queued` next and returns its task id.
async fn expect_queued(client: &mut Client) -> String {
    let event = client.next_event("task_queued").await;
    event["task_id"].as_str().expect("a task id").to_owned()
}

/// Expects that nothing else arrives before the answer to a ping.
async fn expect_nothing_more(client: &mut Client) {
    client.send_json(&json!({"type": "ping"})).await;
    client.next_event("pong").await;
}

#[tokio::test]
async fn the_request_has_the_user_the_message_and_the_channel() {
    let upstream = Upstream::accepting().await;
    let settings = settings(&upstream, "signing_secret = \"s3cret\"")
        .also("server", "trusted_proxies = [\"127.0.0.1/32\"]");
    let gateway = Gateway::start(settings).await;
    let token = gateway.token(json!({"user_id": 7, "username": "ana"})).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traceparent = format!("00-{trace}-00f067aa0ba902b7-01");
    let mut client = Client::open(
        gateway.addr(),
        &format!("{PATH}?connection_token={token}"),
        &[("traceparent", &traceparent)],
    )
    .await;
    let connected = client.next_event("connected").await;
    // Unknown fields, unusual numbers and escapes are passed on unchanged.
    let sent = r#"{"message":"  hé\u006clo ","id":"m 1","extra":{"b": 1.50,"a":[1e2]},"type":"x"}"#;
    client.send_text(sent).await;
    let task_id = {
        let event = client.next_event("task_queued").await;
        assert_eq!(event["id"], "m 1", "{event}");
        event["task_id"].as_str().expect("a task id").to_owned()
    };

    let request = upstream.next_request().await;
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/chat/42"));
    let body = String::from_utf8(request.body.to_vec()).unwrap();
    assert!(body.contains(&format!("\"data\":{sent}")), "{body}");
    let mut json = request.json();
    json.as_object_mut().unwrap().remove("data");
    assert_eq!(
        json,
        json!({
            "message": "hello".replace('e', "é"),
            "channel": "chat_42",
            "params": {"conversation_id": "42"},
            "user": {"id": 7, "name": "ana"},
            "connection_id": connected["connection_id"],
            "request_id": trace,
            "message_id": "m 1",
            "task_id": task_id,
        })
    );
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("idempotency-key"), Some("7:m%201"));
    assert_eq!(request.header("x-request-id"), Some(task_id.as_str()));
    let continued = request.header("traceparent").expect("a traceparent");
    assert!(continued.starts_with(&format!("00-{trace}-")), "{continued}");
    assert_ne!(continued, traceparent, "a span of its own");
    verify_signature(&request, "s3cret");
}

/// Verifies the signature as the documentation tells upstreams to do.
pub fn verify_signature(request: &Recorded, secret: &str) {
    let header = request.header("x-tidegate-signature").expect("a signature");
    let (time, signature) = header.split_once(",v1=").expect("t=…,v1=…");
    let time = time.strip_prefix("t=").expect("a time");
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{time}.").as_bytes());
    mac.update(&request.body);
    let signature: Vec<u8> = (0..signature.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&signature[at..at + 2], 16).expect("hex"))
        .collect();
    mac.verify_slice(&signature).expect("the upstream can verify the signature");
}

#[tokio::test]
async fn an_anonymous_client_has_no_user_and_fresh_keys() {
    let upstream = Upstream::accepting().await;
    let gateway = Gateway::start(settings(&upstream, "")).await;
    let (mut client, connected) = Client::connected(&gateway, PATH).await;
    let mut keys = Vec::new();
    for _ in 0..2 {
        client.send_json(&json!({"message": "same"})).await;
        let task_id = expect_queued(&mut client).await;
        let request = upstream.next_request().await;
        assert_eq!(request.json()["user"], Value::Null);
        assert_eq!(request.json()["message_id"], task_id.as_str());
        assert_eq!(request.header("x-tidegate-signature"), None);
        let connection = connected["connection_id"].as_str().unwrap();
        let key = request.header("idempotency-key").unwrap().to_owned();
        assert_eq!(key, format!("{connection}:{task_id}"));
        keys.push(key);
    }
    assert_ne!(keys[0], keys[1]);
}

#[tokio::test]
async fn every_success_queues_a_task() {
    let html = Reply::Answer {
        status: 200,
        headers: vec![("content-type", "text/html".to_owned())],
        body: "<html>".into(),
    };
    let upstream = Upstream::start(in_turn([
        Reply::json(202, &json!({"task_id": "from-worker"})),
        Reply::json(200, &json!({"task_id": 17})),
        Reply::status(202),
        Reply::status(204),
        html,
        Reply::json(200, &json!(["no", "object"])),
    ]))
    .await;
    let gateway = Gateway::start(settings(&upstream, "")).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    for given in [Some("from-worker"), Some("17"), None, None, None, None] {
        client.send_json(&json!({"message": "hi"})).await;
        let task_id = expect_queued(&mut client).await;
        let request = upstream.next_request().await;
        let ours = request.json()["task_id"].as_str().unwrap().to_owned();
        assert_eq!(task_id, given.unwrap_or(&ours));
    }
    expect_nothing_more(&mut client).await;
}

#[tokio::test]
async fn a_streamed_reply_arrives_in_order_and_ends_once() {
    for (kind, wrap) in [
        ("text/event-stream; charset=utf-8", ("data: ", "\n\n")),
        ("application/x-ndjson", ("", "\n")),
    ] {
        let (stream, reply) = Reply::stream(kind);
        let upstream = Upstream::start(in_turn([reply])).await;
        let gateway = Gateway::start(settings(&upstream, "").without_history()).await;
        let (mut client, _) = Client::connected(&gateway, PATH).await;
        client.send_json(&json!({"message": "tell me"})).await;
        let task_id = expect_queued(&mut client).await;
        let started = client.next_event("processing_started").await;
        assert_eq!(started["task_id"], task_id.as_str());
        for number in 0..20 {
            // Each event arrives before the next piece is sent, and a piece need not be a whole event.
            let event = format!("{}{{\"event\":\"chunk\",\"n\":{number}}}{}", wrap.0, wrap.1);
            let (first, second) = event.split_at(event.len() / 2);
            assert!(stream.write(first.to_owned()) && stream.write(second.to_owned()));
            let expected =
                format!("{{\"event\":\"chunk\",\"n\":{number},\"task_id\":\"{task_id}\"}}");
            assert_eq!(client.next_text().await, expected);
        }
        assert!(stream.write(format!("{}{{\"tokens\":3}}{}", wrap.0, wrap.1)));
        assert_eq!(
            client.next_json().await,
            json!({"event": "chunk", "chunk": {"tokens": 3}, "task_id": task_id}),
            "an object without an event is a chunk"
        );
        drop(stream);
        let end = client.next_event("complete").await;
        assert_eq!(end["task_id"], task_id.as_str(), "{kind}");
        expect_nothing_more(&mut client).await;
    }
}

/// Whatever the upstream writes, a client can tell which reply an event belongs to.
#[tokio::test]
async fn every_event_of_a_streamed_reply_has_a_task_id() {
    let (stream, reply) = Reply::stream("text/event-stream");
    let upstream = Upstream::start(in_turn([reply])).await;
    let gateway = Gateway::start(settings(&upstream, "").without_history()).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    client.send_json(&json!({"message": "hi"})).await;
    let task_id = expect_queued(&mut client).await;
    client.next_event("processing_started").await;
    let added = format!(",\"task_id\":\"{task_id}\"}}");
    for (written, head) in [
        ("data: plain", r#"{"event":"chunk","chunk":"plain""#),
        ("data: {}", r#"{"event":"chunk","chunk":{}"#),
        ("event: ping\ndata: {}", r#"{"event":"ping""#),
        ("event: usage\ndata: { \"n\": 1.50 }  ", r#"{"event":"usage","n": 1.50 "#),
        ("data: {\"task_id\":\"nested\"}", r#"{"event":"chunk","chunk":{"task_id":"nested"}"#),
        (
            r#"data: {"event":"e","data":{"task_id":"nested"}}"#,
            r#"{"event":"e","data":{"task_id":"nested"}"#,
        ),
        (r#"data: {"event":"e","task_id":null} "#, r#"{"event":"e","task_id":null"#),
        (r#"data: {"event":"e","task_id":["x"]}"#, r#"{"event":"e","task_id":["x"]"#),
    ] {
        assert!(stream.write(format!("{written}\n\n")));
        assert_eq!(client.next_text().await, format!("{head}{added}"), "{written}");
    }
    for own in [r#"{"task_id":"own","event":"e"}"#, r#"{"event":"e","task_id":7}"#] {
        assert!(stream.write(format!("data: {own}\n\n")));
        assert_eq!(client.next_text().await, own, "an id of the upstream is not replaced");
    }
    assert!(stream.write("event: complete\ndata: {}\n\n"));
    assert_eq!(client.next_text().await, format!("{{\"event\":\"complete\"{added}"));
    expect_nothing_more(&mut client).await;
}

#[tokio::test]
async fn the_upstreams_own_terminal_event_is_the_only_one() {
    for terminal in ["complete", "completed", "error", "cancelled"] {
        let (stream, reply) = Reply::stream("text/event-stream");
        let upstream = Upstream::start(in_turn([reply])).await;
        let gateway = Gateway::start(settings(&upstream, "").without_history()).await;
        let (mut client, _) = Client::connected(&gateway, PATH).await;
        client.send_json(&json!({"message": "hi"})).await;
        let task_id = expect_queued(&mut client).await;
        client.next_event("processing_started").await;
        let end = format!("{{\"event\":\"{terminal}\",\"of\":\"the worker\"}}");
        // The `processing_started` of the worker is not repeated, and nothing after its end is passed on.
        stream.write("data: {\"event\":\"processing_started\"}\n\n");
        stream.write(format!("data: {end}\n\ndata: {{\"event\":\"chunk\",\"late\":1}}\n\n"));
        let expected =
            format!("{{\"event\":\"{terminal}\",\"of\":\"the worker\",\"task_id\":\"{task_id}\"}}");
        assert_eq!(client.next_text().await, expected);
        stream.closed().await;
        gateway
            .wait_for_metric("tidegate_upstream_in_flight", &[("upstream", "worker")], 0.0)
            .await;
        expect_nothing_more(&mut client).await;
    }
}

/// On a route whose list has no `complete`, it is an event like others, and the gateway adds no second one.
#[tokio::test]
async fn a_complete_of_the_upstream_is_the_only_one() {
    for (ends, expected) in [
        (&["complete"][..], &["complete"][..]),
        (&["complete", "chunk"], &["complete", "chunk"]),
        (&["complete", "chunk", "done", "late"], &["complete", "chunk", "done"]),
        (&["chunk"], &["chunk", "complete"]),
        (&["cancelled"], &["cancelled"]),
    ] {
        let (stream, reply) = Reply::stream("application/x-ndjson");
        let upstream = Upstream::start(in_turn([reply])).await;
        let settings = settings(&upstream, "").without_history().each_route(|route| {
            format!("{route}[route.generations]\nterminal_events = [\"done\"]\n")
        });
        let gateway = Gateway::start(settings).await;
        let (mut client, _) = Client::connected(&gateway, PATH).await;
        client.send_json(&json!({"message": "hi"})).await;
        expect_queued(&mut client).await;
        client.next_event("processing_started").await;
        let lines = ends.iter().map(|event| format!("{{\"event\":\"{event}\"}}\n"));
        stream.write(lines.collect::<String>());
        drop(stream);
        for event in expected {
            assert_eq!(client.next_json().await["event"], *event, "{ends:?}");
        }
        gateway
            .wait_for_metric("tidegate_generations_total", &[("outcome", "completed")], 1.0)
            .await;
        expect_nothing_more(&mut client).await;
    }
}

#[tokio::test]
async fn a_worker_that_dies_in_its_reply_is_reported_once() {
    for (kind, chunk) in [
        ("text/event-stream", "data: {\"event\":\"chunk\",\"n\":1}\n\ndata: {\"ev"),
        ("application/x-ndjson", "{\"event\":\"chunk\",\"n\":1}\n{\"ev"),
    ] {
        let (broken, broken_reply) = Reply::stream(kind);
        let (unfinished, unfinished_reply) = Reply::stream(kind);
        let upstream = Upstream::start(in_turn([broken_reply, unfinished_reply])).await;
        let gateway = Gateway::start(settings(&upstream, "")).await;
        let (mut client, _) = Client::connected(&gateway, PATH).await;
        let ends: [(_, fn(_)); 2] = [
            (broken, |stream| super::rig::upstream::StreamWriter::abort(stream)),
            (unfinished, drop),
        ];
        for (stream, end) in ends {
            client.send_json(&json!({"message": "hi"})).await;
            let task_id = expect_queued(&mut client).await;
            client.next_event("processing_started").await;
            assert!(stream.write(chunk));
            assert_eq!(client.next_event("chunk").await["n"], 1);
            end(stream);
            let error = client.next_event("error").await;
            assert_eq!(
                (&error["code"], &error["task_id"]),
                (&json!("worker_lost"), &json!(task_id))
            );
            expect_nothing_more(&mut client).await;
        }
    }
}

#[tokio::test]
async fn a_reply_that_never_ends_is_ended() {
    let (_stream, reply) = Reply::stream("text/event-stream");
    let upstream = Upstream::start(in_turn([reply])).await;
    let gateway = Gateway::start(settings(&upstream, "max_reply = \"1s\"")).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    client.send_json(&json!({"message": "hi"})).await;
    expect_queued(&mut client).await;
    client.next_event("processing_started").await;
    assert_eq!(client.next_event("error").await["code"], "worker_lost");
    expect_nothing_more(&mut client).await;
}

#[tokio::test]
async fn no_answer_and_no_sense_are_unavailable() {
    let hanging = Upstream::start(|_| Reply::Hang).await;
    let hanging_up = Upstream::start(|_| Reply::Hangup).await;
    let garbage = Upstream::sending(b"\x16\x03\x01 this is no HTTP\r\n\r\n").await;
    let failing = Upstream::start(|_| Reply::status(500)).await;
    let stopped = Upstream::accepting().await;
    let url = stopped.url("/");
    drop(stopped);
    let refusing = format!("kind = \"http\"\nurl = {url:?}\nretries = 0");
    for (name, upstream) in [
        ("hanging", &hanging),
        ("hanging up", &hanging_up),
        ("garbage", &garbage),
        ("500", &failing),
    ] {
        let gateway = Gateway::start(settings(upstream, "timeout = \"400ms\"")).await;
        expect_unavailable(name, &gateway).await;
        // The upstream may have accepted the message, so it is not sent again.
        assert!(upstream.requests().len() <= 1, "{name} was asked twice");
    }
    let gateway = Gateway::start(Settings::chat(&url).upstream("worker", &refusing)).await;
    expect_unavailable("refusing", &gateway).await;
}

async fn expect_unavailable(name: &str, gateway: &Gateway) {
    let (mut client, _) = Client::connected(gateway, PATH).await;
    client.send_json(&json!({"message": "hi", "id": "mine"})).await;
    let error = client.next_event("error").await;
    assert_eq!(error["code"], "upstream_unavailable", "{name}: {error}");
    assert_eq!(error["id"], "mine", "{name}: {error}");
    assert!(error["retry_after"].as_u64().is_some_and(|seconds| seconds > 0), "{name}: {error}");
    expect_nothing_more(&mut client).await;
}

#[tokio::test]
async fn a_refusal_of_the_upstream_is_passed_on_with_its_text() {
    let upstream = Upstream::start(in_turn([
        Reply::json(422, &json!({"error": "no more credits"})),
        Reply::json(403, &json!({"detail": "not yours"})),
        Reply::status(400),
        Reply::json(429, &json!({"error": "slow down"})),
    ]))
    .await;
    let gateway = Gateway::start(settings(&upstream, "")).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    for (code, text) in [
        ("upstream_rejected", "no more credits"),
        ("upstream_rejected", "not yours"),
        ("upstream_rejected", "the service rejected the message"),
        ("busy", "slow down"),
    ] {
        let answer = send_message(&mut client, "hi").await;
        assert_eq!((&answer["code"], &answer["error"]), (&json!(code), &json!(text)));
    }
    assert_eq!(
        send_message(&mut client, "hi").await["event"],
        "task_queued",
        "the socket stays open"
    );
    assert_eq!(upstream.requests().len(), 5, "refusals are not retried");
}

#[tokio::test]
async fn a_service_that_restarts_is_asked_again_with_the_same_key() {
    let upstream = Upstream::start(in_turn([Reply::status(503), Reply::status(502)])).await;
    let gateway = Gateway::start(settings(&upstream, "retries = 2")).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    assert_eq!(send_message(&mut client, "hi").await["event"], "task_queued");
    let requests = upstream.requests();
    assert_eq!(requests.len(), 3);
    for request in &requests {
        assert_eq!(request.header("idempotency-key"), requests[0].header("idempotency-key"));
        assert_eq!(request.body, requests[0].body);
    }
    let retries =
        gateway.metric("tidegate_upstream_retries_total", &[("upstream", "worker")]).await;
    assert_eq!(retries, 2.0);
}

#[tokio::test]
async fn more_than_max_in_flight_is_busy_until_a_request_ends() {
    let (stream, reply) = Reply::stream("text/event-stream");
    let upstream = Upstream::start(in_turn([reply])).await;
    let gateway = Gateway::start(settings(&upstream, "max_in_flight = 1")).await;
    let (mut first, _) = Client::connected(&gateway, PATH).await;
    let (mut second, _) = Client::connected(&gateway, "/ws/chat/43/").await;
    assert_eq!(send_message(&mut first, "long").await["event"], "task_queued");
    let busy = send_message(&mut second, "short").await;
    assert_eq!((&busy["event"], &busy["code"]), (&json!("error"), &json!("busy")));
    assert_eq!(upstream.requests().len(), 1, "the upstream was not asked");
    drop(stream);
    first.next_event("processing_started").await;
    first.next_event("complete").await;
    gateway.wait_for_metric("tidegate_upstream_in_flight", &[("upstream", "worker")], 0.0).await;
    assert_eq!(send_message(&mut second, "short").await["event"], "task_queued");
}

#[tokio::test]
async fn an_upstream_that_keeps_failing_is_left_alone_and_found_again() {
    let healthy = Arc::new(AtomicBool::new(false));
    let is_healthy = Arc::clone(&healthy);
    let upstream = Upstream::start(move |_| {
        Reply::status(if is_healthy.load(Ordering::SeqCst) { 202 } else { 503 })
    })
    .await;
    let circuit = "retries = 0\ncircuit = { failures = 2, window = \"60s\", open = \"2s\" }";
    let limits = "[route.limits]\nmessages_per_connection = \"10000/1s\"\n";
    let settings = settings(&upstream, circuit).each_route(|route| format!("{route}{limits}"));
    let gateway = Gateway::start(settings).await;
    let token = gateway.token(json!({"user_id": 7})).await;
    let (mut user, _) =
        Client::connected(&gateway, &format!("{PATH}?connection_token={token}")).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    for is_user in [true, false, true] {
        let client = if is_user { &mut user } else { &mut client };
        assert_eq!(send_message(client, "hi").await["code"], "upstream_unavailable");
    }
    assert_eq!(upstream.requests().len(), 2, "the third was not asked for");
    let open = [("upstream", "worker")];
    assert_eq!(gateway.metric("tidegate_upstream_circuit_open", &open).await, 1.0);
    healthy.store(true, Ordering::SeqCst);
    until("closed circuit", async || {
        (send_message(&mut client, "hi").await["event"] == "task_queued").then_some(())
    })
    .await;
    assert_eq!(gateway.metric("tidegate_upstream_circuit_open", &open).await, 0.0);
    assert_eq!(upstream.requests().len(), 3, "one probe closed it");
}

#[tokio::test]
async fn task_queued_precedes_events_that_are_published_before_the_answer() {
    let admin = Arc::new(OnceLock::new());
    let worker = Arc::clone(&admin);
    let upstream = Upstream::start(move |request| {
        // This worker finishes before its queue has confirmed the task.
        let task_id = &request.json()["task_id"];
        for event in ["processing_started", "chunk", "complete"] {
            let data = json!({"event": event, "task_id": task_id});
            publish_blocking(*worker.get().expect("the gateway runs"), &data);
        }
        Reply::status(202)
    })
    .await;
    let gateway = Gateway::start(settings(&upstream, "")).await;
    admin.set(gateway.admin()).unwrap();
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    let (mut other_tab, _) = Client::connected(&gateway, PATH).await;
    for _ in 0..5 {
        client.send_json(&json!({"message": "hi"})).await;
        let task_id = expect_queued(&mut client).await;
        for event in ["processing_started", "chunk", "complete"] {
            assert_eq!(client.next_event(event).await["task_id"], task_id.as_str());
            assert_eq!(other_tab.next_event(event).await["task_id"], task_id.as_str());
        }
    }
}

/// Calls `POST /v1/publish` from code that cannot await.
fn publish_blocking(admin: std::net::SocketAddr, data: &Value) {
    let body = json!({"channel": "chat_42", "data": data}).to_string();
    let length = body.len();
    let mut stream = TcpStream::connect(admin).expect("the admin port accepts");
    write!(
        stream,
        "POST /v1/publish HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {API_KEY}\r\n\
         connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .expect("the admin port reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn the_reply_reaches_every_tab_and_outlives_its_sender() {
    let (stream, reply) = Reply::stream("text/event-stream");
    let upstream = Upstream::start(in_turn([reply])).await;
    let gateway = Gateway::start(settings(&upstream, "").without_history()).await;
    let (mut sender, _) = Client::connected(&gateway, PATH).await;
    let (mut tab, _) = Client::connected(&gateway, PATH).await;
    let (mut outsider, _) = Client::connected(&gateway, "/ws/chat/43/").await;
    sender.send_json(&json!({"message": "hi"})).await;
    let task_id = expect_queued(&mut sender).await;
    for client in [&mut sender, &mut tab] {
        let started = client.next_event("processing_started").await;
        assert_eq!(started["task_id"], task_id.as_str());
    }
    stream.write("data: one\n\n");
    for client in [&mut sender, &mut tab] {
        let chunk = json!({"event": "chunk", "chunk": "one", "task_id": task_id});
        assert_eq!(client.next_json().await, chunk);
    }
    sender.close(1000, "").await;
    assert_eq!(sender.closed().await, Some(1000));
    drop(sender);
    gateway.wait_for_event("connection_closed").await;
    assert!(stream.write("data: two\n\n"), "the reply continues");
    let chunk = json!({"event": "chunk", "chunk": "two", "task_id": task_id});
    assert_eq!(tab.next_json().await, chunk);
    drop(stream);
    assert_eq!(tab.next_event("complete").await["task_id"], task_id.as_str());
    expect_nothing_more(&mut outsider).await;
}

#[tokio::test]
async fn one_clients_messages_are_relayed_in_order() {
    let upstream = Upstream::accepting().await;
    let gateway = Gateway::start(settings(&upstream, "")).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    for number in 0..15 {
        client.send_json(&json!({"message": format!("{number}"), "id": format!("{number}")})).await;
    }
    for number in 0..15 {
        assert_eq!(client.next_event("task_queued").await["id"], number.to_string());
        assert_eq!(upstream.next_request().await.json()["message"], number.to_string());
    }
    let page = http::get(gateway.admin(), "/metrics").await.text();
    assert!(page.contains("tidegate_upstream_request_seconds"), "{page}");
}

#[tokio::test]
async fn an_answer_that_is_none_is_named_in_log_and_metric() {
    let large = Upstream::start(|_| Reply::Answer {
        status: 200,
        headers: (0..200).map(|_| ("x-many", "1".to_owned())).collect(),
        body: "".into(),
    })
    .await;
    let redirecting = Upstream::start(|_| Reply::Answer {
        status: 308,
        headers: vec![("location", "http://elsewhere.test/chat/?key=hunter2".to_owned())],
        body: "".into(),
    })
    .await;
    let garbage = Upstream::sending(b"SSH-2.0-OpenSSH_9.6\r\n").await;
    for (url, outcome, reason) in [
        (large.url("/"), "head_too_large", "the head of its answer is too large"),
        (redirecting.url("/"), "redirected", "a redirect to \\\"http://elsewhere.test/chat/\\\""),
        (garbage.url("/"), "malformed", "its answer is not HTTP/1.1"),
    ] {
        let gateway = Gateway::start(Settings::chat(&url)).await;
        let mut client = Client::open(gateway.addr(), "/ws/chat/1/", &[]).await;
        assert_eq!(client.next_json().await["event"], "connected");
        client.send_text(r#"{"message":"hi"}"#).await;
        assert_eq!(client.next_json().await["code"], "upstream_unavailable");
        let line = gateway.wait_for_log("upstream_failed").await;
        assert!(line.contains(reason), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
        let outcome = [("outcome", outcome)];
        gateway.wait_for_metric("tidegate_upstream_requests_total", &outcome, 1.0).await;
    }
}

#[tokio::test]
async fn a_stream_with_a_wrong_content_type_is_reported_once() {
    let upstream = Upstream::start(|_| Reply::Answer {
        status: 200,
        headers: vec![("content-type", "text/plain; charset=utf-8".to_owned())],
        body: "data: {\"event\":\"chunk\"}\n\ndata: [DONE]\n\n".into(),
    })
    .await;
    let gateway = Gateway::start(Settings::chat(&upstream.url("/"))).await;
    let mut client = Client::open(gateway.addr(), "/ws/chat/1/", &[]).await;
    assert_eq!(client.next_json().await["event"], "connected");
    for _ in 0..3 {
        client.send_text(r#"{"message":"hi"}"#).await;
        assert_eq!(client.next_json().await["event"], "task_queued");
    }
    let event = gateway.wait_for_event("upstream_content_type").await;
    assert!(event.to_string().contains("text/plain"), "{event}");
    assert!(event.to_string().contains("text/event-stream"), "{event}");
    gateway.wait_for_metric("tidegate_upstream_content_type_mismatches_total", &[], 3.0).await;
    assert_eq!(gateway.events("upstream_content_type"), 1);
}

/// On the memory engine, where nothing of a reply has to be waited for that its upstream has written.
#[tokio::test]
async fn what_is_there_of_a_reply_leaves_in_one_write_with_the_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
    // The head and all of the body are in one write.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("the listener is open");
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                let mut bytes = [0; 4096];
                let length = stream.read(&mut bytes).expect("a request");
                request.extend_from_slice(&bytes[..length]);
            }
            let events = "data: {\"event\":\"chunk\",\"chunk\":\"Hi\"}\n\ndata: {\"event\":\"complete\"}\n\n";
            let length = events.len();
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n";
            let answer = format!("{head}Content-Length: {length}\r\n\r\n{events}");
            stream.write_all(answer.as_bytes()).expect("the gateway reads");
        }
    });
    let settings = Settings::chat(&url)
        .upstream("worker", &format!("kind = \"http\"\nurl = {url:?}"))
        .also("engine", "kind = \"memory\"");
    let gateway = Gateway::start(settings).await;
    let mut client = RawClient::open(gateway.addr(), PATH).await;
    client.expect_text("connected").await;
    for _ in 0..5 {
        client.send(&frame::text(r#"{"message":"hi"}"#)).await;
        let first = client.read_some().await;
        let text = String::from_utf8_lossy(&first);
        let mut at = 0;
        for event in ["task_queued", "processing_started", "chunk", "complete"] {
            let found = text[at..].find(&format!("\"event\":\"{event}\""));
            at += found.unwrap_or_else(|| panic!("{event} is not in the first write: {text}"));
        }
    }
}
