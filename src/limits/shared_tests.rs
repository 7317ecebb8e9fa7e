//! The same tests against both engines.

use std::time::{Duration, Instant};

use super::*;
use crate::leases::LEASE;
use crate::limits::Leased;
use crate::redis_link::test_server::RedisServer;
use crate::shutdown::Shutdown;

const SOON: Duration = Duration::from_secs(10);

/// Limits on one engine, and what must live as long as they.
struct Bench {
    limits: SharedLimits,
    redis: Option<(RedisServer, Commands)>,
}

impl Bench {
    async fn memory() -> Self {
        Self { limits: SharedLimits::memory(), redis: None }
    }

    async fn redis() -> Self {
        let server = RedisServer::start();
        let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
        assert!(commands.wait_up(SOON).await);
        let limits = SharedLimits::redis(commands.clone(), "tg:");
        Self { limits, redis: Some((server, commands)) }
    }
}

macro_rules! on_both_engines {
    ($($name:ident $test:expr;)*) => {
        mod on_memory {
            use super::*;
            $(#[tokio::test] async fn $name() { $test(Bench::memory().await).await; })*
        }
        mod on_redis {
            use super::*;
            $(#[tokio::test] async fn $name() { $test(Bench::redis().await).await; })*
        }
    };
}

on_both_engines! {
    a_burst_is_allowed_and_then_refused burst_then_refusal;
    a_bucket_refills refills;
    users_routes_and_limits_are_kept_apart kept_apart;
    simultaneous_takes_do_not_overdraw no_overdraft;
    places_are_leased_and_given_back places;
    simultaneous_acquires_do_not_overbook no_overbooking;
}

fn connections(user: &str) -> Places<'_> {
    Places { of: Leased::Connection, route: "/ws", user }
}

fn hourly(count: u32) -> Rate {
    Rate { count, per: Duration::from_secs(3600), burst: count }
}

fn is_refused(verdict: Verdict, within: Duration) -> bool {
    matches!(verdict, Verdict::Refused { retry_after } if !retry_after.is_zero() && retry_after <= within)
}

async fn burst_then_refusal(bench: Bench) {
    let take = || bench.limits.take(LimitName::MessagesPerUser, "/ws", "1", hourly(5));
    for _ in 0..5 {
        assert_eq!(take().await, Ok(Verdict::Allowed));
    }
    // 3600 s / 5 until the next; a refusal costs nothing more.
    for _ in 0..3 {
        assert!(is_refused(take().await.unwrap(), Duration::from_secs(720)));
    }
}

async fn refills(bench: Bench) {
    let rate = Rate { count: 20, per: Duration::from_secs(1), burst: 1 };
    let take = || bench.limits.take(LimitName::ConnectsPerUser, "/ws", "1", rate);
    assert_eq!(take().await, Ok(Verdict::Allowed));
    let deadline = Instant::now() + SOON;
    while take().await != Ok(Verdict::Allowed) {
        assert!(Instant::now() < deadline, "refilled in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn kept_apart(bench: Bench) {
    let one = hourly(1);
    for (limit, route, user) in [
        (LimitName::MessagesPerUser, "/a", "1"),
        (LimitName::MessagesPerUser, "/a", "2"),
        (LimitName::MessagesPerUser, "/b", "1"),
        (LimitName::ConnectsPerUser, "/a", "1"),
    ] {
        assert_eq!(bench.limits.take(limit, route, user, one).await, Ok(Verdict::Allowed));
        let again = bench.limits.take(limit, route, user, one).await.unwrap();
        assert!(is_refused(again, Duration::from_secs(3600)), "{limit:?} {route} {user}");
    }
}

async fn no_overdraft(bench: Bench) {
    let takes = (0..100).map(|_| {
        let limits = bench.limits.clone();
        tokio::spawn(async move {
            limits.take(LimitName::MessagesPerUser, "/ws", "1", hourly(10)).await.unwrap()
        })
    });
    let verdicts = futures_util::future::join_all(takes).await;
    let allowed = verdicts.iter().filter(|v| matches!(v, Ok(Verdict::Allowed))).count();
    assert_eq!(allowed, 10);
}

async fn places(bench: Bench) {
    let [a, b, c] = std::array::from_fn(|_| Holder::random());
    let acquire = |id, max| bench.limits.acquire(connections("1"), id, max);
    assert_eq!(acquire(a, 2).await, Ok(Verdict::Allowed));
    assert_eq!(acquire(b, 2).await, Ok(Verdict::Allowed));
    let refused = acquire(c, 2).await.unwrap();
    assert!(is_refused(refused, LEASE), "{refused:?}");
    assert_eq!(bench.limits.acquire(connections("2"), c, 2).await, Ok(Verdict::Allowed));
    let generations = Places { of: Leased::Generation, ..connections("1") };
    assert_eq!(bench.limits.acquire(generations, c, 1).await, Ok(Verdict::Allowed));
    assert_eq!(acquire(b, 2).await, Ok(Verdict::Allowed), "it is one of the two");
    bench.limits.release_all(&[(&bench.limits.lease_key(connections("1")), a)]).await.unwrap();
    assert_eq!(acquire(c, 2).await, Ok(Verdict::Allowed));
    let none = acquire(a, 0).await.unwrap();
    assert!(matches!(none, Verdict::Refused { retry_after } if retry_after >= LEAST_WAIT));
}

async fn no_overbooking(bench: Bench) {
    let acquires = (0..50).map(|_| {
        let limits = bench.limits.clone();
        tokio::spawn(
            async move { limits.acquire(connections("1"), Holder::random(), 3).await.unwrap() },
        )
    });
    let verdicts = futures_util::future::join_all(acquires).await;
    let allowed = verdicts.iter().filter(|v| matches!(v, Ok(Verdict::Allowed))).count();
    assert_eq!(allowed, 3);
}

#[tokio::test]
async fn what_redis_keeps_expires() {
    let bench = Bench::redis().await;
    let (_, commands) = bench.redis.as_ref().unwrap();
    bench.limits.take(LimitName::MessagesPerUser, "/ws", "1", hourly(5)).await.unwrap();
    bench.limits.acquire(connections("1"), Holder::random(), 3).await.unwrap();
    for (key, longest) in
        [("tg:limit:messages_per_user:/ws:1", 720_000), ("tg:conns:/ws:1", 60_000)]
    {
        let left: i64 = commands.query(redis::cmd("PTTL").arg(key)).await.unwrap();
        assert!((1..=longest).contains(&left), "{key} {left}");
    }
}

#[tokio::test]
async fn a_lease_that_expired_makes_room() {
    let bench = Bench::redis().await;
    let (_, commands) = bench.redis.as_ref().unwrap();
    // As a node left it that died a minute ago.
    let mut old = redis::cmd("ZADD");
    old.arg("tg:conns:/ws:1").arg(1_000).arg("gone").arg(2_000).arg("gone too");
    let () = commands.query(&old).await.unwrap();
    let verdict = bench.limits.acquire(connections("1"), Holder::random(), 1).await;
    assert_eq!(verdict, Ok(Verdict::Allowed));
    let places: i64 = commands.query(redis::cmd("ZCARD").arg("tg:conns:/ws:1")).await.unwrap();
    assert_eq!(places, 1);
}

#[tokio::test]
async fn scripts_survive_a_redis_that_forgot_them() {
    let bench = Bench::redis().await;
    let (_, commands) = bench.redis.as_ref().unwrap();
    for _ in 0..2 {
        let verdict = bench.limits.take(LimitName::MessagesPerUser, "/ws", "1", hourly(5)).await;
        assert_eq!(verdict, Ok(Verdict::Allowed));
        let () = commands.query(redis::cmd("SCRIPT").arg("FLUSH")).await.unwrap();
    }
}

#[tokio::test]
async fn without_redis_no_limit_is_known() {
    let mut bench = Bench::redis().await;
    bench.redis.as_mut().unwrap().0.kill();
    let taken = bench.limits.take(LimitName::MessagesPerUser, "/ws", "1", hourly(5)).await;
    assert_eq!(taken, Err(EngineDown));
    let leased = bench.limits.acquire(connections("1"), Holder::random(), 3).await;
    assert_eq!(leased, Err(EngineDown));
}
