//! Two to eight replies at once on one channel, cancelled at random: every client can sort every event by its task, and
//! gets none of a task after its end.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::engine::Engine;
use crate::rig::upstream::StreamWriter;
use crate::rig::{API_KEY, Client, Gateway, Reply, Settings, Upstream, http, until, within};

const PATH: &str = "/ws/chat/42/";
const CLIENTS: usize = 8;
const CHUNKS: u64 = 25;
const PACE: Duration = Duration::from_millis(4);

on_both_engines! {
    streamed_replies,
    replies_of_workers_that_do_not_stop,
}

/// A sequence that a failed test can repeat.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn settings(upstream: &Upstream, compact: &str) -> Settings {
    Settings::chat(&upstream.url("/"))
        .each_route(|route| format!("{route}\n[route.history]\ncompact = {compact:?}\n"))
}

/// Streams a reply in one of the forms that upstreams use, each chunk with its number.
async fn stream(writer: StreamWriter, form: u64) {
    for n in 0..CHUNKS {
        let event = match form % 4 {
            0 => format!("data: n{n} \n\n"),
            1 => format!("data: {{\"event\":\"chunk\",\"chunk\":\"n{n} \"}}\n\n"),
            2 => format!("event: chunk\ndata: {{\"chunk\":\"n{n} \"}}\n\n"),
            _ => format!("data: {}\n\n", json!(format!("n{n} "))),
        };
        if !writer.write(event) {
            return;
        }
        tokio::time::sleep(PACE).await;
    }
    match form % 3 {
        0 => drop(writer),
        1 => drop(writer.write("event: complete\ndata: {}\n\n")),
        _ => writer.abort(),
    }
}

async fn streamed_replies(engine: Engine) {
    let forms = Arc::new(Mutex::new(0));
    let upstream = Upstream::start(move |_| {
        let (writer, reply) = Reply::stream("text/event-stream");
        let form = {
            let mut forms = forms.lock().unwrap();
            *forms += 1;
            *forms
        };
        tokio::spawn(stream(writer, form));
        reply
    })
    .await;
    run(engine, &upstream, &Workers::default()).await;
}

/// Workers that publish through the API of any node.
#[derive(Clone, Default)]
struct Workers {
    nodes: Arc<Mutex<Vec<SocketAddr>>>,
    /// How many work.
    running: Arc<AtomicUsize>,
}

impl Workers {
    async fn publish(&self, n: usize, event: Value) {
        let node = {
            let nodes = self.nodes.lock().unwrap();
            nodes[n % nodes.len()]
        };
        let body = json!({"channel": "chat_42", "data": event});
        let bearer = format!("Bearer {API_KEY}");
        let headers = [("authorization", &*bearer)];
        assert_eq!(http::post(node, "/v1/publish", &headers, &body).await.status, 200);
    }

