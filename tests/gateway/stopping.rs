//! Stopping the process by a signal: what clients receive, what the process waits for, and its exit code.

use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::rig::upstream::StreamWriter;
use super::rig::{Client, Gateway, RawClient, Reply, Settings, Upstream, http, until, within};

const PATH: &str = "/ws/chat/42/";

fn settings(drain: &str, grace: &str) -> Settings {
    with_upstream("http://127.0.0.1:1/", drain, grace)
}

fn with_upstream(url: &str, drain: &str, grace: &str) -> Settings {
    Settings::chat(url).section("shutdown", &format!("drain = {drain:?}\ngrace = {grace:?}"))
}

/// An upstream that gives one answer, whose body the test writes.
async fn one_answer(content_type: &'static str) -> (StreamWriter, Upstream) {
    let (writer, reply) = Reply::stream(content_type);
    let reply = Arc::new(Mutex::new(Some(reply)));
    let behaviour = move |_: &_| reply.lock().unwrap().take().unwrap_or(Reply::Hangup);
    (writer, Upstream::start(behaviour).await)
}

/// Reads the close and then closes the client's half of the TCP connection, which the gateway waits for.
async fn sent_away(mut client: Client) {
    let event = client.next_event("going_away").await;
    assert!(event["reconnect_in_ms"].is_u64(), "{event}");
    assert_eq!(client.closed().await, Some(1012));
}

#[tokio::test]
async fn an_idle_gateway_exits_at_once_on_either_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut gateway = Gateway::start(settings("30s", "5s")).await;
        gateway.signal(signal);
        assert_eq!(gateway.wait_exit().await, Some(0), "{signal:?}");
        assert_eq!((gateway.events("draining"), gateway.events("stopped")), (1, 1));
    }
}

#[tokio::test]
async fn a_draining_gateway_is_not_ready_and_takes_nobody() {
    let (writer, upstream) = one_answer("application/json").await;
    let mut gateway = Gateway::start(with_upstream(&upstream.url("/"), "30s", "5s")).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    client.send_json(&json!({"message": "hi"})).await;
    upstream.next_request().await;
    gateway.signal(Signal::TERM);
    gateway.wait_for_event("draining").await;
    until("readiness that is draining", async || {
        let page = http::get(gateway.admin(), "/readyz").await;
        let draining = page.json()["checks"]["shutdown"] == "draining";
        (page.status == 503 && draining).then_some(())
    })
    .await;
    assert_eq!(http::get(gateway.admin(), "/livez").await.status, 200);
    until("refused connection", async || TcpStream::connect(gateway.addr()).await.err()).await;
    // Clients that are still connected can still send.
    client.send_json(&json!({"type": "ping"})).await;
    client.next_event("pong").await;
    writer.write("{\"task_id\":\"t\"}");
    drop(writer);
    assert_eq!(client.next_event("task_queued").await["task_id"], "t");
    sent_away(client).await;
    assert_eq!(gateway.wait_exit().await, Some(0));
}

#[tokio::test]
async fn clients_are_sent_away_one_after_the_other() {
    let one_thread =
        settings("2s", "5s").section("server", "listen = \"127.0.0.1:0\"\nthreads = 1");
    let mut gateway = Gateway::start(one_thread).await;
    let mut clients = Vec::new();
    let mut order = Vec::new();
    for _ in 0..5 {
        let (client, connected) = Client::connected(&gateway, PATH).await;
        clients.push(client);
        order.push(connected["connection_id"].clone());
    }
    gateway.signal(Signal::TERM);
    let mut clients = clients.into_iter();
    sent_away(clients.next().expect("five clients")).await;
    // The other clients are still connected after the first has been closed.
    let mut last = clients.next_back().expect("five clients");
    last.send_json(&json!({"type": "ping"})).await;
    last.next_event("pong").await;
    for client in clients.chain([last]) {
        sent_away(client).await;
    }
    assert_eq!(gateway.wait_exit().await, Some(0));
    assert_eq!(gateway.events("connection_closed"), 5);
    let closed: Vec<Value> = gateway
        .log_events("connection_closed")
        .into_iter()
        .map(|line| line["connection"].clone())
        .collect();
    assert_eq!(closed, order);
}

#[tokio::test]
async fn both_threads_send_all_their_clients_away() {
    let mut gateway = Gateway::start(settings("300ms", "5s")).await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(Client::connected(&gateway, PATH).await.0);
    }
    gateway.signal(Signal::TERM);
    for client in clients {
        sent_away(client).await;
    }
    assert_eq!(gateway.wait_exit().await, Some(0));
}

