//! How many commands the gateway sends to Redis for a message and its reply. docs/deployment.md states them.

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use crate::chat::{relayed, session};
use crate::outcome::attempt;
use crate::rig::upstream::{Reply, Upstream};
use crate::rig::{Client, Gateway, Redis, until, within};

/// What is sent for each of these, as in the table of docs/deployment.md.
const ADMISSION: usize = 1;
const ACCEPTED: usize = 2;
const EVENT: usize = 1;
const TERMINAL_EVENT: usize = 1;
const AFTER_THE_END: usize = 3;

/// Commands as Redis received them.
struct Monitor(mpsc::UnboundedReceiver<String>);

impl Monitor {
    /// The commands that name the channel or the route. Those that scripts run are not among them.
    async fn start(redis: &Redis) -> Self {
        let is_counted = |line: &str| {
            let is_called = !line.contains(" lua]");
            is_called && (line.contains("chat_42") || line.contains("/ws/chat/"))
        };
        Self::of(redis, is_counted).await
    }

    async fn of(redis: &Redis, matches: impl Fn(&str) -> bool + Send + 'static) -> Self {
        let mut stream = TcpStream::connect(redis.address()).await.unwrap();
        stream.write_all(b"MONITOR\r\n").await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("+OK"));
        let (sender, received) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if matches(&line) {
                    let _ = sender.send(line);
                }
            }
        });
        Self(received)
    }

    async fn expect(&mut self, what: &str, count: usize) {
        let mut commands = Vec::new();
        while commands.len() < count {
            let what = format!("{what}: {count} commands, of which came {commands:#?}");
            commands.push(within(&what, self.0.recv()).await.expect("redis-server runs"));
        }
    }

    /// Nothing more has been sent before a command of the test's own.
    async fn expect_no_more(&mut self, redis: &Redis) {
        let more = self.until_marker(redis).await;
        assert!(more.is_empty(), "more commands: {more:#?}");
    }

    async fn until_marker(&mut self, redis: &Redis) -> Vec<String> {
        let () = redis.run(&["SET", "marker:chat_42", "1"]).await;
        let mut before = Vec::new();
        loop {
            let next = within("the marker", self.0.recv()).await.expect("redis-server runs");
            if next.contains("marker:chat_42") {
                return before;
            }
            before.push(next);
        }
    }

    /// Waits until everything of the replies so far has been given back, and the gateway sends no more.
    async fn drain(&mut self, redis: &Redis) {
        until("nothing is left of a reply", async || {
            let held = ["tg:generations", "tg:gens:*", "tg:*running"].map(|pattern| async move {
                let keys: Vec<String> = redis.run(&["KEYS", pattern]).await;
                keys.is_empty()
            });
            let mut is_left = false;
            for is_gone in held {
                is_left |= !is_gone.await;
            }
            (!is_left).then_some(())
        })
        .await;
        let mut quiet = 0;
        while quiet < 10 {
            quiet = if self.until_marker(redis).await.is_empty() { quiet + 1 } else { 0 };
        }
    }
}

async fn start(redis: &Redis, upstream: &Upstream) -> (Gateway, Client) {
    let limits = "[route.limits]\nmessages_per_user = \"100/1s\"\ngenerations_per_user = 5\n\
        usage_per_user = \"1000000/1h\"";
    let gateway = Gateway::start(relayed(&upstream.url("/"), limits).redis(&redis.url())).await;
    let cookie = format!("access_token={}", session());
    let client = attempt(&gateway, "/ws/chat/42/", &[("cookie", &cookie)]).await;
    (gateway, client.expect("a session"))
}

async fn send(client: &mut Client, id: &str) {
    client.send_json(&json!({"message": "hi", "id": id})).await;
}

async fn until_complete(client: &mut Client) {
    for event in ["task_queued", "processing_started", "chunk", "complete"] {
        client.next_event(event).await;
    }
}

