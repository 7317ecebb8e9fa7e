//! Tests of the shared limits, run on both engines.

use std::time::{Duration, Instant};

use super::*;
use crate::leases::LEASE;
use crate::limits::LeaseKind;
use crate::protocol::Template;
use crate::redis_link::test_server::{RedisServer, on_both_engines};
use crate::shutdown::Shutdown;

const SOON: Duration = Duration::from_secs(10);

/// Limits on one engine, and the server that they need.
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

on_both_engines! {
    a_burst_is_allowed_and_then_refused burst_then_refusal;
    a_bucket_refills refills;
    users_routes_and_limits_are_independent independent;
    simultaneous_takes_do_not_overdraw no_overdraft;
    a_window_counts_hits_and_ends_as_a_whole window;
    windows_with_different_keys_are_independent windows_apart;
    simultaneous_hits_do_not_exceed_the_limit no_overrun;
    usage_is_charged_in_full_and_checked_before_the_next usage;
    leases_are_acquired_and_released leases;
    simultaneous_acquires_do_not_exceed_the_limit no_overbooking;
    a_connect_is_counted_and_then_leased connects;
    simultaneous_connects_exceed_neither_limit no_excess;
}

fn connections(user: &str) -> LeaseKey<'_> {
    LeaseKey { kind: LeaseKind::Connection, route: "/ws", user }
}

fn hourly(count: u32) -> UserRate {
    UserRate::Bucket(Rate { count, per: Duration::from_secs(3600), burst: count })
}

/// The limits of a route without parameters.
impl SharedLimits {
    async fn take_one(
        &self,
        limit: LimitName,
        route: &str,
        user: &str,
        rate: UserRate,
    ) -> Result<Verdict, EngineUnavailable> {
        self.take(limit, route, &Params::default(), user, &rate).await
    }
}

fn is_refused(verdict: Verdict, within: Duration) -> bool {
    matches!(verdict, Verdict::Refused { retry_after } if !retry_after.is_zero() && retry_after <= within)
}

async fn burst_then_refusal(bench: Bench) {
    let take = || bench.limits.take_one(LimitName::Messages, "/ws", "1", hourly(5));
    for _ in 0..5 {
        assert_eq!(take().await, Ok(Verdict::Allowed));
    }
    // The next token is there after 3600 s / 5. A refusal does not take a token.
    for _ in 0..3 {
        assert!(is_refused(take().await.unwrap(), Duration::from_secs(720)));
    }
}

async fn usage(bench: Bench) {
    let params = Params::default();
    let window =
        UserRate::Window(FixedWindow { count: 100, per: Duration::from_secs(3600), key: None });
    for (rate, most_seconds) in [(hourly(100), 1800), (window, 3600)] {
        let check = || bench.limits.check_usage("/ws", &params, "1", &rate);
        let charge = |tokens| bench.limits.charge_usage(tokens, "/ws", &params, "1", &rate);
        assert_eq!(check().await, Ok(Verdict::Allowed));
        charge(99).await;
        assert_eq!(check().await, Ok(Verdict::Allowed), "one is left");
        charge(50).await;
        assert!(is_refused(check().await.unwrap(), Duration::from_secs(most_seconds)));
        let limit = UserLimit::Rate(LimitName::Usage, &rate);
        let status =
            bench.limits.status(limit, "/ws", &Params::default(), "1").await.unwrap().unwrap();
        // Some of a bucket may be back already.
        assert!((148..=149).contains(&status.used) && status.max == 100, "{status:?}");
        assert!(status.retry_after > Duration::from_secs(1000), "{status:?}");
        charge(u64::MAX).await;
        assert!(is_refused(check().await.unwrap(), Duration::from_secs(3636)));
        assert_eq!(bench.limits.reset(limit, "/ws", "1").await, Ok(Some(true)));
        assert_eq!(check().await, Ok(Verdict::Allowed));
    }
}

