use super::*;

/// When each publication is due, in milliseconds after the first.
fn due(mut timing: ReplayTiming, recorded: &[Option<u64>]) -> Vec<u128> {
    let start = Instant::now();
    let times = recorded.iter().map(|at| at.map(Duration::from_millis));
    times.map(|at| timing.due(at, start).duration_since(start).as_millis()).collect()
}

#[test]
fn pauses_are_the_recorded_ones() {
    let recorded = [Some(1000), Some(1100), None, Some(1300), Some(1250), Some(3300)];
    let at = |speed| due(ReplayTiming::new(speed, None, None), &recorded);
    assert_eq!(at(ReplaySpeed::Factor(1.0)), [0, 100, 100, 300, 300, 2350]);
    assert_eq!(at(ReplaySpeed::Factor(2.0)), [0, 50, 50, 150, 150, 1175]);
    assert_eq!(at(ReplaySpeed::Max), [0; 6]);
    let every = Some(Duration::from_millis(20));
    let timing = ReplayTiming::new(ReplaySpeed::Factor(1.0), every, None);
    assert_eq!(due(timing, &recorded), [0, 20, 40, 60, 80, 100]);
    let max_pause = Some(Duration::from_millis(150));
    let timing = ReplayTiming::new(ReplaySpeed::Factor(1.0), None, max_pause);
    assert_eq!(due(timing, &recorded), [0, 100, 100, 250, 250, 400]);
}

#[test]
fn speeds_are_factors() {
    assert_eq!(parse_speed("2"), Ok(ReplaySpeed::Factor(2.0)));
    assert_eq!(parse_speed("max"), Ok(ReplaySpeed::Max));
    for invalid in ["0", "-1", "NaN", "inf", "fast", ""] {
        assert!(parse_speed(invalid).is_err(), "{invalid}");
    }
}