    async fn work(self, task: Value) {
        self.publish(0, json!({"event": "processing_started", "task_id": task})).await;
        for n in 0..CHUNKS {
            let chunk = json!({"event": "chunk", "chunk": format!("n{n} "), "task_id": task});
            self.publish(n as usize, chunk).await;
            tokio::time::sleep(PACE).await;
        }
        self.publish(0, json!({"event": "complete", "task_id": task})).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Workers that publish to the end, whatever is cancelled.
async fn replies_of_workers_that_do_not_stop(engine: Engine) {
    let workers = Workers::default();
    let started = workers.clone();
    let upstream = Upstream::start(move |request| {
        started.running.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(started.clone().work(request.json()["task_id"].clone()));
        Reply::status(202)
    })
    .await;
    run(engine, &upstream, &workers).await;
}

/// What a client has received of one reply.
#[derive(Debug, Default, Clone, PartialEq)]
struct Received {
    text: String,
    end: Option<String>,
}

/// The replies by task, as a client sorts them.
#[derive(Default)]
struct Sorted {
    replies: HashMap<String, Received>,
    /// The tasks that this client started.
    queued: Vec<String>,
}

impl Sorted {
    fn sort(&mut self, frame: &Value) {
        let event = frame["event"].as_str().expect("a name");
        if event == "task_queued" {
            self.queued.push(frame["task_id"].as_str().expect("a task").to_owned());
            return;
        }
        if frame["code"] == "unknown_task" {
            return;
        }
        let task = frame["task_id"].as_str().unwrap_or_else(|| panic!("no task: {frame}"));
        let reply = self.replies.entry(task.to_owned()).or_default();
        assert_eq!(reply.end, None, "after its end: {frame}");
        match event {
            "processing_started" => assert_eq!(reply.text, "", "{frame}"),
            "chunk" => reply.text.push_str(frame["chunk"].as_str().expect("a text")),
            end => reply.end = Some(end.to_owned()),
        }
    }

    /// Whether `count` replies have ended.
    fn is_done(&self, count: usize) -> bool {
        self.replies.values().filter(|reply| reply.end.is_some()).count() == count
    }
}

/// Reads until all replies have ended, and cancels some of them.
async fn follow(mut client: Client, count: usize, mut random: Random) -> (Client, Sorted) {
    let mut sorted = Sorted::default();
    while !sorted.is_done(count) {
        let frame = client.next_json().await;
        sorted.sort(&frame);
        if frame["event"] == "chunk" && random.below(40) == 0 {
            let cancel = json!({"type": "cancel", "task_id": frame["task_id"]});
            client.send_json(&cancel).await;
        }
    }
    (client, sorted)
}

async fn run(engine: Engine, upstream: &Upstream, workers: &Workers) {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = Random(seed);
    let count = if engine.server().is_some() { 2 } else { 1 };
    let mut nodes: Vec<Gateway> = Vec::new();
    for compact in ["off", "chunks"].into_iter().take(count) {
        nodes.push(engine.start(settings(upstream, compact)).await);
    }
    workers.nodes.lock().unwrap().extend(nodes.iter().map(Gateway::admin));
    for count in [2, 8, 2 + random.below(7) as usize] {
        let (_first, connected) = Client::connected(&nodes[0], PATH).await;
        let mut clients = Vec::new();
        for n in 0..CLIENTS {
            clients.push(Client::connected(&nodes[n % nodes.len()], PATH).await.0);
        }
        for (n, client) in clients.iter_mut().enumerate().take(count) {
            client.send_json(&json!({"message": "hi", "id": format!("{count}-{n}")})).await;
        }
        let followed = clients.into_iter().map(|client| {
            let random = Random(random.below(u64::MAX));
            tokio::spawn(follow(client, count, random))
        });
        let followed = within("end of all replies", futures_util::future::join_all(followed)).await;
        let mut followed: Vec<_> = followed.into_iter().map(Result::unwrap).collect();
        until("end of all workers", async || {
            (workers.running.load(Ordering::SeqCst) == 0).then_some(())
        })
        .await;
        for node in &nodes {
            node.publish("chat_42", json!({"event": "mark", "task_id": ""})).await;
        }
        let expected = followed[0].1.replies.clone();
        assert_eq!(expected.len(), count);
        for (client, sorted) in &mut followed {
            for _ in 0..nodes.len() {
                loop {
                    let frame = client.next_json().await;
                    if frame["event"] == "mark" {
                        break;
                    }
                    sorted.sort(&frame);
                }
            }
            assert_eq!(sorted.replies, expected, "all clients see the same");
        }
        let queued: usize = followed.iter().map(|(_, sorted)| sorted.queued.len()).sum();
        assert_eq!(queued, count);
        for reply in expected.values() {
            let numbers: Vec<u64> =
                reply.text.split_whitespace().map(|word| word[1..].parse().unwrap()).collect();
            let count = numbers.len() as u64;
            assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "{reply:?}");
            assert!(count == CHUNKS || reply.end.as_deref() == Some("cancelled"), "{reply:?}");
        }
        // A client that comes back sees the same, also where chunks are merged.
        for node in &nodes {
            let epoch = connected["epoch"].as_str().unwrap();
            let path = format!("{PATH}?since={}&epoch={epoch}", connected["offset"]);
            let (mut back, _) = Client::connected(node, &path).await;
            let mut sorted = Sorted::default();
            loop {
                let frame = back.next_json().await;
                if frame["event"] == "mark" {
                    break;
                }
                sorted.sort(&frame);
            }
            assert_eq!(sorted.replies, expected, "the history has what live clients saw");
        }
    }
}
