use super::*;

fn posting() -> Arc<OnComplete> {
    let config = config::OnComplete {
        url: "http://127.0.0.1:1/".parse().unwrap(),
        timeout: Duration::from_secs(1),
        headers: Vec::new(),
        signing_secret: None,
        include: Vec::new(),
    };
    OnComplete::new("worker", &config).unwrap()
}

#[test]
fn what_waits_is_bounded_by_count_and_bytes() {
    let shared = posting();
    let mut places: Vec<_> = (0..MAX_WAITING).map(|_| Place::take(&shared, 1).unwrap()).collect();
    assert!(Place::take(&shared, 1).is_none());
    places.pop();
    assert!(
        Place::take(&shared, MAX_BYTES).is_none(),
        "with the bytes of the others it is too much"
    );
    let last = Place::take(&shared, MAX_BYTES - (MAX_WAITING - 1));
    assert!(last.is_some());
    places.clear();
    assert!(Place::take(&shared, 2 * MAX_WAITING).is_none());
    drop(last);
    assert!(Place::take(&shared, MAX_BYTES).is_some());
}

#[test]
fn pauses_double_up_to_a_bound_and_follow_the_receiver() {
    for (attempts, longest) in [(1, 250), (2, 500), (5, 4000), (20, 30_000), (u32::MAX, 30_000)] {
        let longest = Duration::from_millis(longest);
        let pause = pause(attempts, None);
        assert!((longest / 2..=longest).contains(&pause), "{attempts} {pause:?}");
    }
    let asked = |seconds| pause(1, Some(Duration::from_secs(seconds)));
    assert_eq!(asked(7), Duration::from_secs(7));
    assert_eq!(asked(9999), LONGEST_ASKED_PAUSE);
}

#[test]
fn only_answers_that_may_change_are_repeated() {
    for (status, expected) in [
        (301, true),
        (400, true),
        (404, true),
        (408, false),
        (425, false),
        (429, false),
        (500, false),
        (503, false),
        (599, false),
    ] {
        assert_eq!(is_final(StatusCode::from_u16(status).unwrap()), expected, "{status}");
    }
}
