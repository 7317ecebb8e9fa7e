//! Publications that leave together: while many publish to channels of any size, and clients come, go and resume, each
//! client gets each publication once and in order.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::engine::Engine;
use crate::rig::{Client, Gateway, RawClient, Settings, raw};

on_both_engines! {
    a_burst_reaches_everyone_once_in_order,
    clients_that_do_not_read_cost_the_others_nothing,
    one_call_publishes_to_many_channels,
}

/// The clients of the large channel are more than one turn visits, and all are on one thread.
const LARGE: usize = 150;
const SMALL: usize = 6;
const CHANNELS: [&str; 3] = ["large", "small", "alone"];

const PUBLISHERS: u64 = 8;
const CALLS: u64 = 30;

/// A client reconnects after this many publications.
const LEAVE_AFTER: u64 = 17;

fn settings() -> Settings {
    Settings::chat("http://127.0.0.1:1/")
        .section("server", "listen = \"127.0.0.1:0\"\nthreads = 1\nmax_connections_per_ip = 0")
        .each_route(|route| format!("{route}\n[route.history]\nsize = 5000\ncompact = \"off\"\n"))
}

/// What one client has of a channel's history: the publications from `after` on.
struct Received {
    after: u64,
    publications: Vec<Value>,
}

/// Reads a channel up to the publication that ends the test. With `leaves`, it reconnects all the time.
async fn follow(gateway: Arc<Gateway>, channel: &'static str, leaves: bool) -> Received {
    let path = format!("/ws/chat/{channel}/");
    let (mut client, connected) = Client::connected(&gateway, &path).await;
    let after = connected["offset"].as_u64().expect("an offset");
    let mut epoch = connected["epoch"].as_str().expect("an epoch").to_owned();
    let mut publications: Vec<Value> = Vec::new();
    loop {
        let frame = client.next_json().await;
        let offset = after + publications.len() as u64 + 1;
        assert_eq!(frame["offset"], offset, "{channel}: {frame} after {:?}", publications.last());
        if let Some(started) = frame["epoch"].as_str() {
            started.clone_into(&mut epoch);
        }
        let is_end = frame["event"] == "test.end";
        publications.push(frame);
        if is_end {
            return Received { after, publications };
        }
        if leaves && offset.is_multiple_of(LEAVE_AFTER) {
            // The connection breaks while more is on its way.
            drop(client);
            let resume = format!("{path}?since={offset}&epoch={epoch}");
            let (again, connected) = Client::connected(&gateway, &resume).await;
            assert_eq!(connected["recovered"], true, "{connected}");
            client = again;
        }
    }
}

