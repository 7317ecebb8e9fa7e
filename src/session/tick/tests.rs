use super::*;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn times_are_exact_to_a_tick() {
    for start in [Duration::ZERO, Duration::from_millis(1234), 400 * DAY, 776 * DAY, 2000 * DAY] {
        let tick = Tick::at(start);
        assert_eq!(tick.elapsed(start), Duration::ZERO);
        for elapsed in [Duration::from_millis(100), SECOND, 30 * SECOND, 700 * DAY] {
            let measured = tick.elapsed(start + elapsed);
            assert!(
                measured.abs_diff(elapsed) <= SECOND / 64,
                "{start:?} {elapsed:?} {measured:?}"
            );
        }
    }
}
