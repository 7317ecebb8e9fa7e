//! A publication on its way to a connection, and whether it continues what the client has.
//!
//! A connection that resumed has read its channel's history up to some position, while live publications
//! were coming in already. Everything up to that position would be a duplicate.

use std::sync::Arc;

use bytes::Bytes;

use super::deflate::CompressedForms;

use crate::protocol::Position;

/// A frame shared by all receivers, and its position in the channel's history if it has one.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub frame: Bytes,
    /// `None` if the channel keeps no history.
    pub position: Option<Position>,
    /// The compressed forms of the frame. `None` while nobody wants one.
    pub forms: Option<Arc<CompressedForms>>,
}

impl Delivery {
    pub fn new(frame: Bytes, position: Option<Position>) -> Self {
        Self { frame, position, forms: None }
    }
}

impl AsRef<[u8]> for Delivery {
    /// The frame.
    fn as_ref(&self) -> &[u8] {
        &self.frame
    }
}

/// How a publication continues what one client has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Continuity {
    Next,
    /// The client has it already.
    Duplicate,
    /// The first publication of a new epoch. The client missed nothing.
    NewEpoch(Position),
    /// A later publication of another epoch. What came before it in that epoch is not known.
    Gap,
}

/// `after` is the position at which the connection began. Publications of one epoch arrive in order, so no
/// later position need be remembered.
pub(super) fn continuity(after: Option<Position>, publication: &Delivery) -> Continuity {
    let (Some(after), Some(position)) = (after, publication.position) else {
        return Continuity::Next;
    };
    if position.epoch == after.epoch {
        if position.offset > after.offset { Continuity::Next } else { Continuity::Duplicate }
    } else if position.offset == 1 {
        Continuity::NewEpoch(Position { epoch: position.epoch, offset: 0 })
    } else {
        Continuity::Gap
    }
}

/// Whether all of `publications`, in order, are [`Continuity::Next`]. Within one epoch the first and the last
/// with a position decide.
pub(super) fn are_all_next(after: Option<Position>, publications: &[Delivery]) -> bool {
    let next = |publication: &Delivery| continuity(after, publication) == Continuity::Next;
    let mut positioned = publications.iter().filter(|publication| publication.position.is_some());
    match positioned.next() {
        None => true,
        Some(first) => next(first) && positioned.next_back().is_none_or(next),
    }
}

#[cfg(test)]
mod tests;
