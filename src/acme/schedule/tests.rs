use super::*;

const DAY: u64 = 24 * 3600;

#[test]
fn a_certificate_is_renewed_when_a_third_of_its_lifetime_is_left() {
    let renewal = |share, days| Spread::exactly(share).renewal(1000, 1000 + days * DAY) - 1000;
    assert_eq!(renewal(0.0, 90), 60 * DAY);
    assert_eq!(renewal(1.0, 90), 57 * DAY);
    assert_eq!(renewal(0.5, 6), 4 * DAY - DAY / 10);
    // One without a lifetime is renewed at once.
    assert_eq!(Spread::exactly(1.0).renewal(7, 7), 7);
    assert_eq!(Spread::exactly(1.0).renewal(7, 0), 7);
}

#[tokio::test]
async fn pauses_double_up_to_a_bound_and_follow_the_authority() {
    let (mut failures, now) = (Failures::default(), Instant::now());
    assert_eq!(failures.remaining(now), None);
    let pauses: Vec<_> = (0..12).map(|_| failures.add(now, None).as_secs() / 60).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 240, 240, 240, 240]);
    assert_eq!(failures.remaining(now), Some(LONGEST_PAUSE));
    assert_eq!(failures.remaining(now + LONGEST_PAUSE), None);
    failures.forget();
    assert_eq!(failures.remaining(now), None);
    assert_eq!(failures.add(now, Some(Duration::from_secs(3600))), Duration::from_secs(3600));
    assert_eq!(failures.add(now, Some(Duration::from_secs(7))), 2 * FIRST_PAUSE);
    assert_eq!(failures.add(now, Some(Duration::MAX)), LONGEST_WANTED);
}
