use super::*;
use crate::config::Rate;
use crate::expiring_map::{SHARDS, SWEEP_FROM};

impl MemoryLimits {
    fn keys(&self) -> usize {
        self.buckets.len() + self.windows.len() + self.leases.len()
    }
}

#[test]
fn full_buckets_are_removed() {
    let limits = MemoryLimits::new();
    let fast = Gcra::from(Rate { count: 1000, per: Duration::from_millis(1), burst: 1 });
    for user in 0..200_000 {
        assert_eq!(limits.take(&user.to_string(), fast, Demand::ACTION), Ok(Verdict::Allowed));
    }
    assert!(limits.keys() < 2 * SHARDS * SWEEP_FROM, "{}", limits.keys());
}

#[test]
fn windows_that_ended_are_removed() {
    let limits = MemoryLimits::new();
    for user in 0..200_000 {
        let verdict = limits.hit(&user.to_string(), 1, Duration::from_millis(1), Demand::ACTION);
        assert_eq!(verdict, Ok(Verdict::Allowed));
    }
    assert!(limits.keys() < 2 * SHARDS * SWEEP_FROM, "{}", limits.keys());
}

#[test]
fn beyond_the_limit_new_users_are_refused_and_known_ones_are_not() {
    let buckets = ExpiringMap::with_bounds(1, 1000, usize::MAX);
    let limits = MemoryLimits { buckets, ..MemoryLimits::new() };
    let slow = Gcra::from(Rate { count: 2, per: Duration::from_secs(3600), burst: 2 });
    for user in 0..1000 {
        assert!(limits.take(&user.to_string(), slow, Demand::ACTION).is_ok());
    }
    assert_eq!(limits.take("one too many", slow, Demand::ACTION), Err(EngineUnavailable));
    assert_eq!(limits.take("0", slow, Demand::ACTION), Ok(Verdict::Allowed));
}

#[test]
fn released_leases_leave_nothing_behind() {
    let limits = MemoryLimits::new();
    let holder = Holder::random();
    limits.acquire("k", holder, 1).unwrap();
    limits.release("k", holder);
    limits.release("k", holder);
    assert_eq!(limits.keys(), 0);
}