async fn refills(bench: Bench) {
    let rate = UserRate::Bucket(Rate { count: 20, per: Duration::from_secs(1), burst: 1 });
    let take = || bench.limits.take_one(LimitName::Connects, "/ws", "1", rate.clone());
    assert_eq!(take().await, Ok(Verdict::Allowed));
    let deadline = Instant::now() + SOON;
    while take().await != Ok(Verdict::Allowed) {
        assert!(Instant::now() < deadline, "refilled in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn independent(bench: Bench) {
    let one = hourly(1);
    for (limit, route, user) in [
        (LimitName::Messages, "/a", "1"),
        (LimitName::Messages, "/a", "2"),
        (LimitName::Messages, "/b", "1"),
        (LimitName::Connects, "/a", "1"),
    ] {
        assert_eq!(
            bench.limits.take_one(limit, route, user, one.clone()).await,
            Ok(Verdict::Allowed)
        );
        let again = bench.limits.take_one(limit, route, user, one.clone()).await.unwrap();
        assert!(is_refused(again, Duration::from_secs(3600)), "{limit:?} {route} {user}");
    }
}

async fn no_overdraft(bench: Bench) {
    let takes = (0..100).map(|_| {
        let limits = bench.limits.clone();
        tokio::spawn(async move {
            limits.take_one(LimitName::Messages, "/ws", "1", hourly(10)).await.unwrap()
        })
    });
    let verdicts = futures_util::future::join_all(takes).await;
    let allowed = verdicts.iter().filter(|v| matches!(v, Ok(Verdict::Allowed))).count();
    assert_eq!(allowed, 10);
}

fn fixed(count: u32, per: Duration, key: &str) -> UserRate {
    let key = (!key.is_empty()).then(|| Template::parse(key).unwrap());
    UserRate::Window(FixedWindow { count, per, key })
}

async fn window(bench: Bench) {
    const LENGTH: Duration = Duration::from_millis(300);
    for key in ["", "app:1:rate_limit:messages:user:{user_id}"] {
        let rate = fixed(3, LENGTH, key);
        let take = || bench.limits.take_one(LimitName::Messages, "/ws", "1", rate.clone());
        let began = Instant::now();
        let refused = loop {
            match take().await.unwrap() {
                Verdict::Allowed => {}
                refused => break refused,
            }
        };
        assert!(is_refused(refused, LENGTH), "{refused:?}");
        let Verdict::Refused { retry_after } = refused else { panic!() };
        assert!(retry_after + began.elapsed() >= LENGTH.saturating_sub(Duration::from_millis(2)));
        // The next window allows all of its hits at once.
        let next = async || while take().await != Ok(Verdict::Allowed) {};
        tokio::time::timeout(SOON, next()).await.expect("the window ends");
        assert!(began.elapsed() + Duration::from_millis(2) >= LENGTH);
        assert_eq!(take().await, Ok(Verdict::Allowed));
    }
}

async fn windows_apart(bench: Bench) {
    let hour = Duration::from_secs(3600);
    let hit =
        |limit, route, user, key| bench.limits.take_one(limit, route, user, fixed(1, hour, key));
    use LimitName::{Connects, Messages};
    for (limit, route, user, key) in [
        (Messages, "/a", "1", ""),
        (Messages, "/a", "2", ""),
        (Messages, "/b", "1", ""),
        (Connects, "/a", "1", ""),
        (Messages, "/a", "1", "m:{user_id}"),
        (Messages, "/a", "2", "m:{user_id}"),
        (Connects, "/a", "1", "c:{user_id}"),
    ] {
        assert_eq!(hit(limit, route, user, key).await, Ok(Verdict::Allowed), "{key} {user}");
        assert!(is_refused(hit(limit, route, user, key).await.unwrap(), hour), "{key} {user}");
    }
    // Routes with the same key share a counter.
    assert!(is_refused(hit(Messages, "/b", "1", "m:{user_id}").await.unwrap(), hour));
}

async fn no_overrun(bench: Bench) {
    let rate = fixed(10, Duration::from_secs(3600), "m:{user_id}");
    let hits = (0..100).map(|_| {
        let (limits, rate) = (bench.limits.clone(), rate.clone());
        tokio::spawn(async move {
            limits.take_one(LimitName::Messages, "/ws", "1", rate).await.unwrap()
        })
    });
    let verdicts = futures_util::future::join_all(hits).await;
    let allowed = verdicts.iter().filter(|v| matches!(v, Ok(Verdict::Allowed))).count();
    assert_eq!(allowed, 10);
}

async fn leases(bench: Bench) {
    let [a, b, c] = std::array::from_fn(|_| Holder::random());
    let acquire = |id, max| bench.limits.acquire(connections("1"), id, max);
    assert_eq!(acquire(a, 2).await, Ok(Verdict::Allowed));
    assert_eq!(acquire(b, 2).await, Ok(Verdict::Allowed));
    let refused = acquire(c, 2).await.unwrap();
    assert!(is_refused(refused, LEASE), "{refused:?}");
    assert_eq!(bench.limits.acquire(connections("2"), c, 2).await, Ok(Verdict::Allowed));
    let generations = LeaseKey { kind: LeaseKind::Generation, ..connections("1") };
    assert_eq!(bench.limits.acquire(generations, c, 1).await, Ok(Verdict::Allowed));
    assert_eq!(acquire(b, 2).await, Ok(Verdict::Allowed), "the lease is renewed");
    bench.limits.release_all(&[(&bench.limits.lease_key(connections("1")), a)]).await.unwrap();
    assert_eq!(acquire(c, 2).await, Ok(Verdict::Allowed));
    let none = acquire(a, 0).await.unwrap();
    assert!(matches!(none, Verdict::Refused { retry_after } if retry_after >= MIN_RETRY_AFTER));
}

fn hourly_window(count: u32) -> UserRate {
    UserRate::Window(FixedWindow { count, per: Duration::from_secs(3600), key: None })
}

async fn connects(bench: Bench) {
    let params = Params::default();
    for (user, rate) in [("1", hourly(3)), ("2", hourly_window(3))] {
        let [a, b, c, d] = [(); 4].map(|()| Holder::random());
        let (key, limits) = (connections(user), &bench.limits);
        let connect = |holder, max| limits.connect(&params, &rate, key, holder, max);
        let hour = Duration::from_secs(3600);
        assert_eq!(connect(a, 2).await, Ok(ConnectVerdict::Allowed), "{user}");
        assert_eq!(connect(b, 2).await, Ok(ConnectVerdict::Allowed), "{user}");
        // It is counted all the same.
        let refused = connect(c, 2).await.unwrap();
        assert!(
            matches!(refused, ConnectVerdict::TooMany { retry_after } if retry_after >= MIN_RETRY_AFTER && retry_after <= LEASE),
            "{refused:?}"
        );
        for _ in 0..2 {
            let refused = connect(d, 100).await.unwrap();
            assert!(
                matches!(refused, ConnectVerdict::TooOften { retry_after } if !retry_after.is_zero() && retry_after <= hour),
                "{refused:?}"
            );
        }
        let status = limits.status(UserLimit::Leases(key.kind, 2), "/ws", &params, user).await;
        assert_eq!(status.unwrap().unwrap().used, 2, "who is refused has no lease");
        let limit = UserLimit::Rate(LimitName::Connects, &rate);
        let status = limits.status(limit, "/ws", &params, user).await.unwrap().unwrap();
        assert_eq!((status.used, status.max), (3, 3), "a refused connect is not counted");
        // The same counters and leases as of the single steps.
        let taken = limits.take_one(LimitName::Connects, "/ws", user, rate.clone()).await;
        assert!(is_refused(taken.unwrap(), hour));
        assert_eq!(limits.acquire(key, c, 3).await, Ok(Verdict::Allowed));
        assert_ne!(limits.acquire(key, d, 3).await, Ok(Verdict::Allowed));
    }
}

async fn no_excess(bench: Bench) {
    let params = Params::default();
    for (user, rate) in [("1", hourly(20)), ("2", hourly_window(20))] {
        let all = (0..50)
            .map(|_| bench.limits.connect(&params, &rate, connections(user), Holder::random(), 5));
        let verdicts = futures_util::future::join_all(all).await;
        let count = |is: fn(&ConnectVerdict) -> bool| {
            verdicts.iter().filter(|verdict| is(verdict.as_ref().unwrap())).count()
        };
        assert_eq!(count(|verdict| *verdict == ConnectVerdict::Allowed), 5);
        assert_eq!(count(|verdict| matches!(verdict, ConnectVerdict::TooMany { .. })), 15);
        assert_eq!(count(|verdict| matches!(verdict, ConnectVerdict::TooOften { .. })), 30);
    }
}

#[tokio::test]
async fn a_connect_whose_window_is_not_a_number_has_no_lease() {
    let bench = Bench::redis().await;
    let (_, commands) = bench.redis.as_ref().unwrap();
    let (params, rate) = (Params::default(), hourly_window(3));
    let key = bench.limits.counter_key(LimitName::Connects, "/ws", &params, "1", &rate);
    let () = commands.query(redis::cmd("SET").arg(&key).arg("\u{80}pickle")).await.unwrap();
    let holder = Holder::random();
    let refused = bench.limits.connect(&params, &rate, connections("1"), holder, 3).await;
    assert_eq!(refused, Err(EngineUnavailable));
    let leased: u64 = commands
        .query(redis::cmd("ZCARD").arg(bench.limits.lease_key(connections("1"))))
        .await
        .unwrap();
    assert_eq!(leased, 0);
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
async fn keys_in_redis_expire() {
    let bench = Bench::redis().await;
    let (_, commands) = bench.redis.as_ref().unwrap();
    bench.limits.take_one(LimitName::Messages, "/ws", "1", hourly(5)).await.unwrap();
    bench.limits.acquire(connections("1"), Holder::random(), 3).await.unwrap();
    for (key, longest) in
        [("tg:limit:messages_per_user:/ws:1", 720_000), ("tg:conns:/ws:1", 60_000)]
    {
        let ttl: i64 = commands.query(redis::cmd("PTTL").arg(key)).await.unwrap();
        assert!((1..=longest).contains(&ttl), "{key} {ttl}");
    }
}

#[tokio::test]
async fn an_expired_lease_is_replaced() {
    let bench = Bench::redis().await;
    let (_, commands) = bench.redis.as_ref().unwrap();
    // These leases are of a node that died.
    let mut old = redis::cmd("ZADD");
    old.arg("tg:conns:/ws:1").arg(1_000).arg("gone").arg(2_000).arg("gone too");
    let () = commands.query(&old).await.unwrap();
    let verdict = bench.limits.acquire(connections("1"), Holder::random(), 1).await;
    assert_eq!(verdict, Ok(Verdict::Allowed));
    let key: i64 = commands.query(redis::cmd("ZCARD").arg("tg:conns:/ws:1")).await.unwrap();
    assert_eq!(key, 1);
}

#[tokio::test]
async fn scripts_are_loaded_again_after_a_flush() {
    let bench = Bench::redis().await;
    let (_, commands) = bench.redis.as_ref().unwrap();
    for _ in 0..2 {
        let verdict = bench.limits.take_one(LimitName::Messages, "/ws", "1", hourly(5)).await;
        assert_eq!(verdict, Ok(Verdict::Allowed));
        let () = commands.query(redis::cmd("SCRIPT").arg("FLUSH")).await.unwrap();
    }
}

#[tokio::test]
async fn without_redis_limits_are_unavailable() {
    let mut bench = Bench::redis().await;
    bench.redis.as_mut().unwrap().0.kill();
    let taken = bench.limits.take_one(LimitName::Messages, "/ws", "1", hourly(5)).await;
    assert_eq!(taken, Err(EngineUnavailable));
    let leased = bench.limits.acquire(connections("1"), Holder::random(), 3).await;
    assert_eq!(leased, Err(EngineUnavailable));
}

const DJANGO_KEY: &str = "app:1:rate_limit:messages:user:1";

/// Uses Django's cache like a typical rate limit: reads, then sets or increments, in separate commands.
async fn django_admits(commands: &Commands, limit: u64) -> bool {
    let count: Option<u64> = commands.query(redis::cmd("GET").arg(DJANGO_KEY)).await.unwrap();
    match count {
        Some(count) if count >= limit => return false,
        Some(_) => {
            let exists: bool = commands.query(redis::cmd("EXISTS").arg(DJANGO_KEY)).await.unwrap();
            assert!(exists);
            let incr = redis::cmd("INCRBY").arg(DJANGO_KEY).arg(1).to_owned();
            let _: u64 = commands.query(&incr).await.unwrap();
        }
        None => {
            let set = redis::cmd("SET").arg(DJANGO_KEY).arg(1).arg("EX").arg(3600).to_owned();
            let () = commands.query(&set).await.unwrap();
        }
    }
    true
}

fn django_rate(count: u32) -> UserRate {
    fixed(count, Duration::from_secs(3600), "app:1:rate_limit:messages:user:{user_id}")
}

#[tokio::test]
async fn django_and_the_gateway_count_together() {
    for django_is_first in [true, false] {
        let bench = Bench::redis().await;
        let (_, commands) = bench.redis.as_ref().unwrap();
        let take = || bench.limits.take_one(LimitName::Messages, "/ws", "1", django_rate(6));
        for step in 0..6 {
            if (step % 2 == 0) == django_is_first {
                assert!(django_admits(commands, 6).await, "{step}");
            } else {
                assert_eq!(take().await, Ok(Verdict::Allowed), "{step}");
            }
        }
        assert!(!django_admits(commands, 6).await);
        assert!(is_refused(take().await.unwrap(), Duration::from_secs(3600)));
        let value: String = commands.query(redis::cmd("GET").arg(DJANGO_KEY)).await.unwrap();
        assert_eq!(value, "6", "refused hits are not counted");
        let ttl: i64 = commands.query(redis::cmd("TTL").arg(DJANGO_KEY)).await.unwrap();
        assert!((3590..=3600).contains(&ttl), "{ttl}");
    }
}

/// Django reads and increments in two steps, so each of its concurrent requests may exceed the limit by one. The
/// gateway must not exceed it any further.
#[tokio::test]
async fn the_gateway_never_exceeds_a_limit_that_it_shares_with_django() {
    const LIMIT: u32 = 200;
    for django_requests in [0, 1, 4] {
        let bench = Bench::redis().await;
        let (_, commands) = bench.redis.as_ref().unwrap();
        let () = commands
            .query(redis::cmd("SET").arg(DJANGO_KEY).arg(0).arg("EX").arg(3600))
            .await
            .unwrap();
        let gateways = (0..4).map(|_| {
            let limits = bench.limits.clone();
            tokio::spawn(async move {
                let mut admitted = 0;
                let limit = LimitName::Messages;
                while limits.take_one(limit, "/ws", "1", django_rate(LIMIT)).await.unwrap()
                    == Verdict::Allowed
                {
                    admitted += 1;
                }
                admitted
            })
        });
        let django_clients = (0..django_requests).map(|_| {
            let commands = commands.clone();
            tokio::spawn(async move {
                let mut admitted = 0;
                while django_admits(&commands, LIMIT.into()).await {
                    admitted += 1;
                }
                admitted
            })
        });
        let all: Vec<_> = gateways.chain(django_clients).collect();
        let admitted: u32 =
            futures_util::future::join_all(all).await.into_iter().map(Result::unwrap).sum();
        assert!((LIMIT..=LIMIT + django_requests).contains(&admitted), "{admitted}");
        let value: u32 = commands.query(redis::cmd("GET").arg(DJANGO_KEY)).await.unwrap();
        assert_eq!(value, admitted);
    }
}

#[tokio::test]
async fn a_window_without_an_expiry_gets_one() {
    let bench = Bench::redis().await;
    let (_, commands) = bench.redis.as_ref().unwrap();
    let take = || bench.limits.take_one(LimitName::Messages, "/ws", "1", django_rate(2));
    for (count, allowed) in
        [("1", true), ("2", false), ("-7", true), ("99999999999999999999", false)]
    {
        let () = commands.query(redis::cmd("SET").arg(DJANGO_KEY).arg(count)).await.unwrap();
        assert_eq!(take().await == Ok(Verdict::Allowed), allowed, "{count}");
        let ttl: i64 = commands.query(redis::cmd("TTL").arg(DJANGO_KEY)).await.unwrap();
        assert!((3590..=3600).contains(&ttl), "{count} {ttl}");
    }
}

#[tokio::test]
async fn a_value_that_is_not_an_integer_is_not_changed() {
    let bench = Bench::redis().await;
    let (_, commands) = bench.redis.as_ref().unwrap();
    let take = || bench.limits.take_one(LimitName::Messages, "/ws", "1", django_rate(2));
    // The values are pickled, compressed and written by hand.
    for value in [&b"\x80\x05K\x01."[..], b"\x78\x9c", b"", b"1.5", b" 1"] {
        let set = redis::cmd("SET").arg(DJANGO_KEY).arg(value).to_owned();
        let () = commands.query(&set).await.unwrap();
        assert_eq!(take().await, Err(EngineUnavailable), "{value:?}");
        let value_after: Vec<u8> = commands.query(redis::cmd("GET").arg(DJANGO_KEY)).await.unwrap();
        assert_eq!(value_after, value);
    }
    let () = commands.query(redis::cmd("DEL").arg(DJANGO_KEY)).await.unwrap();
    let _: u64 = commands.query(redis::cmd("LPUSH").arg(DJANGO_KEY).arg(1)).await.unwrap();
    assert_eq!(take().await, Err(EngineUnavailable));
}
