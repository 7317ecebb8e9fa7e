//! The same tests against both engines.

use super::*;
use crate::redis_link::test_server::{RedisServer, on_both_engines};
use crate::shutdown::Shutdown;

const RELAY: Duration = Duration::from_secs(10);
const TTL: Duration = Duration::from_secs(600);

/// Two nodes on one engine, and what must live as long as they.
struct Bench {
    one: Deduplicator,
    two: Deduplicator,
    redis: Option<(RedisServer, Commands)>,
}

impl Bench {
    async fn memory() -> Self {
        let dedup = Deduplicator::memory();
        Self { two: dedup.clone(), one: dedup, redis: None }
    }

    async fn redis() -> Self {
        let server = RedisServer::start();
        let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
        let other = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
        for commands in [&commands, &other] {
            assert!(commands.wait_up(RELAY).await);
        }
        let one = Deduplicator::redis(commands.clone(), "tg:");
        Self { one, two: Deduplicator::redis(other, "tg:"), redis: Some((server, commands)) }
    }
}

on_both_engines! {
    a_repeat_gets_the_first_answer repeats;
    a_message_that_failed_may_be_sent_again failures;
    of_many_at_once_one_is_relayed simultaneous;
    a_repeat_waits_for_the_first_and_takes_over_where_it_fails takes_over;
    a_claim_that_was_overtaken_changes_nothing overtaken;
    answers_expire expiry;
    nobody_waits_for_what_is_not_wanted unwanted;
}

fn message(id: &str) -> MessageKey {
    MessageKey::new("/ws", IdScope::User(&UserId::Integer(7)), id)
}

async fn claim_or_wait(dedup: &Deduplicator, id: &str) -> DedupOutcome {
    dedup.claim_or_wait(message(id), RELAY, TTL, || true).await.unwrap()
}

async fn first(dedup: &Deduplicator, id: &str) -> Claim {
    match claim_or_wait(dedup, id).await {
        DedupOutcome::First(claim) => claim,
        DedupOutcome::Repeat { task_id } => panic!("relayed before as {task_id}"),
    }
}

async fn repeat(dedup: &Deduplicator, id: &str) -> String {
    match claim_or_wait(dedup, id).await {
        DedupOutcome::First(_) => panic!("not relayed before"),
        DedupOutcome::Repeat { task_id } => task_id,
    }
}

async fn repeats(bench: Bench) {
    first(&bench.one, "a").await.complete("task of a").await;
    for once in [&bench.one, &bench.two] {
        assert_eq!(repeat(once, "a").await, "task of a");
    }
    first(&bench.two, "b").await.complete("").await;
    assert_eq!(repeat(&bench.one, "b").await, "");
}

async fn failures(bench: Bench) {
    first(&bench.one, "a").await.release().await;
    first(&bench.two, "a").await.release().await;
    first(&bench.one, "a").await.complete("third").await;
    assert_eq!(repeat(&bench.two, "a").await, "third");
}

async fn simultaneous(bench: Bench) {
    let relays = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let sends = (0..50).map(|n| {
        let dedup = if n % 2 == 0 { bench.one.clone() } else { bench.two.clone() };
        let relays = Arc::clone(&relays);
        tokio::spawn(async move {
            match claim_or_wait(&dedup, "a").await {
                DedupOutcome::First(claim) => {
                    relays.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    claim.complete("the task").await;
                    "the task".to_owned()
                }
                DedupOutcome::Repeat { task_id } => task_id,
            }
        })
    });
    for task_id in futures_util::future::join_all(sends).await {
        assert_eq!(task_id.unwrap(), "the task");
    }
    assert_eq!(relays.load(std::sync::atomic::Ordering::SeqCst), 1);
}

async fn takes_over(bench: Bench) {
    let claim = first(&bench.one, "a").await;
    let other = bench.two.clone();
    let mut waiting = tokio::spawn(async move { claim_or_wait(&other, "a").await });
    let early = tokio::time::timeout(3 * POLL, &mut waiting).await;
    assert!(early.is_err(), "nobody has an answer while the first is being relayed");
    claim.release().await;
    let DedupOutcome::First(claim) = waiting.await.unwrap() else { panic!("nobody relayed it") };
    claim.complete("second").await;
    assert_eq!(repeat(&bench.one, "a").await, "second");
}

