//! Two nodes and a real Redis.

use std::time::Instant;

use super::*;
use crate::generations::GenerationOrigin;
use crate::protocol::ChannelName;
use crate::redis_link::test_server::RedisServer;
use crate::shutdown::Shutdown;

const SOON: Duration = Duration::from_secs(10);
const TTL: Duration = Duration::from_secs(60);

struct Node {
    ledger: Ledger,
    running: RunningTasks,
}

impl Node {
    async fn on(server: &RedisServer) -> (Self, Commands) {
        let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
        assert!(commands.wait_up(SOON).await);
        let running = RunningTasks::default();
        (Self { ledger: Ledger::redis(commands.clone(), "tg:", &running), running }, commands)
    }

    fn held(&self) -> &HeldLeases<GenerationLessor> {
        self.ledger.0.as_deref().unwrap()
    }

    /// Pretends that the engine has answered for longer than a lease.
    fn trust(&self) {
        *self.held().lessor().answering_since() = Instant::now().checked_sub(2 * LEASE);
    }

    async fn claim(&self) -> Vec<Claimed> {
        self.trust();
        self.ledger.claim().await
    }

    async fn renew(&self) {
        assert!(self.held().renew_all().await);
    }
}

/// Two nodes, and a connection for the test.
async fn nodes(server: &RedisServer) -> (Node, Node, Commands) {
    let ((one, commands), (two, _)) = (Node::on(server).await, Node::on(server).await);
    (one, two, commands)
}

fn origin() -> GenerationOrigin {
    let (route, upstream) = ("/".into(), "".into());
    let (connection, user, began) = (None, None, std::time::Instant::now());
    GenerationOrigin { route, upstream, connection, user, streams: false, began }
}

fn task(id: &str) -> Task {
    Task { channel: ChannelName::new("chat_42").unwrap(), id: id.into() }
}

fn record(streams: bool) -> GenerationRecord {
    let user_lease = Some(("7".to_owned(), "f00".to_owned()));
    GenerationRecord {
        route: "/ws/{id}/".to_owned(),
        streams,
        ends_ms: 1,
        user_lease,
        turn: None,
        post: None,
    }
}

/// Pretends that the lease of the generation has expired.
async fn expire(commands: &Commands, id: &str) {
    let mut add = ::redis::cmd("ZADD");
    add.arg("tg:generations").arg("XX").arg("CH").arg(1000).arg(format!("chat_42 {id}"));
    let changed: u64 = commands.query(&add).await.unwrap();
    assert_eq!(changed, 1, "{id} was there, with a lease");
}

async fn entered(commands: &Commands) -> Vec<String> {
    let mut all = ::redis::cmd("ZRANGE");
    commands.query(all.arg("tg:generations").arg(0).arg(-1)).await.unwrap()
}

#[tokio::test]
async fn a_generation_is_entered_renewed_and_released() {
    let server = RedisServer::start();
    let (one, two, commands) = nodes(&server).await;
    let strange = "a b\n\"ü\" {}";
    let entry = one.ledger.enter(&task(strange), || record(true));
    one.ledger.flush().await;
    assert_eq!(entered(&commands).await, [format!("chat_42 {strange}")]);
    assert!(two.claim().await.is_empty(), "it is monitored");
    expire(&commands, strange).await;
    one.renew().await;
    assert!(two.claim().await.is_empty());
    drop(entry);
    one.ledger.flush().await;
    assert!(entered(&commands).await.is_empty());
    let record: u64 =
        commands.query(::redis::cmd("HLEN").arg("tg:generations:facts")).await.unwrap();
    assert_eq!(record, 0);
}

#[tokio::test]
async fn an_expired_generation_is_claimed_by_one_node() {
    let server = RedisServer::start();
    let (one, two, commands) = nodes(&server).await;
    let (three, _) = Node::on(&server).await;
    let reply = one.ledger.enter(&task("reply"), || record(true));
    let other = one.ledger.enter(&task("other"), || record(false));
    one.ledger.flush().await;
    expire(&commands, "reply").await;
    let (by_two, by_three) = tokio::join!(two.claim(), three.claim());
    let claimed: Vec<_> = by_two.iter().chain(&by_three).collect();
    let [claimed] = claimed.as_slice() else { panic!("by one of them: {claimed:?}") };
    assert_eq!((&claimed.task, &claimed.record), (&task("reply"), &record(true)));
    assert!(!claimed.cancelled);
    let taker = if by_two.is_empty() { &three } else { &two };
    taker.ledger.mark_lost(&claimed.task);
    taker.ledger.flush().await;
    // Its node lives after all, and learns of it; what it still has goes on.
    one.renew().await;
    reply.taken().await;
    assert!(!other.taken.is_cancelled());
    drop(reply);
    one.ledger.flush().await;
    assert_eq!(entered(&commands).await.len(), 2, "the taker's note is the taker's");
    expire(&commands, "reply").await;
    assert!(two.claim().await.is_empty(), "an ended generation is not claimed");
    assert_eq!(entered(&commands).await, ["chat_42 other"]);
}

