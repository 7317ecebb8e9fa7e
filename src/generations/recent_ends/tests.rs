use super::*;
use crate::protocol::Epoch;

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn an_end_is_remembered_for_its_time() {
    let (mut ends, now) = (RecentEnds::new(MINUTE), Instant::now());
    ends.record(1, None, now);
    assert!(ends.contains(1, now + MINUTE / 2) && !ends.contains(2, now));
    assert!(!ends.contains(1, now + MINUTE));
    ends.forget(1);
    assert!(!ends.contains(1, now));
    ends.record(2, None, now + 2 * MINUTE);
    assert_eq!((ends.ends.len(), ends.order.len()), (1, 1));
}

#[test]
fn the_same_publication_is_not_a_second_end() {
    let position = |offset| Some(Position { epoch: Epoch::new(1).unwrap(), offset });
    let (mut ends, now) = (RecentEnds::new(MINUTE), Instant::now());
    ends.record(1, position(7), now);
    assert!(!ends.is_repeat(1, position(7), now));
    assert!(ends.is_repeat(1, position(8), now));
    assert!(ends.is_repeat(1, None, now));
}

#[test]
fn the_oldest_are_forgotten() {
    let (mut ends, now) = (RecentEnds::new(MINUTE), Instant::now());
    for key in 0..2 * MAX_ENDS as u64 {
        ends.record(key, None, now);
    }
    assert_eq!((ends.ends.len(), ends.order.len()), (MAX_ENDS, MAX_ENDS));
    assert!(!ends.contains(0, now) && ends.contains(2 * MAX_ENDS as u64 - 1, now));
}
