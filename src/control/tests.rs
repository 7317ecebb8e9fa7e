//! Tests of commands on both engines, with a real Redis. A node is a [`Control`] with threads that the test
//! controls.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::protocol::ChannelName;
use crate::redis_link::Commands;
use crate::redis_link::test_server::RedisServer;

const SOON: Duration = Duration::from_secs(20);

async fn until(what: &str, condition: impl Fn() -> bool) {
    let reached = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, reached).await.is_ok(), "no {what}");
}

/// Records every cancel. Each one cancels as many generations as its task id has characters.
#[derive(Clone, Default)]
struct Cancels(Arc<Mutex<Vec<String>>>);

impl Cancels {
    fn hook(&self) -> CancelHook {
        let cancels = self.clone();
        Arc::new(move |channel, task_id| {
            cancels.0.lock().unwrap().push(format!("{channel} {task_id}"));
            task_id.len() as u64
        })
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// Answers every command with `closed` until it is dropped.
fn serve(mut worker: WorkerHandle, closed: u64) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(task) = worker.next().await {
            task.answer_closed(closed);
        }
    })
}

struct Node {
    control: Control,
    cancels: Cancels,
    workers: Vec<WorkerHandle>,
    shutdown: Shutdown,
}

impl Node {
    fn memory(threads: usize) -> Self {
        let cancels = Cancels::default();
        let (threads, workers) = Threads::new(threads, cancels.hook());
        Self { control: Control::memory(threads), cancels, workers, shutdown: Shutdown::new() }
    }

    async fn redis(server: &RedisServer, threads: usize) -> Self {
        let cancels = Cancels::default();
        let (threads, workers) = Threads::new(threads, cancels.hook());
        let shutdown = Shutdown::new();
        let commands = Commands::start(&server.url(), "test", &shutdown).unwrap();
        let control = Control::redis(&commands, "tg:", threads, &shutdown).unwrap();
        let node = Self { control, cancels, workers, shutdown };
        until("live node", || node.control.is_live()).await;
        node
    }