#[tokio::test]
async fn a_node_that_resumes_a_claimed_generation_keeps_it() {
    let server = RedisServer::start();
    let (one, two, commands) = nodes(&server).await;
    one.ledger.enter(&task("before the engine knows"), || record(false)).hand_over();
    one.ledger.flush().await;
    assert_eq!(two.claim().await[0].record, record(false));
    two.ledger.release(&task("before the engine knows"));
    two.ledger.flush().await;
    let entry = one.ledger.enter(&task("a"), || record(false));
    one.ledger.flush().await;
    entry.hand_over();
    one.ledger.flush().await;
    let claimed = two.claim().await;
    let entry = two.ledger.resume(&claimed[0]);
    two.renew().await;
    one.renew().await;
    assert!(one.claim().await.is_empty());
    entry.abandon();
    two.ledger.flush().await;
    expire(&commands, "a").await;
    assert_eq!(one.claim().await.len(), 1);
}

#[tokio::test]
async fn a_cancellation_reaches_the_responsible_node() {
    let server = RedisServer::start();
    let (one, two, commands) = nodes(&server).await;
    assert_eq!(two.ledger.request_cancel(&task("a"), TTL).await, Ok(false));
    let run = one.running.register(task("a"), origin()).unwrap();
    let _entry = one.ledger.enter(&task("a"), || record(false));
    one.ledger.flush().await;
    assert_eq!(two.ledger.request_cancel(&task("a"), TTL).await, Ok(true));
    one.renew().await;
    tokio::time::timeout(SOON, run.cancelled()).await.unwrap();
    let left: i64 = commands.query(::redis::cmd("TTL").arg("tg:cancel:a")).await.unwrap();
    assert!((1..=60).contains(&left), "{left}");
    // And whoever takes it over.
    expire(&commands, "a").await;
    assert!(two.claim().await[0].cancelled);
    two.ledger.mark_lost(&task("a"));
    two.ledger.flush().await;
    assert_eq!(one.ledger.request_cancel(&task("a"), TTL).await, Ok(false));
}

#[tokio::test]
async fn a_new_task_is_not_cancelled_by_an_old_request() {
    let server = RedisServer::start();
    let (one, _, commands) = nodes(&server).await;
    one.ledger.notify_worker(&task("a"), TTL).await.unwrap();
    let run = one.running.register(task("a"), origin()).unwrap();
    let _entry = one.ledger.enter(&task("a"), || record(false));
    one.ledger.flush().await;
    one.renew().await;
    let there: u64 = commands.query(::redis::cmd("EXISTS").arg("tg:cancel:a")).await.unwrap();
    assert_eq!(there, 0);
    assert!(!run.canceller().is_cancelled());
}

#[tokio::test]
async fn nothing_is_claimed_before_all_nodes_could_renew() {
    let mut server = RedisServer::start();
    let (one, two, commands) = nodes(&server).await;
    let entry = one.ledger.enter(&task("a"), || record(true));
    one.ledger.flush().await;
    expire(&commands, "a").await;
    let handed_over = one.ledger.enter(&task("b"), || record(false));
    one.ledger.flush().await;
    assert!(two.ledger.claim().await.is_empty(), "it has only just begun to look");
    // What was handed over is free for certain.
    handed_over.hand_over();
    one.ledger.flush().await;
    let claimed = two.ledger.claim().await;
    assert_eq!(claimed.iter().map(|one| &one.task).collect::<Vec<_>>(), [&task("b")]);
    two.ledger.release(&task("b"));
    two.ledger.flush().await;
    two.trust();
    server.kill();
    assert!(two.ledger.claim().await.is_empty());
    server.restart();
    assert!(commands.wait_up(SOON).await);
    assert!(two.ledger.claim().await.is_empty());
    // Redis came back empty; a renewal brings it back.
    while !one.held().renew_all().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(entered(&commands).await, ["chat_42 a"]);
    drop(entry);
}

#[tokio::test]
async fn malformed_entries_are_removed() {
    let server = RedisServer::start();
    let (one, _, commands) = nodes(&server).await;
    for (member, record) in
        [("chat_42 a", "node nonsense"), ("no-space", "node {}"), ("chat b", "-")]
    {
        let mut add = ::redis::cmd("ZADD");
        let _: u64 = commands.query(add.arg("tg:generations").arg(1).arg(member)).await.unwrap();
        let mut set = ::redis::cmd("HSET");
        set.arg("tg:generations:facts").arg(member).arg(record);
        let _: u64 = commands.query(&set).await.unwrap();
    }
    assert!(one.claim().await.is_empty());
    assert!(entered(&commands).await.is_empty());
}

#[tokio::test]
async fn the_memory_engine_claims_nothing() {
    let ledger = Ledger::memory();
    drop(ledger.enter(&task("a"), || record(true)));
    ledger.flush().await;
    assert!(ledger.claim().await.is_empty());
    assert_eq!(ledger.request_cancel(&task("a"), TTL).await, Ok(false));
}
