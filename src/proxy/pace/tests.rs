use super::*;

const MIN: MinPace = MinPace { timeout: Duration::from_secs(10), min_rate: 100 };

/// Each step waits for some seconds and then moves some bytes. Returns the step that was too slow.
fn too_slow(steps: &[(u64, usize)]) -> Option<usize> {
    let (mut pace, mut now) = (Pace::new(MIN), Instant::now());
    for (index, (seconds, bytes)) in steps.iter().enumerate() {
        let end = now + Duration::from_secs(*seconds);
        loop {
            match pace.wait(now) {
                None => return Some(index),
                Some(check) if check > end => break,
                Some(check) => now = check,
            }
        }
        now = end;
        pace.moved(now, *bytes);
    }
    None
}

#[test]
fn a_side_that_moves_nothing_is_too_slow() {
    assert_eq!(too_slow(&[(9, 1)]), None);
    assert_eq!(too_slow(&[(10, 0)]), Some(0));
    assert_eq!(too_slow(&[(1, 1_000_000), (30, 0)]), Some(1));
}

#[test]
fn a_trickle_is_too_slow_and_a_slow_client_is_not() {
    assert_eq!(too_slow(&[(1, 1); 100]), Some(9));
    assert_eq!(too_slow(&[(1, 120); 100]), None);
    assert_eq!(too_slow(&[(9, 1000); 100]), None);
}

#[test]
fn only_waiting_counts() {
    let (mut pace, mut now) = (Pace::new(MIN), Instant::now());
    for _ in 0..100 {
        assert!(pace.wait(now).is_some());
        now += Duration::from_millis(10);
        pace.moved(now, 1);
        // There is nothing to move for a long time.
        now += Duration::from_secs(3600);
    }
    assert!(pace.wait(now).is_some());
}