    /// Each thread answers with its number, from 1.
    fn serve(&mut self) {
        for (number, worker) in self.workers.drain(..).enumerate() {
            serve(worker, number as u64 + 1);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown.force();
    }
}

fn disconnect() -> NodeCommand {
    NodeCommand::Disconnect(serde_json::from_str(r#"{"user_id":7}"#).unwrap())
}

fn cancel(task_id: &str) -> NodeCommand {
    let channel = ChannelName::new("chat_42").unwrap();
    NodeCommand::Cancel { channel, task_id: task_id.to_owned() }
}

fn reached(affected: u64, answered: u64, asked: u64) -> Result<Reached, SendError> {
    Ok(Reached { affected, answered, asked })
}

#[tokio::test]
async fn one_process_sums_the_answers_of_its_threads() {
    let mut node = Node::memory(3);
    node.serve();
    assert_eq!(node.control.send(disconnect()).await, reached(6, 1, 1));
    assert_eq!(node.control.send(cancel("ab")).await, reached(2, 1, 1));
    assert_eq!(node.cancels.all(), ["chat_42 ab"], "once a node, not once a thread");
    assert!(node.control.is_live());
}

#[tokio::test]
async fn a_thread_that_ended_counts_as_done_and_one_that_hangs_does_not() {
    let mut node = Node::memory(3);
    serve(node.workers.remove(0), 5);
    drop(node.workers.remove(0));
    assert_eq!(node.control.send(disconnect()).await, reached(5, 0, 1), "the third hangs");
    // The thread wakes up, drops its commands and ends.
    let mut hanging = node.workers.remove(0);
    let ending = async move {
        drop([hanging.next().await, hanging.next().await]);
    };
    let (sent, ()) = tokio::join!(node.control.send(disconnect()), ending);
    assert_eq!(sent, reached(5, 1, 1));
}

#[tokio::test]
async fn the_queue_of_a_hanging_thread_is_bounded() {
    let mut node = Node::memory(1);
    let commands = (0..200).map(|_| node.control.send(disconnect()));
    for answer in futures_util::future::join_all(commands).await {
        assert_eq!(answer, reached(0, 0, 1));
    }
    // The queue is closed with its sender, so that it can be counted.
    let mut worker = node.workers.remove(0);
    drop(node);
    let mut waiting = 0;
    while worker.next().await.is_some() {
        waiting += 1;
    }
    assert_eq!(waiting, 64);
}

#[tokio::test]
async fn every_node_executes_a_command_once_and_the_sender_gets_the_sum() {
    let server = RedisServer::start();
    let (mut a, mut b) = (Node::redis(&server, 2).await, Node::redis(&server, 3).await);
    a.serve();
    b.serve();
    assert_eq!(a.control.send(disconnect()).await, reached(9, 2, 2));
    assert_eq!(b.control.send(cancel("abc")).await, reached(6, 2, 2));
    assert_eq!(
        (a.cancels.all(), b.cancels.all()),
        (vec!["chat_42 abc".into()], vec!["chat_42 abc".into()])
    );
    // Replies to concurrent commands are not mixed up.
    let ids: Vec<_> = (1..=40).map(|n| "x".repeat(n)).collect();
    let sent = ids.iter().map(|id| a.control.send(cancel(id)));
    let answers = futures_util::future::join_all(sent).await;
    for (id, answer) in ids.iter().zip(answers) {
        assert_eq!(answer, reached(2 * id.len() as u64, 2, 2));
    }
    b.control.leave().await;
    drop(b);
    let alone = || async { a.control.send(cancel("a")).await == reached(1, 1, 1) };
    let answered_alone = async {
        while !alone().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(SOON, answered_alone).await.is_ok(),
        "a node that has ended gets no commands"
    );
}

#[tokio::test]
async fn a_node_that_does_not_answer_in_full_is_not_counted() {
    let server = RedisServer::start();
    let (mut a, mut b) = (Node::redis(&server, 1).await, Node::redis(&server, 1).await);
    a.serve();
    assert_eq!(a.control.send(disconnect()).await, reached(1, 1, 2), "b's thread hangs");
    // A subscriber that does nothing looks like a node of another version.
    let (count, other) = subscriber(&server, "tg:control").await;
    b.serve();
    assert_eq!(a.control.send(disconnect()).await, reached(2, 2, 3));
    assert!(count.load(Ordering::Relaxed) > 0);
    drop(other);
}

/// Subscribes to `channel` and counts its messages.
async fn subscriber(server: &RedisServer, channel: &str) -> (Arc<AtomicUsize>, impl Sized + use<>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let primary = crate::redis_link::Primary::named(&server.url()).unwrap();
    let health = crate::redis_link::Health::default();
    let mut pubsub = crate::redis_link::PubSub::connect_to(&primary, &health, move |_, _| {
        counter.fetch_add(1, Ordering::Relaxed);
    })
    .await
    .unwrap();
    pubsub.subscribe(&[ChannelName::new(channel).unwrap()]).await.unwrap();
    (count, pubsub)
}

#[tokio::test]
async fn messages_that_are_not_commands_are_dropped() {
    let server = RedisServer::start();
    let mut node = Node::redis(&server, 1).await;
    node.serve();
    let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
    assert!(commands.wait_up(SOON).await);
    let long = format!("{{\"v\":1,\"kind\":\"cancel\",\"x\":\"{}\"}}", "x".repeat(100_000));
    let unknown = r#"{"v":1,"kind":"reload","id":"a","from":"b","order":{}}"#;
    for payload in ["", "nonsense", "[1]", "{\"v\":9}", unknown, &long] {
        let mut publish = ::redis::cmd("PUBLISH");
        publish.arg("tg:control").arg(payload);
        assert_eq!(commands.query::<u64>(&publish).await.unwrap(), 1, "{payload}");
    }
    assert_eq!(node.control.send(disconnect()).await, reached(1, 1, 1));
    assert!(node.cancels.all().is_empty());
    let large = node.control.send(cancel(&"x".repeat(20_000))).await;
    assert_eq!(large, Err(SendError::TooLarge));
}

#[tokio::test]
async fn a_lost_redis_is_reported_and_reconnected() {
    let mut server = RedisServer::start();
    let mut node = Node::redis(&server, 1).await;
    node.serve();
    server.kill();
    until("loss", || !node.control.is_live()).await;
    assert_eq!(node.control.send(disconnect()).await, Err(SendError::EngineUnavailable));
    server.restart();
    until("live node", || node.control.is_live()).await;
    assert_eq!(node.control.send(disconnect()).await, reached(1, 1, 1));
}

#[tokio::test]
async fn a_hung_redis_is_noticed_without_commands() {
    let server = RedisServer::start();
    let node = Node::redis(&server, 1).await;
    server.pause();
    until("loss", || !node.control.is_live()).await;
    server.resume();
    until("live node", || node.control.is_live()).await;
}

/// Answers lists of channels out of `names` until it is dropped.
fn list(mut worker: WorkerHandle, names: Vec<String>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(task) = worker.next().await {
            let ThreadCommand::List(Listing::Channels(query)) = &*task.command else { continue };
            let mut rows = Gathering::new(query.limit);
            for name in &names {
                let channel = ChannelName::new(name).unwrap();
                if query.matches(&channel) && rows.offer(&channel) {
                    rows.add(ChannelRow { channel, connections: 1 });
                }
            }
            task.answer_list(ListPart::Channels(rows.finish()));
        }
    })
}

#[tokio::test]
async fn rows_of_all_nodes_are_listed_page_by_page() {
    let server = RedisServer::start();
    let (mut a, mut b) = (Node::redis(&server, 2).await, Node::redis(&server, 1).await);
    // More than fits one reply, so that nodes leave some for the next page.
    let name = |n: usize| format!("{n:05}{}", "x".repeat(240));
    let names = |from: usize| (from..6000).step_by(3).map(name).collect::<Vec<_>>();
    for (worker, from) in a.workers.drain(..).chain(b.workers.drain(..)).zip(0..) {
        list(worker, names(from));
    }
    let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let query = Channels { after: after.take(), limit: 5000, ..Channels::default() };
        let listed = a.control.channels(query).await.unwrap();
        assert!(listed.reached.is_complete() && !listed.part.rows.is_empty());
        after = listed.part.rows.last().map(|row| row.channel.clone());
        seen.extend(listed.part.rows.into_iter().map(|row| row.channel.as_str().to_owned()));
        pages += 1;
        if !listed.part.more {
            break;
        }
    }
    assert_eq!(seen, (0..6000).map(name).collect::<Vec<_>>());
    assert!(pages > 1, "{pages}");
}

#[tokio::test]
async fn a_list_with_a_missing_answer_is_reported_as_incomplete() {
    let mut node = Node::memory(2);
    list(node.workers.remove(0), vec!["a".to_owned()]);
    let listed = node.control.channels(Channels { limit: 9, ..Channels::default() }).await.unwrap();
    assert_eq!((listed.part.rows.len(), listed.reached.is_complete()), (1, false), "one hangs");
    let elsewhere = Connections { node: Some("00".to_owned()), ..Connections::default() };
    let listed = node.control.connections(elsewhere).await.unwrap();
    assert_eq!((listed.part, listed.reached.is_complete()), (Part::default(), true));
}
