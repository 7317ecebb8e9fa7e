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
        assert_eq!(window.hit(2, 100, now), verdict, "{now}");
    }
}
