use super::*;

fn rate(count: u32, per_ms: u64, burst: u32) -> Rate {
    Rate { count, per: Duration::from_millis(per_ms), burst }
}

fn refused(ms: u64) -> Verdict {
    Verdict::Refused { retry_after: Duration::from_millis(ms) }
}

#[test]
fn a_bucket_empties_and_refills() {
    let mut bucket = LocalBucket::default();
    let ten_a_second = rate(10, 1000, 3);
    for (at_ms, verdict) in [
        (0, Verdict::Allowed),
        (0, Verdict::Allowed),
        (0, Verdict::Allowed),
        (0, refused(100)),
        (40, refused(60)),
        (100, Verdict::Allowed),
        (100, refused(100)),
        (10_000, Verdict::Allowed),
        (10_000, Verdict::Allowed),
        (10_000, Verdict::Allowed),
        (10_000, refused(100)),
    ] {
        let now = Duration::from_millis(at_ms);
        assert_eq!(bucket.take(ten_a_second, now), verdict, "at {at_ms} ms");
    }
}

#[test]
fn the_status_agrees_with_the_decision() {
    let rate = rate(7, 1000, 5);
    let gcra = Gcra::from(rate);
    let (mut full_at, mut now) = (0, 1_000_000);
    for step in 0..200u64 {
        let status = gcra.status(u64::saturating_sub(full_at, now), false);
        assert_eq!((status.max, status.used <= 5), (5, true));
        let verdict = gcra.take(Demand::ACTION, &mut full_at, now);
        match verdict {
            Verdict::Allowed => assert!(status.used < 5 && status.retry_after.is_zero()),
            Verdict::Refused { retry_after } => {
                assert_eq!((status.used, status.retry_after), (5, retry_after));
            }
        }
        now += step * 7919 % 230_000;
    }
}

#[test]
fn after_a_change_of_the_rate_a_refused_client_is_soon_allowed_again() {
    let (slow, fast) = (rate(1, 3_600_000, 1), rate(10, 1000, 20));
    let (mut bucket, mut now) = (LocalBucket::default(), Duration::from_secs(1));
    assert_eq!(bucket.take(slow, now), Verdict::Allowed);
    // A client that keeps trying is refused no longer than one that waits.
    for _ in 0..10 {
        assert!(matches!(bucket.take(fast, now), Verdict::Refused { .. }));
        now += Duration::from_millis(10);
    }
    assert_eq!(bucket.take(fast, now), Verdict::Allowed);
}

#[test]
fn after_retry_after_a_take_is_allowed() {
    let rate = rate(7, 1000, 2);
    let (mut bucket, mut now) = (LocalBucket::default(), Duration::ZERO);
    for _ in 0..1000 {
        if let Verdict::Refused { retry_after } = bucket.take(rate, now) {
            now += retry_after;
            assert_eq!(bucket.take(rate, now), Verdict::Allowed);
        }
    }
}

#[test]
fn a_clock_that_jumps_back_does_not_block_clients() {
    let rate = rate(1, 1000, 2);
    let mut bucket = LocalBucket::default();
    bucket.take(rate, Duration::from_secs(1_000_000));
    assert_eq!(bucket.take(rate, Duration::ZERO), refused(1000));
}

#[test]
fn extreme_rates_do_not_overflow() {
    for rate in [
        Rate { count: 0, per: Duration::ZERO, burst: 0 },
        Rate { count: 1, per: Duration::MAX, burst: u32::MAX },
        Rate { count: u32::MAX, per: Duration::ZERO, burst: u32::MAX },
    ] {
        let mut bucket = LocalBucket::default();
        assert_eq!(bucket.take(rate, Duration::ZERO), Verdict::Allowed, "{rate:?}");
        bucket.take(rate, Duration::MAX);
    }
}

#[test]
fn a_charge_is_never_refused_and_owes_at_most_a_whole_bucket() {
    let gcra = Gcra::from(rate(10, 1000, 10));
    let (mut full_at, now) = (0, 1_000_000);
    assert_eq!(gcra.take(Demand::charge(9), &mut full_at, now), Verdict::Allowed);
    assert_eq!(gcra.take(Demand::CHECK, &mut full_at, now), Verdict::Allowed);
    assert_eq!(gcra.take(Demand::CHECK, &mut full_at, now), Verdict::Allowed, "nothing is taken");
    assert_eq!(gcra.take(Demand::charge(4), &mut full_at, now), Verdict::Allowed);
    // Three are owed, and one must be there.
    assert_eq!(gcra.take(Demand::CHECK, &mut full_at, now), refused(400));
    let status = gcra.status(full_at - now, true);
    assert_eq!((status.max, status.used), (10, 13));
    assert_eq!(status.retry_after, Duration::from_millis(400));
    assert_eq!(gcra.take(Demand::CHECK, &mut full_at, now + 400_000), Verdict::Allowed);
    assert_eq!(gcra.take(Demand::charge(u64::MAX), &mut full_at, now), Verdict::Allowed);
    assert_eq!(gcra.take(Demand::CHECK, &mut full_at, now), refused(1100));
}