/// Everything that a message needs before its relay takes one round trip, whatever the limits of its user.
#[tokio::test]
async fn of_a_message_for_a_worker() {
    let redis = Redis::start().await;
    let (answer, may_answer) = watch::channel(true);
    let upstream =
        Upstream::start(move |_| Reply::Delayed(may_answer.clone(), Box::new(Reply::status(202))))
            .await;
    let (gateway, mut client) = start(&redis, &upstream).await;
    let mut monitor = Monitor::start(&redis).await;
    // Redis learns the scripts.
    send(&mut client, "first").await;
    client.next_event("task_queued").await;
    gateway.publish("chat_42", json!({"event": "complete"})).await;
    client.next_event("complete").await;
    upstream.next_request().await;
    monitor.drain(&redis).await;

    answer.send(false).unwrap();
    send(&mut client, "second").await;
    upstream.next_request().await;
    monitor.expect("admission", ADMISSION).await;
    monitor.expect_no_more(&redis).await;
    answer.send(true).unwrap();
    client.next_event("task_queued").await;
    monitor.expect("accepted", ACCEPTED).await;
    monitor.expect_no_more(&redis).await;
    send(&mut client, "second").await;
    let repeated = client.next_event("task_queued").await;
    assert_eq!(repeated["duplicate"], true);
    monitor.expect("a repeat", ADMISSION).await;
    monitor.expect_no_more(&redis).await;
}

/// Regression test: a node that took a reply over when its node died between both steps did not find its end without the
/// mark, and published another one.
#[tokio::test]
async fn a_reply_leaves_the_ledger_before_its_mark_is_removed() {
    let redis = Redis::start().await;
    let upstream = Upstream::accepting().await;
    let (gateway, mut client) = start(&redis, &upstream).await;
    send(&mut client, "first").await;
    client.next_event("task_queued").await;
    let (ledger, mark) = ("tg:generations", "tg:{chat_42}:running");
    until("a reply that is known to others", async || {
        let both: u64 = redis.run(&["EXISTS", ledger, mark]).await;
        (both == 2).then_some(())
    })
    .await;
    let is_removal = |line: &str, key: &str| {
        ["DEL", "HDEL", "ZREM"].iter().any(|name| line.contains(&format!("\"{name}\" \"{key}\"")))
    };
    let mut monitor =
        Monitor::of(&redis, move |line| is_removal(line, ledger) || is_removal(line, mark)).await;
    gateway.publish("chat_42", json!({"event": "complete"})).await;
    client.next_event("complete").await;
    let first = within("a removal", monitor.0.recv()).await.expect("redis-server runs");
    assert!(is_removal(&first, ledger), "{first}");
}

#[tokio::test]
async fn of_a_streamed_reply() {
    let redis = Redis::start().await;
    let upstream = Upstream::start(|_| Reply::Answer {
        status: 200,
        headers: vec![("content-type", "text/event-stream".to_owned())],
        body: "data: {\"event\":\"chunk\",\"chunk\":\"a\"}\n\n".into(),
    })
    .await;
    let (_gateway, mut client) = start(&redis, &upstream).await;
    let mut monitor = Monitor::start(&redis).await;
    send(&mut client, "first").await;
    until_complete(&mut client).await;
    monitor.drain(&redis).await;

    // Each message has as many as the one before.
    for number in 1..=3 {
        send(&mut client, &format!("m-{number}")).await;
        until_complete(&mut client).await;
        // `processing_started` and the chunk.
        let all = ADMISSION + ACCEPTED + 2 * EVENT + TERMINAL_EVENT + AFTER_THE_END;
        monitor.expect("a streamed reply", all).await;
        monitor.expect_no_more(&redis).await;
    }
}

#[test]
fn the_documented_numbers_are_these() {
    let page = include_str!("../../docs/deployment.md");
    for (what, count) in [
        ("before the upstream has the message", ADMISSION),
        ("once the upstream has accepted it", ACCEPTED),
        ("each event of a streamed reply", EVENT),
        ("its terminal event", TERMINAL_EVENT),
        ("after it", AFTER_THE_END),
    ] {
        let row = format!("| {what} | {count} |");
        assert!(page.contains(&row), "docs/deployment.md has no row that begins with {row:?}");
    }
}