/// Publishes numbered events: single ones, several of a channel, and to all channels with one call.
async fn publish(gateway: Arc<Gateway>, publisher: u64) {
    let mut numbers: HashMap<&str, u64> = HashMap::new();
    let mut next = |channel: &'static str| {
        let number = numbers.entry(channel).or_default();
        *number += 1;
        let data = json!({"event": "chunk", "publisher": publisher, "number": *number});
        json!({"channel": channel_of(channel), "data": data})
    };
    for call in 0..CALLS {
        let body = match (call + publisher) % 3 {
            0 => next("large"),
            1 => json!({ "publications": Value::from_iter(CHANNELS.map(&mut next)) }),
            _ => {
                json!({ "publications": Value::from_iter(["small", "large", "small"].map(&mut next)) })
            }
        };
        let answer = gateway.api("/v1/publish", body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

fn channel_of(conversation: &str) -> String {
    format!("chat_{conversation}")
}

async fn a_burst_reaches_everyone_once_in_order(engine: Engine) {
    let gateway = Arc::new(engine.start(settings()).await);
    let mut clients = Vec::new();
    for (channel, count) in [("large", LARGE), ("small", SMALL), ("alone", 1)] {
        for number in 0..count {
            let leaves = channel != "alone" && number % 5 == 0;
            clients.push((channel, tokio::spawn(follow(gateway.clone(), channel, leaves))));
        }
    }
    // Nobody waits for these clients to be connected: they join in the middle of the burst.
    let publishers = (0..PUBLISHERS).map(|one| tokio::spawn(publish(gateway.clone(), one)));
    for publisher in Vec::from_iter(publishers) {
        publisher.await.unwrap();
    }
    // Every client is there for the last publication.
    let mut late = Vec::new();
    for channel in CHANNELS {
        late.push((channel, tokio::spawn(follow(gateway.clone(), channel, false))));
    }
    let all = (LARGE + SMALL + 1 + late.len()) as f64;
    crate::rig::until("all clients", async || {
        let now = gateway.metric("tidegate_connections", &[]).await;
        (now >= all).then_some(())
    })
    .await;
    for channel in CHANNELS {
        gateway.publish(&channel_of(channel), json!({"event": "test.end"})).await;
    }
    let mut longest: HashMap<&str, Received> = HashMap::new();
    for (channel, client) in clients.into_iter().chain(late) {
        let received = client.await.unwrap();
        let longest = longest
            .entry(channel)
            .or_insert(Received { after: u64::MAX, publications: Vec::new() });
        let (more, less) = if received.after < longest.after {
            let less = std::mem::replace(longest, received);
            (&*longest, less)
        } else {
            (&*longest, received)
        };
        if less.after < u64::MAX {
            let from = (less.after - more.after) as usize;
            assert_eq!(less.publications, more.publications[from..], "{channel}");
        }
    }
    for (channel, received) in longest {
        let mut numbers: HashMap<u64, u64> = HashMap::new();
        for publication in &received.publications {
            let Some(publisher) = publication["publisher"].as_u64() else { continue };
            let number = publication["number"].as_u64().unwrap();
            let last = numbers.insert(publisher, number);
            assert!(last.is_none_or(|last| number == last + 1), "{channel}: {publication}");
        }
    }
}

async fn clients_that_do_not_read_cost_the_others_nothing(engine: Engine) {
    let gateway = Arc::new(engine.start(settings()).await);
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut client = RawClient::connect_with_buffer(gateway.addr(), 4096).await;
        client.write(raw::handshake("/ws/chat/large/", &[]).as_bytes()).await;
        assert_eq!(client.read_head().await.status, 101);
        silent.push(client);
    }
    let mut clients = Vec::new();
    for _ in 0..5 {
        let (mut client, connected) = Client::connected(&gateway, "/ws/chat/large/").await;
        assert_eq!(connected["offset"], 0);
        clients.push(tokio::spawn(async move {
            let mut next = 1;
            loop {
                let frame = client.next_json().await;
                assert_eq!(frame["offset"], next);
                next += 1;
                if frame["event"] == "test.end" {
                    return next - 1;
                }
            }
        }));
    }
    // More than the kernel and the queue of one connection take together.
    let chunk = "x".repeat(32 * 1024);
    let mut published = 1;
    crate::rig::until("closed clients", async || {
        for _ in 0..8 {
            gateway.publish("chat_large", json!({"event": "chunk", "chunk": chunk})).await;
            published += 1;
        }
        (gateway.metric("tidegate_connections", &[]).await <= 5.0).then_some(())
    })
    .await;
    gateway.publish("chat_large", json!({"event": "test.end"})).await;
    for client in clients {
        assert_eq!(client.await.unwrap(), published);
    }
}

async fn one_call_publishes_to_many_channels(engine: Engine) {
    let gateway = engine.start(settings()).await;
    let (mut first, _) = Client::connected(&gateway, "/ws/chat/0/").await;
    let (mut last, _) = Client::connected(&gateway, "/ws/chat/299/").await;
    let channels = Vec::from_iter((0..300).map(|number| channel_of(&number.to_string())));
    let publications = |round: u64| {
        let data = json!({"event": "chunk", "round": round});
        let one = |channel| json!({"channel": channel, "data": data});
        Vec::from_iter(channels.iter().chain(&channels).map(one))
    };
    let reads = async || match engine.server() {
        None => 0,
        Some(redis) => {
            let stats: String = redis.run(&["INFO", "stats"]).await;
            let line = stats.lines().find_map(|line| line.strip_prefix("total_reads_processed:"));
            line.expect("a number of reads").parse::<u64>().unwrap()
        }
    };
    let before = reads().await;
    for round in 0..2 {
        let body =
            json!({"publications": publications(round), "idempotency_key": round.to_string()});
        let answer = gateway.api("/v1/publish", body.clone()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = answer.json();
        assert_eq!(answer["published"], 600);
        let results = answer["channels"].as_array().unwrap();
        assert_eq!(results.len(), channels.len());
        for (result, channel) in results.iter().zip(&channels) {
            assert_eq!(
                (&result["channel"], &result["offset"]),
                (&json!(channel), &json!(2 * round + 2))
            );
            assert_eq!(result.get("duplicate"), None);
        }
        let repeated = gateway.api("/v1/publish", body).await.json();
        let is_duplicate = |result: &Value| result["duplicate"] == true;
        assert!(repeated["channels"].as_array().unwrap().iter().all(is_duplicate), "{repeated}");
    }
    // 1,200 calls of the script, in a few writes.
    let taken = reads().await - before;
    assert!(taken < 300, "Redis made {taken} reads");
    for client in [&mut first, &mut last] {
        for (offset, round) in [(1, 0), (2, 0), (3, 1), (4, 1)] {
            let frame = client.next_event("chunk").await;
            assert_eq!((&frame["offset"], &frame["round"]), (&json!(offset), &json!(round)));
        }
    }
}
