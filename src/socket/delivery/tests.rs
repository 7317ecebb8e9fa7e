use super::*;
use crate::protocol::Epoch;

fn at(epoch: u64, offset: u64) -> Option<Position> {
    Some(Position { epoch: Epoch::new(epoch).unwrap(), offset })
}

fn publication(position: Option<Position>) -> Delivery {
    Delivery::new(Bytes::new(), position)
}

#[test]
fn a_publication_is_compared_by_its_position() {
    for (after, position, expected) in [
        (None, at(1, 5), Continuity::Next),
        (at(1, 5), None, Continuity::Next),
        (at(1, 5), at(1, 6), Continuity::Next),
        (at(1, 5), at(1, 9), Continuity::Next),
        (at(1, 5), at(1, 5), Continuity::Duplicate),
        (at(1, 5), at(1, 1), Continuity::Duplicate),
        (at(1, 5), at(2, 1), Continuity::NewEpoch(at(2, 0).unwrap())),
        (at(1, 5), at(2, 6), Continuity::Gap),
    ] {
        assert_eq!(continuity(after, &publication(position)), expected, "{after:?} {position:?}");
    }
}

#[test]
fn a_run_is_compared_by_its_first_and_last_position() {
    let run = |positions: &[Option<Position>]| -> Vec<_> {
        positions.iter().map(|position| publication(*position)).collect()
    };
    let after = at(1, 5);
    assert!(are_all_next(after, &run(&[])));
    assert!(are_all_next(after, &run(&[None, None])));
    assert!(are_all_next(after, &run(&[None, at(1, 6), None, at(1, 7)])));
    assert!(!are_all_next(after, &run(&[at(1, 5), at(1, 6)])));
    assert!(!are_all_next(after, &run(&[at(1, 6), at(2, 1)])));
    assert!(are_all_next(None, &run(&[at(1, 6), at(2, 1)])));
}