async fn overtaken(bench: Bench) {
    let ours = first(&bench.one, "a").await;
    claim(&bench.two, "a").release().await;
    claim(&bench.two, "a").complete("late").await;
    ours.complete("ours").await;
    claim(&bench.two, "a").release().await;
    assert_eq!(repeat(&bench.two, "a").await, "ours");
    // A claim that expired, with nobody behind it, still leaves its answer.
    claim(&bench.one, "b").complete("in the end").await;
    assert_eq!(repeat(&bench.two, "b").await, "in the end");
}

/// One that expired, as far as the engine knows.
fn claim(dedup: &Deduplicator, id: &str) -> Claim {
    Claim {
        dedup: dedup.clone(),
        message: message(id),
        token: Bits128::random().to_string(),
        ttl: TTL,
        lease: RELAY,
    }
}

async fn expiry(bench: Bench) {
    let short = Duration::from_millis(50);
    let claim_for = |ttl| bench.one.claim_or_wait(message("a"), RELAY, ttl, || true);
    let Ok(DedupOutcome::First(claim)) = claim_for(short).await else { panic!("not the first") };
    claim.complete("gone soon").await;
    let deadline = Instant::now() + RELAY;
    loop {
        match claim_for(TTL).await.unwrap() {
            DedupOutcome::First(claim) => return claim.release().await,
            DedupOutcome::Repeat { task_id } => assert_eq!(task_id, "gone soon"),
        }
        assert!(Instant::now() < deadline, "expired in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn unwanted(bench: Bench) {
    let _claim = first(&bench.one, "a").await;
    let outcome = bench.two.claim_or_wait(message("a"), RELAY, TTL, || false).await;
    assert_eq!(outcome.unwrap_err(), DedupError::Unwanted);
}

#[tokio::test]
async fn a_repeat_waits_for_a_bounded_time() {
    let dedup = Deduplicator::memory();
    let _claim = first(&dedup, "a").await;
    let waited = dedup.claim_within(3 * POLL, message("a"), TTL, || true).await;
    assert_eq!(waited.unwrap_err(), DedupError::StillRelaying);
}

#[tokio::test]
async fn keys_in_redis_expire() {
    let bench = Bench::redis().await;
    let (_, commands) = bench.redis.as_ref().unwrap();
    let left = async |id: &str| -> i64 {
        let key = format!("tg:message:{}", message(id).text);
        commands.query(::redis::cmd("PTTL").arg(key)).await.unwrap()
    };
    let claim = first(&bench.one, "a").await;
    let lease = (RELAY + LEASE_MARGIN).as_millis() as i64;
    assert!((1..=lease).contains(&left("a").await));
    claim.complete("t").await;
    assert!((lease..=600_000).contains(&left("a").await));
    first(&bench.one, "b").await.release().await;
    assert_eq!(left("b").await, -2);
}

#[tokio::test]
async fn no_message_is_relayed_without_redis() {
    let mut bench = Bench::redis().await;
    bench.redis.as_mut().unwrap().0.kill();
    let outcome = bench.one.claim_or_wait(message("a"), RELAY, TTL, || true).await;
    assert_eq!(outcome.unwrap_err(), DedupError::EngineUnavailable);
}

#[tokio::test]
async fn an_answer_is_stored_once_redis_is_back() {
    let mut bench = Bench::redis().await;
    let claim = first(&bench.one, "a").await;
    bench.redis.as_mut().unwrap().0.kill();
    let told = tokio::spawn(async move { claim.complete("kept").await });
    bench.redis.as_mut().unwrap().0.restart();
    told.await.unwrap();
    assert!(bench.redis.as_ref().unwrap().1.wait_up(RELAY).await);
    assert_eq!(repeat(&bench.one, "a").await, "kept");
}

#[test]
fn keys_differ_unless_all_their_parts_are_equal() {
    let user = |name: &str| UserId::Text(name.into());
    let connection = ConnectionId::random();
    let named = user(&connection.to_string());
    let keys = [
        MessageKey::new("/ws", IdScope::User(&user("a")), "b:c"),
        MessageKey::new("/ws", IdScope::User(&user("a:b")), "c"),
        MessageKey::new("/ws:a", IdScope::User(&user("b")), "c"),
        MessageKey::new("/ws", IdScope::User(&named), "c"),
        MessageKey::new("/ws", IdScope::Connection(connection), "c"),
    ];
    for (index, key) in keys.iter().enumerate() {
        assert!(!keys[..index].contains(key), "{key:?}");
    }
    let long = MessageKey::new("/ws", IdScope::User(&user("a")), &"x".repeat(100_000));
    assert!(long.text.len() < 100);
}
