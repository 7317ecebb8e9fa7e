//! One process replaces another: sockets that are handed over, ports that are shared, and a rolling
//! replacement during streams in which no client loses or repeats a chunk.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::rig::{Client, Event, Gateway, Redis, Settings, http};

const ROUTE: &str = r#"path = "/ws/chat/{conversation_id}/"
channel = "chat_{conversation_id}"
auth = ["anonymous"]
[route.history]
size = 10000
"#;

/// The time between two chunks of a channel.
const PACE: Duration = Duration::from_millis(150);

fn settings(server: &str) -> Settings {
    Settings::new().section("server", &format!("threads = 2\nmax_connections_per_ip = 0\n{server}"))
}

#[tokio::test]
async fn a_socket_that_was_handed_over_is_served() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    // This address is in use by another process: only the socket that is handed over counts.
    let settings = settings("listen = \"127.0.0.1:1\"").route(ROUTE);
    let mut gateway = Gateway::start_with_socket(settings, &socket, "public").await;
    assert_eq!(gateway.addr(), socket.local_addr().unwrap());
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Client::connected(&gateway, "/ws/chat/1/").await.0);
    }
    gateway.publish("chat_1", json!({"event": "hello"})).await;
    for client in &mut clients {
        client.next_event("hello").await;
    }
    drop(clients);
    assert_eq!(gateway.stop().await, Some(0));
}

#[tokio::test]
async fn the_admin_socket_can_be_handed_over() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = settings("listen = \"127.0.0.1:0\"").route(ROUTE);
    let gateway = Gateway::start_with_socket(settings, &socket, "admin").await;
    assert_eq!(gateway.admin(), socket.local_addr().unwrap());
    assert_eq!(http::get(gateway.admin(), "/livez").await.status, 200);
}

#[tokio::test]
async fn two_may_share_a_port_if_both_say_so() {
    let shared = |port: u16| {
        settings(&format!("listen = \"127.0.0.1:{port}\"\nreuse_port = true")).route(ROUTE)
    };
    let first = Gateway::start(shared(0)).await;
    let port = first.addr().port();
    let alone = settings(&format!("listen = \"127.0.0.1:{port}\"")).route(ROUTE);
    let (code, log) = Gateway::start_failing(&alone).await;
    assert_eq!(code, Some(1));
    assert!(log.contains("server.listen"), "{log}");
    let second = Gateway::start(shared(port)).await;
    assert_eq!(second.addr(), first.addr());
    drop(first);
    Client::connected(&second, "/ws/chat/1/").await;
}

#[tokio::test]
async fn a_thousand_streams_continue_while_the_process_is_replaced() {
    let redis = Redis::start().await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let settings = settings("")
        .redis(&redis.url())
        .section("shutdown", "drain = \"5s\"\ngrace = \"5s\"")
        .route(ROUTE);
    let old = Gateway::start_with_socket(&settings, &socket, "public").await;
    let new = async || Gateway::start_with_socket(&settings, &socket, "public").await;
    replace(&redis, address, 1000, old, new).await;
}

#[tokio::test]
async fn streams_go_on_while_a_shared_port_changes_hands() {
    let redis = Redis::start().await;
    let shared = |port: u16| {
        settings(&format!("listen = \"127.0.0.1:{port}\"\nreuse_port = true"))
            .redis(&redis.url())
            .section("shutdown", "drain = \"2s\"\ngrace = \"5s\"")
            .route(ROUTE)
    };
    let old = Gateway::start(shared(0)).await;
    let address = old.addr();
    let new = async || Gateway::start(shared(address.port())).await;
    replace(&redis, address, 200, old, new).await;
}

/// Replaces `old` with the gateway that `start` returns, while `count` clients receive numbered chunks on a
/// twentieth as many channels. Each client must have received every number once and in order.
async fn replace(
    redis: &Redis,
    address: SocketAddr,
    count: usize,
    mut old: Gateway,
    start: impl AsyncFnOnce() -> Gateway,
) {
    let channels = count / 20;
    let replacement = Arc::new(Replacement { address, ..Replacement::default() });
    let mut clients = JoinSet::new();
    for number in 0..count {
        clients.spawn(follow(Arc::clone(&replacement), number % channels));
    }
    let worker = tokio::spawn(stream(redis.connection().await, channels, Arc::clone(&replacement)));
    old.wait_for_metric("tidegate_connections", &[], count as f64).await;
    let new = start().await;
    *replacement.started.lock().unwrap() = Some(Instant::now());
    old.signal(Signal::TERM);
    assert_eq!(old.wait_exit().await, Some(0), "no connection was forced to close");
    new.wait_for_metric("tidegate_connections", &[], count as f64).await;
    replacement.complete.store(true, Ordering::Release);
    let last = worker.await.unwrap();
    let mut received = 0;
    while let Some(client) = clients.join_next().await {
        let client = client.unwrap();
        assert_eq!(client.received, last, "of {last} chunks");
        assert!(client.reconnects > 0, "a client that did not reconnect");
        received += client.received;
    }
    println!(
        "{count} connections, {received} chunks received, 0 lost, 0 repeated; reconnects by time:"
    );
    for (half_seconds, reconnects) in replacement.reconnects.lock().unwrap().iter() {
        println!(
            "{:>5.1} s {reconnects:>4} {}",
            *half_seconds as f64 / 2.0,
            "#".repeat(reconnects / 4)
        );
    }
}

