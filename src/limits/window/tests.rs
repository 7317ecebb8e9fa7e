use super::*;

#[test]
fn a_window_starts_with_its_first_hit_and_ends_as_a_whole() {
    let refused = |ms| Verdict::Refused { retry_after: Duration::from_millis(ms) };
    let mut window = Window::default();
    for (now, verdict) in [
        (5, Verdict::Allowed),
        (104, Verdict::Allowed),
        (104, refused(1)),
        (105, Verdict::Allowed),
        (105, Verdict::Allowed),
        (105, refused(100)),
        (1_000, Verdict::Allowed),
        (1_001, Verdict::Allowed),
        (1_099, refused(1)),
    ] {
        assert_eq!(window.hit(Demand::ACTION, 2, 100, now), verdict, "{now}");
    }
}

#[test]
fn a_charge_is_never_refused_and_a_check_counts_nothing() {
    let refused = |ms| Verdict::Refused { retry_after: Duration::from_millis(ms) };
    let mut window = Window::default();
    for (demand, now, verdict) in [
        (Demand::CHECK, 5, Verdict::Allowed),
        // The window begins here.
        (Demand::charge(9), 10, Verdict::Allowed),
        (Demand::CHECK, 50, Verdict::Allowed),
        (Demand::charge(u64::MAX), 50, Verdict::Allowed),
        (Demand::CHECK, 50, refused(60)),
        (Demand::CHECK, 110, Verdict::Allowed),
    ] {
        assert_eq!(window.hit(demand, 10, 100, now), verdict, "{now}");
    }
}
