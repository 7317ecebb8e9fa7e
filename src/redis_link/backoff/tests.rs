use super::*;

#[test]
fn waits_double_to_the_cap_and_stay_in_the_upper_half() {
    let mut backoff = Backoff::new();
    for ceiling in [50, 100, 200, 400, 800, 1000, 1000] {
        let ceiling = Duration::from_millis(ceiling);
        let wait = backoff.next();
        assert!(wait >= ceiling / 2 && wait <= ceiling, "{wait:?} of {ceiling:?}");
    }
    backoff.reset();
    assert!(backoff.next() <= FIRST);
}

#[test]
fn waits_have_jitter() {
    let waits: std::collections::HashSet<_> =
        (0..20).map(|_| Backoff::new().next().as_nanos()).collect();
    assert!(waits.len() > 1);
}
