//! Tests of leases with a real Redis, on a local task set like that of a worker thread.

use std::time::Duration;

use tokio::task::LocalSet;

use super::*;
use crate::leases::MAX_RELEASES;
use crate::limits::{LeaseKind, Verdict};
use crate::redis_link::Commands;
use crate::redis_link::test_server::RedisServer;
use crate::shutdown::Shutdown;

const SOON: Duration = Duration::from_secs(20);
const KEY: &str = "tg:conns:/ws:1";
const LEASE_KEY: LeaseKey<'_> = LeaseKey { kind: LeaseKind::Connection, route: "/ws", user: "1" };

struct Bench {
    server: RedisServer,
    commands: Commands,
    set: Rc<LeaseSet>,
}

impl Bench {
    async fn start() -> Self {
        let server = RedisServer::start();
        let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
        assert!(commands.wait_up(SOON).await);
        let set = LeaseSet::new(SharedLimits::redis(commands.clone(), "tg:"));
        Self { server, commands, set }
    }

    async fn acquired(&self) -> Holder {
        let id = Holder::random();
        let verdict = self.set.0.lessor().acquire(LEASE_KEY, id, 10_000).await;
        assert_eq!(verdict, Ok(Verdict::Allowed));
        id
    }

    async fn leases(&self) -> Option<usize> {
        self.commands.query(redis::cmd("ZCARD").arg(KEY)).await.ok()
    }

    async fn until_there_are(&self, count: usize) {
        let wait = async {
            while self.leases().await != Some(count) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, wait).await.expect("leases counted in time");
    }
}

#[tokio::test]
async fn a_dropped_guard_releases_its_lease() {
    let bench = Bench::start().await;
    let set = bench.set.clone();
    LocalSet::new()
        .run_until(async {
            tokio::task::spawn_local(set.clone().run());
            let (one, other) = (bench.acquired().await, bench.acquired().await);
            let guards = (set.hold(LEASE_KEY, one), set.hold(LEASE_KEY, other));
            bench.until_there_are(2).await;
            drop(guards.0);
            bench.until_there_are(1).await;
            drop(guards.1);
            bench.until_there_are(0).await;
            set.remove(one);
            assert_eq!(set.0.counts().2, 0);
        })
        .await;
}

#[tokio::test]
async fn leases_are_renewed_in_batches() {
    let bench = Bench::start().await;
    let ids: Vec<_> = (0..1201).map(|_| Holder::random()).collect();
    ids.iter().for_each(|id| bench.set.add(LEASE_KEY, *id));
    bench.set.remove(ids[0]);
    // None of them was acquired, but a renewal creates missing leases.
    assert!(bench.set.0.renew_all().await);
    assert_eq!(bench.leases().await, Some(1200));
    // Nothing is due twice.
    assert_eq!(bench.set.0.counts(), (1200, 1200, 1));

    let ttl: i64 = bench.commands.query(redis::cmd("PTTL").arg(KEY)).await.unwrap();
    assert!((1..=60_000).contains(&ttl), "{ttl}");
    ids.iter().for_each(|id| bench.set.remove(*id));
    assert!(bench.set.flush().await);
    assert_eq!(bench.leases().await, Some(0));
}

#[tokio::test]
async fn leases_are_restored_in_a_redis_that_lost_its_data() {
    let mut bench = Bench::start().await;
    let set = bench.set.clone();
    LocalSet::new()
        .run_until(async {
            tokio::task::spawn_local(set.clone().run());
            let (kept, closed) = (bench.acquired().await, bench.acquired().await);
            set.add(LEASE_KEY, kept);
            set.add(LEASE_KEY, closed);
            bench.server.kill();
            bench.set.0.make_due();
            set.remove(closed);
            bench.server.restart();
            bench.until_there_are(1).await;
            let members: Vec<String> =
                bench.commands.query(redis::cmd("ZRANGE").arg(KEY).arg(0).arg(-1)).await.unwrap();
            assert_eq!(members, [kept.to_string()]);
        })
        .await;
}

#[tokio::test]
async fn releases_that_wait_for_redis_are_bounded() {
    let mut bench = Bench::start().await;
    bench.server.kill();
    for _ in 0..MAX_RELEASES + 700 {
        let id = Holder::random();
        bench.set.add(LEASE_KEY, id);
        bench.set.remove(id);
    }
    assert!(!bench.set.flush().await);
    assert_eq!(bench.set.0.counts().2, MAX_RELEASES);
}

#[tokio::test]
async fn a_forgotten_lease_is_not_released() {
    let bench = Bench::start().await;
    let other = LeaseSet::new(SharedLimits::redis(bench.commands.clone(), "tg:"));
    let id = bench.acquired().await;
    let lease = bench.set.hold(LEASE_KEY, id);
    let taken = other.hold(LEASE_KEY, lease.holder().to_string().parse().unwrap());
    lease.forget();
    assert!(bench.set.flush().await);
    bench.until_there_are(1).await;
    drop(taken);
    assert!(other.flush().await);
    bench.until_there_are(0).await;
}

#[tokio::test]
async fn leases_in_memory_are_renewed_and_released() {
    let limits = SharedLimits::memory();
    let set = LeaseSet::new(limits.clone());
    let (one, other) = (Holder::random(), Holder::random());
    assert_eq!(limits.acquire(LEASE_KEY, one, 1).await, Ok(Verdict::Allowed));
    let lease = set.hold(LEASE_KEY, one);
    assert!(set.0.renew_all().await);
    assert!(matches!(limits.acquire(LEASE_KEY, other, 1).await, Ok(Verdict::Refused { .. })));
    drop(lease);
    assert!(set.flush().await);
    assert_eq!(limits.acquire(LEASE_KEY, other, 1).await, Ok(Verdict::Allowed));
}