#[tokio::test]
async fn a_reply_that_streams_is_waited_for() {
    let (writer, upstream) = one_answer("text/event-stream").await;
    let settings =
        with_upstream(&upstream.url("/"), "300ms", "20s").also("log", "level = \"debug\"");
    let mut gateway = Gateway::start(settings).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    client.send_json(&json!({"message": "hi"})).await;
    client.next_event("task_queued").await;
    client.next_event("processing_started").await;
    gateway.signal(Signal::TERM);
    sent_away(client).await;
    gateway.wait_for_event("connection_closed").await;
    assert!(writer.write("data: more\n\n"), "the reply continues");
    drop(writer);
    assert_eq!(gateway.wait_exit().await, Some(0));
    let outcome = gateway.wait_for_event("generation_ended").await;
    assert_eq!(outcome["outcome"], "completed", "{outcome}");
}

/// The time to the deadline counts from the signal, and not from the last event.
#[tokio::test]
async fn a_reply_whose_events_keep_coming_is_ended_before_the_deadline() {
    let (writer, upstream) = one_answer("text/event-stream").await;
    let settings =
        with_upstream(&upstream.url("/"), "100ms", "1s").also("log", "level = \"debug\"");
    let mut gateway = Gateway::start(settings).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    client.send_json(&json!({"message": "hi"})).await;
    client.next_event("task_queued").await;
    let writing = tokio::spawn(async move {
        while writer.write("data: more\n\n") {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    gateway.signal(Signal::TERM);
    let outcome = gateway.wait_for_event("generation_ended").await;
    assert_eq!(outcome["outcome"], "worker_lost", "{outcome}");
    assert_eq!(outcome["reason"], "the gateway is stopping", "{outcome}");
    assert_eq!(gateway.wait_exit().await, Some(1), "a reply was cut short");
    within("the end of the request", writing).await.unwrap();
}

#[tokio::test]
async fn a_second_signal_cuts_what_is_left() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM)] {
        let (writer, upstream) = one_answer("text/event-stream").await;
        let mut gateway = Gateway::start(with_upstream(&upstream.url("/"), "10m", "10m")).await;
        let (mut client, _) = Client::connected(&gateway, PATH).await;
        client.send_json(&json!({"message": "hi"})).await;
        client.next_event("task_queued").await;
        gateway.signal(first);
        gateway.wait_for_event("draining").await;
        gateway.signal(second);
        assert_eq!(gateway.wait_exit().await, Some(1));
        assert_eq!((gateway.events("shutdown_forced"), gateway.events("stopped")), (1, 0));
        writer.closed().await;
    }
}

#[tokio::test]
async fn the_deadline_cuts_what_is_left() {
    let (writer, upstream) = one_answer("text/event-stream").await;
    let mut gateway = Gateway::start(with_upstream(&upstream.url("/"), "100ms", "100ms")).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    client.send_json(&json!({"message": "hi"})).await;
    client.next_event("task_queued").await;
    assert_eq!(gateway.stop().await, Some(1));
    assert_eq!(gateway.events("shutdown_forced"), 1);
    writer.closed().await;
}

#[tokio::test]
async fn a_client_that_does_not_answer_is_not_waited_for_until_the_deadline() {
    let mut gateway = Gateway::start(settings("100ms", "10m")).await;
    let mut silent = RawClient::open(gateway.addr(), PATH).await;
    assert!(silent.read_frame().await.is_some_and(|frame| frame.payload.starts_with(b"{")));
    assert_eq!(gateway.stop().await, Some(0));
}

/// A connection that the kernel has accepted is served, whether or not the gateway has accepted it yet.
#[tokio::test]
async fn a_client_that_has_just_connected_is_answered() {
    let reply = "path = \"/health/\"\nreply = '{\"status\":\"ok\"}'";
    let mut gateway = Gateway::start(settings("300ms", "20s").route(reply)).await;
    let mut stream = TcpStream::connect(gateway.addr()).await.unwrap();
    gateway.signal(Signal::TERM);
    gateway.wait_for_event("draining").await;
    let request = "GET /health/ HTTP/1.1\r\nhost: gateway\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within("an answer and the end", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        answer.ends_with("{\"code\":\"draining\",\"error\":\"this node is stopping\"}"),
        "{answer}"
    );
    assert_eq!(gateway.wait_exit().await, Some(0));
}

#[tokio::test]
async fn a_client_that_has_just_connected_is_sent_on() {
    let mut gateway = Gateway::start(settings("300ms", "20s")).await;
    let mut stream = TcpStream::connect(gateway.addr()).await.unwrap();
    gateway.signal(Signal::TERM);
    gateway.wait_for_event("draining").await;
    let request = format!(
        "GET {PATH} HTTP/1.1\r\nhost: gateway\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let restarting = 1012_u16.to_be_bytes();
    while !answer.windows(2).any(|pair| pair == restarting) {
        let read = within("a close frame", stream.read_buf(&mut answer)).await.unwrap();
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&answer));
    }
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("\"connected\"") && answer.contains("\"going_away\""), "{answer}");
    drop(stream);
    assert_eq!(gateway.wait_exit().await, Some(0));
}
