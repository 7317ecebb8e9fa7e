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
    let (code, said) = Gateway::fails(&alone).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("server.listen"), "{said}");
    let second = Gateway::start(shared(port)).await;
    assert_eq!(second.addr(), first.addr());
    drop(first);
    Client::connected(&second, "/ws/chat/1/").await;
}

#[tokio::test]
async fn a_thousand_streams_go_on_while_the_process_is_replaced() {
    let redis = Redis::start().await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let settings = settings("")
        .redis(&redis.url())
        .section("shutdown", "drain = \"5s\"\ngrace = \"5s\"")
        .route(ROUTE);
    let old = Gateway::start_with_socket(&settings, &socket, "public").await;
    let new = async || Gateway::start_with_socket(&settings, &socket, "public").await;
    roll(&redis, address, 1000, old, new).await;
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
    roll(&redis, address, 200, old, new).await;
}

/// Replaces `old` with the gateway that `start` returns, while `count` clients receive numbered chunks on a
/// twentieth as many channels. Each client must have received every number once and in order.
async fn roll(
    redis: &Redis,
    address: SocketAddr,
    count: usize,
    mut old: Gateway,
    start: impl AsyncFnOnce() -> Gateway,
) {
    let channels = count / 20;
    let roll = Arc::new(Roll { address, ..Roll::default() });
    let mut clients = JoinSet::new();
    for number in 0..count {
        clients.spawn(listen(Arc::clone(&roll), number % channels));
    }
    let worker = tokio::spawn(stream(redis.connection().await, channels, Arc::clone(&roll)));
    old.wait_for_metric("tidegate_connections", &[], count as f64).await;
    let new = start().await;
    *roll.began.lock().unwrap() = Some(Instant::now());
    old.signal(Signal::TERM);
    assert_eq!(old.wait_exit().await, Some(0), "nothing was cut");
    new.wait_for_metric("tidegate_connections", &[], count as f64).await;
    roll.over.store(true, Ordering::Release);
    let last = worker.await.unwrap();
    let mut heard = 0;
    while let Some(client) = clients.join_next().await {
        let client = client.unwrap();
        assert_eq!(client.heard, last, "of {last} chunks");
        assert!(client.returns > 0, "everybody was on the old process, and came back");
        heard += client.heard;
    }
    println!("{count} connections, {heard} chunks heard, 0 lost, 0 repeated; reconnects by time:");
    for (half_seconds, reconnects) in roll.reconnects.lock().unwrap().iter() {
        println!(
            "{:>5.1} s {reconnects:>4} {}",
            *half_seconds as f64 / 2.0,
            "#".repeat(reconnects / 4)
        );
    }
}

struct Roll {
    address: SocketAddr,
    began: Mutex<Option<Instant>>,
    over: AtomicBool,
    /// The reconnects in each half second since the old process received its signal.
    reconnects: Mutex<BTreeMap<u128, usize>>,
}

impl Default for Roll {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            began: Mutex::default(),
            over: AtomicBool::new(false),
            reconnects: Mutex::default(),
        }
    }
}

impl Roll {
    fn came_back(&self) {
        let began = self.began.lock().unwrap().expect("nobody is sent away before");
        let half_seconds = began.elapsed().as_millis() / 500;
        *self.reconnects.lock().unwrap().entry(half_seconds).or_default() += 1;
    }
}

/// Publishes numbered chunks to every channel, as a worker does, until the replacement is complete.
async fn stream(
    mut redis: redis::aio::MultiplexedConnection,
    channels: usize,
    roll: Arc<Roll>,
) -> u64 {
    let script = redis::Script::new(include_str!("../../clients/redis/publish.lua"));
    let mut ticks = tokio::time::interval(PACE);
    let mut number = 0;
    loop {
        ticks.tick().await;
        number += 1;
        let last = roll.over.load(Ordering::Acquire);
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

struct Listened {
    heard: u64,
    returns: usize,
}

/// A client as the protocol page describes it: it reconnects and resumes until it has received the last chunk.
async fn listen(roll: Arc<Roll>, channel: usize) -> Listened {
    let mut listened = Listened { heard: 0, returns: 0 };
    let mut place: Option<(u64, String)> = None;
    loop {
        let path = match &place {
            None => format!("/ws/chat/{channel}/"),
            Some((offset, epoch)) => format!("/ws/chat/{channel}/?since={offset}&epoch={epoch}"),
        };
        let Some(mut client) = Client::attempt(roll.address, &path).await else {
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
                "connected" if place.is_none() => {
                    let epoch = frame["epoch"].as_str().expect("an epoch").to_owned();
                    let offset = frame["offset"].as_u64().expect("an offset");
                    listened.heard = offset;
                    place = Some((offset, epoch));
                }
                "connected" => {
                    assert_eq!(frame["recovered"], true, "{frame}");
                    listened.returns += 1;
                    roll.came_back();
                }
                "chunk" => {
                    assert_eq!(frame["n"], listened.heard + 1, "lost or repeated");
                    listened.heard += 1;
                    let (offset, epoch) = place.as_mut().expect("connected came first");
                    *offset = frame["offset"].as_u64().expect("an offset");
                    if let Some(begun) = frame["epoch"].as_str() {
                        *epoch = begun.to_owned();
                    }
                    if frame["last"] == true {
                        return listened;
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
