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

#[test]
fn pauses_double_up_to_a_bound_and_follow_the_authority() {
    const NOW: u64 = 2_000_000_000;
    let mut failures = Failures::default();
    assert_eq!(failures.remaining(NOW), None);
    let pauses: Vec<_> = (0..12).map(|_| failures.add(NOW, None).as_secs() / 60).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 240, 240, 240, 240]);
    assert_eq!(failures.remaining(NOW), Some(LONGEST_PAUSE));
    assert_eq!(failures.remaining(NOW + LONGEST_PAUSE.as_secs()), None);
    assert_eq!(failures.remaining(0), Some(LONGEST_WANTED), "the clock was set back");
    let mut failures = Failures::default();
    assert_eq!(failures.add(NOW, Some(Duration::from_secs(3600))), Duration::from_secs(3600));
    assert_eq!(failures.add(NOW, Some(Duration::from_secs(7))), 2 * FIRST_PAUSE);
    assert_eq!(failures.add(NOW, Some(Duration::MAX)), LONGEST_WANTED);
}
