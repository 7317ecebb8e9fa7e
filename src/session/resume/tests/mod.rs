//! Random interleavings of publishing, connecting, reading slowly, disconnecting and resuming, with a history
//! that is being trimmed all the while and, on Redis, a subscription that is cut. Whatever happens, each
//! client's publications are a sequence without gap or repeat, or the client is informed of the gap.

mod client;
mod node;

use std::rc::Rc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tokio::task::{JoinHandle, LocalSet};

use crate::redis_link::test_server::RedisServer;
use client::TestClient;
use node::Node;

const CLIENTS: usize = 4;

/// How many publications the channel keeps: few, so that some are trimmed while clients are away.
const KEPT: usize = 40;

/// How many bytes a client's connection takes while the client does not read.
const PIPE: usize = 700;

/// This many turns of all tasks are followed by a pause in which a lost subscription can come back.
const MANY_TURNS: u8 = 30;

const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
enum Step {
    Publish {
        count: usize,
        bytes: usize,
    },
    /// Connects, from the position where the client was if it ever was connected.
    Connect(usize),
    Drop(usize),
    /// Lets the client read, or makes it stop reading.
    Reads(usize, bool),
    /// Lets all tasks run for a while.
    Settle(u8),
    /// Redis ends the subscription.
    Cut,
    /// The engine loses the channel's history, or a part of it.
    Evict(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 0..CLIENTS;
    let step = prop_oneof![
        6 => (1..12usize, 1..400usize).prop_map(|(count, bytes)| Step::Publish { count, bytes }),
        5 => client.clone().prop_map(Step::Connect),
        3 => client.clone().prop_map(Step::Drop),
        3 => (client, any::<bool>()).prop_map(|(client, reads)| Step::Reads(client, reads)),
        4 => (1..2 * MANY_TURNS).prop_map(Step::Settle),
        2 => Just(Step::Cut),
        1 => any::<bool>().prop_map(Step::Evict),
    ];
    prop::collection::vec(step, 1..50)
}

async fn until<T>(condition: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(began.elapsed() < TIMEOUT, "in time");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn run(node: Rc<Node>, steps: Vec<Step>) {
    until(|| node.services.broker.is_live().then_some(())).await;
    let mut clients: Vec<TestClient> = (0..CLIENTS).map(|_| TestClient::default()).collect();
    clients.iter().for_each(|client| client.state.is_reading.set(true));
    let mut publishers = Vec::new();
    for step in steps {
        match step {
            Step::Publish { count, bytes } => {
                let node = Rc::clone(&node);
                publishers.push(tokio::task::spawn_local(async move {
                    for _ in 0..count {
                        node.publish(bytes).await;
                    }
                }));
            }
            Step::Connect(client) => clients[client].connect(&node),
            Step::Drop(client) => clients[client].disconnect(),
            Step::Reads(client, reads) => clients[client].state.is_reading.set(reads),
            Step::Settle(turns) => {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
                if turns > MANY_TURNS && node.redis.is_some() {
                    tokio::time::sleep(Duration::from_millis(turns.into())).await;
                }
            }
            Step::Cut => node.cut_subscription().await,
            Step::Evict(everything) => node.evict(everything).await,
        }
    }
    // In the end every client reads, reconnects as often as it is closed, and gets the newest publication. A
    // client that is connected stays so: what it has missed without noticing must come by itself.
    for publisher in publishers {
        publisher.await.unwrap();
    }
    clients.iter().for_each(|client| client.state.is_reading.set(true));
    until(|| node.services.broker.is_live().then_some(())).await;
    let away = clients.iter_mut().filter(|client| client.connection.is_none());
    away.for_each(|client| client.connect(&node));
    node.publish(1).await;
    let newest = node.number.get();
    let newest = node.published.borrow().iter().find(|(_, n)| **n == newest).unwrap().0.clone();
    for client in &mut clients {
        let began = Instant::now();
        while client.state.position.borrow().as_ref() != Some(&newest) {
            let position = client.state.position.borrow().clone();
            assert!(began.elapsed() < TIMEOUT, "{position:?} is not {newest:?}");
            let has_ended = client.connection.as_ref().is_some_and(JoinHandle::is_finished);
            assert!(!has_ended || client.state.is_closed.get(), "a client found a gap or a repeat");
            if client.state.is_closed.get() {
                client.connect(&node);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    clients.iter_mut().for_each(TestClient::disconnect);
    node.services.shutdown.force();
}

fn check(cases: u32, redis: Option<&RedisServer>) {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&steps(), |steps| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = LocalSet::new();
        local.block_on(&runtime, async { run(Node::start(redis).await, steps).await });
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[test]
fn any_interleaving_on_memory() {
    check(200, None);
}

#[test]
fn any_interleaving_on_redis() {
    let server = RedisServer::start();
    check(60, Some(&server));
}
