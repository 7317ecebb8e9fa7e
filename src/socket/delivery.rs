//! A publication on its way to a connection, and whether it is for that connection.
//!
//! A connection that resumed has read its channel's history up to some position, while live
//! publications were coming in already. Everything up to that position would be a repeat.

use bytes::Bytes;

use crate::protocol::Position;

/// A frame shared by all receivers, and its place in the channel's history where it has one.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub frame: Bytes,
    /// `None` = live only.
    pub position: Option<Position>,
}

impl AsRef<[u8]> for Delivery {
    /// The frame.
    fn as_ref(&self) -> &[u8] {
        &self.frame
    }
}

/// What a publication is to one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Next,
    /// It has it already.
    Had,
    /// The channel began anew; nothing was missed, since this is the first publication there.
    NewEpoch(Position),
    /// The channel goes on elsewhere, and what was before is not known.
    Lost,
}

/// `after` is the position that the connection began at. Publications of one epoch reach it in order,
/// so nothing newer need be remembered.
pub(super) fn judge(after: Option<Position>, publication: &Delivery) -> Verdict {
    let (Some(after), Some(position)) = (after, publication.position) else {
        return Verdict::Next;
    };
    if position.epoch == after.epoch {
        if position.offset > after.offset { Verdict::Next } else { Verdict::Had }
    } else if position.offset == 1 {
        Verdict::NewEpoch(Position { epoch: position.epoch, offset: 0 })
    } else {
        Verdict::Lost
    }
}

/// Whether all of `publications`, in order, are [`Verdict::Next`]: judged by the first and the last that
/// have a position, which is all there is to a run within one epoch.
pub(super) fn all_follow(after: Option<Position>, publications: &[Delivery]) -> bool {
    let next = |publication: &Delivery| judge(after, publication) == Verdict::Next;
    let mut positioned = publications.iter().filter(|publication| publication.position.is_some());
    match positioned.next() {
        None => true,
        Some(first) => next(first) && positioned.next_back().is_none_or(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Epoch;

    fn at(epoch: u64, offset: u64) -> Option<Position> {
        Some(Position { epoch: Epoch::new(epoch).unwrap(), offset })
    }

    fn publication(position: Option<Position>) -> Delivery {
        Delivery { frame: Bytes::new(), position }
    }

    #[test]
    fn a_publication_is_judged_by_its_place() {
        for (after, position, verdict) in [
            (None, at(1, 5), Verdict::Next),
            (at(1, 5), None, Verdict::Next),
            (at(1, 5), at(1, 6), Verdict::Next),
            (at(1, 5), at(1, 9), Verdict::Next),
            (at(1, 5), at(1, 5), Verdict::Had),
            (at(1, 5), at(1, 1), Verdict::Had),
            (at(1, 5), at(2, 1), Verdict::NewEpoch(at(2, 0).unwrap())),
            (at(1, 5), at(2, 6), Verdict::Lost),
        ] {
            assert_eq!(judge(after, &publication(position)), verdict, "{after:?} {position:?}");
        }
    }

    #[test]
    fn a_run_is_judged_by_its_ends() {
        let run = |places: &[Option<Position>]| -> Vec<_> {
            places.iter().map(|place| publication(*place)).collect()
        };
        let after = at(1, 5);
        assert!(all_follow(after, &run(&[])));
        assert!(all_follow(after, &run(&[None, None])));
        assert!(all_follow(after, &run(&[None, at(1, 6), None, at(1, 7)])));
        assert!(!all_follow(after, &run(&[at(1, 5), at(1, 6)])));
        assert!(!all_follow(after, &run(&[at(1, 6), at(2, 1)])));
        assert!(all_follow(None, &run(&[at(1, 6), at(2, 1)])));
    }
}