struct Replacement {
    address: SocketAddr,
    started: Mutex<Option<Instant>>,
    complete: AtomicBool,
    /// The reconnects in each half second since the old process received its signal.
    reconnects: Mutex<BTreeMap<u128, usize>>,
}

impl Default for Replacement {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            started: Mutex::default(),
            complete: AtomicBool::new(false),
            reconnects: Mutex::default(),
        }
    }
}

impl Replacement {
    fn record_reconnect(&self) {
        let started = self.started.lock().unwrap().expect("no client is disconnected before");
        let half_seconds = started.elapsed().as_millis() / 500;
        *self.reconnects.lock().unwrap().entry(half_seconds).or_default() += 1;
    }
}

/// Publishes numbered chunks to every channel, as a worker does, until the replacement is complete.
async fn stream(
    mut redis: redis::aio::MultiplexedConnection,
    channels: usize,
    replacement: Arc<Replacement>,
) -> u64 {
    let script = redis::Script::new(include_str!("../../clients/redis/publish.lua"));
    let mut ticks = tokio::time::interval(PACE);
    let mut number = 0;
    loop {
        ticks.tick().await;
        number += 1;
        let last = replacement.complete.load(Ordering::Acquire);
        for channel in 0..channels {
            let name = format!("chat_{channel}");
            let data = json!({"event": "chunk", "n": number, "last": last}).to_string();
            let mut publish = script.prepare_invoke();
            publish.key(format!("tg:{{{name}}}:stream")).key(format!("tg:{{{name}}}:meta"));
            publish.arg(&name).arg(10_000).arg(60_000).arg(data);
            publish.invoke_async::<redis::Value>(&mut redis).await.expect("Redis takes a chunk");
        }
        if last {
            return number;
        }
    }
}

struct Progress {
    received: u64,
    reconnects: usize,
}

/// A client as the protocol page describes it: it reconnects and resumes until it has received the last chunk.
async fn follow(replacement: Arc<Replacement>, channel: usize) -> Progress {
    let mut progress = Progress { received: 0, reconnects: 0 };
    let mut position: Option<(u64, String)> = None;
    loop {
        let path = match &position {
            None => format!("/ws/chat/{channel}/"),
            Some((offset, epoch)) => format!("/ws/chat/{channel}/?since={offset}&epoch={epoch}"),
        };
        let Some(mut client) = Client::attempt(replacement.address, &path).await else {
            tokio::time::sleep(PACE).await;
            continue;
        };
        let mut pause = Duration::ZERO;
        loop {
            let frame: Value = match client.next_without_deadline().await {
                Event::Text(text) => serde_json::from_str(&text).expect("JSON"),
                Event::Binary(_) => panic!("a binary message"),
                Event::Closed(code, reason) => {
                    assert_eq!(code, Some(1012), "{reason}");
                    break;
                }
                Event::Lost => break,
            };
            match frame["event"].as_str().expect("an event") {
                "connected" if position.is_none() => {
                    let epoch = frame["epoch"].as_str().expect("an epoch").to_owned();
                    let offset = frame["offset"].as_u64().expect("an offset");
                    progress.received = offset;
                    position = Some((offset, epoch));
                }
                "connected" => {
                    assert_eq!(frame["recovered"], true, "{frame}");
                    progress.reconnects += 1;
                    replacement.record_reconnect();
                }
                "chunk" => {
                    assert_eq!(frame["n"], progress.received + 1, "lost or repeated");
                    progress.received += 1;
                    let (offset, epoch) = position.as_mut().expect("connected came first");
                    *offset = frame["offset"].as_u64().expect("an offset");
                    if let Some(new_epoch) = frame["epoch"].as_str() {
                        *epoch = new_epoch.to_owned();
                    }
                    if frame["last"] == true {
                        return progress;
                    }
                }
                "going_away" => {
                    let wait = frame["reconnect_in_ms"].as_u64().expect("milliseconds");
                    pause = Duration::from_millis(wait);
                }
                other => panic!("{other}"),
            }
        }
        tokio::time::sleep(pause).await;
    }
}
