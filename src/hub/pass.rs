//! The delivery of a channel's publications to its sockets on one thread.
//!
//! A pass goes through the list of sockets in laps. Each socket has a cursor, the number of the next publication that it
//! is to get, and a visit hands it what follows. Publications that arrive meanwhile are appended: the sockets that are
//! still to be visited get them with the rest, the others in the next lap. The list is in this order:
//!
//! ```text
//! 0 ……… again ……… visited ……… end ……… length
//!   next lap   up to date   this lap   up to date
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Instant;

use super::Turn;
use super::joined::JoinedForms;
use crate::protocol::{CloseReason, Position};
use crate::socket::{Delivery, HubPlace, Socket, Window};

/// A turn ends after this many sockets or bytes, so that other channels wait for no more than a part of a millisecond.
pub(super) const SOCKETS_PER_TURN: usize = 32;
const BYTES_PER_TURN: usize = 1 << 20;

/// A pass that has grown beyond this many publications is not kept.
const SPARE_LENGTH: usize = 64;

/// Publications that some sockets of a channel have not had yet.
#[derive(Default)]
pub(super) struct Pass {
    /// The publications, and when each of them reached this node.
    publications: Vec<Delivery>,
    received: Vec<Instant>,
    bytes: usize,
    /// The number of the first of `publications`. It wraps, as cursors do; differences between them are small.
    first: u32,
    again: usize,
    visited: usize,
    end: usize,
    /// How many of `publications` every socket has had that this lap has visited.
    reached: usize,
    counts: Counts,
}

/// How many deliveries and drops there were in a lap.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    pub deliveries: u64,
    pub drops: u64,
}

/// The end of a lap.
pub(super) struct LapEnd {
    /// How many publications all sockets have had now, and their bytes.
    pub publications: usize,
    pub bytes: usize,
    /// When the oldest of them reached this node.
    pub oldest: Option<Instant>,
    pub counts: Counts,
    /// Whether all sockets have had everything.
    pub is_last: bool,
    /// The position of the last of those that all sockets have had now, if any of them has one.
    pub position: Option<Position>,
}

/// Sets where `socket` is in its channel's list, and the number of the next publication that it gets.
pub(super) fn place(socket: &Socket, slot: usize, cursor: u32) {
    // A thread has far fewer sockets: each takes a descriptor.
    let slot = u32::try_from(slot).expect("a channel has fewer than 2^32 sockets");
    socket.hub_place.set(HubPlace { slot, cursor });
}

impl Pass {
    /// Prepares an empty pass for sockets that all have this `cursor`.
    pub fn begin(&mut self, cursor: u32) {
        debug_assert!(self.publications.is_empty());
        (self.first, self.bytes, self.counts) = (cursor, 0, Counts::default());
        (self.again, self.visited, self.end, self.reached) = (0, 0, 0, usize::MAX);
    }

    /// Removes all publications. Returns whether the pass is small enough to be kept.
    pub fn empty(&mut self) -> bool {
        self.publications.clear();
        self.received.clear();
        self.publications.capacity() <= SPARE_LENGTH
    }

    /// How many publications it holds.
    pub fn len(&self) -> usize {
        self.publications.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of the publication that will be appended next.
    pub fn end_cursor(&self) -> u32 {
        self.first.wrapping_add(self.publications.len() as u32)
    }

    /// Appends a publication for the first `sockets` of the list, which are all of them.
    pub fn push(&mut self, publication: Delivery, received: Instant, sockets: usize) {
        self.bytes += publication.frame.len();
        self.publications.push(publication);
        self.received.push(received);
        (self.again, self.end) = (self.visited, sockets);
    }

    /// Moves the socket at `slot` behind those that the order of the list concerns, so that it can be replaced with the
    /// last one. Returns where it is then.
    pub fn make_hole(&mut self, sockets: &mut [Rc<Socket>], slot: usize) -> usize {
        let mut hole = slot;
        for boundary in [&mut self.again, &mut self.visited, &mut self.end] {
            if hole < *boundary {
                *boundary -= 1;
                sockets.swap(hole, *boundary);
                place(&sockets[hole], hole, sockets[hole].hub_place.get().cursor);
                hole = *boundary;
            }
        }
        hole
    }

    /// Visits the next sockets. `forms` is a buffer.
    pub fn visit(&mut self, sockets: &[Rc<Socket>], forms: &mut JoinedForms) -> Turn {
        let (started, mut bytes) = (self.visited, 0);
        let mut counts = Counts::default();
        let end = self.end.min(started + SOCKETS_PER_TURN);
        while self.visited < end && bytes < BYTES_PER_TURN {
            let wanted = self.wanted_by(&sockets[self.visited]);
            let joined = match wanted {
                (None, from) => forms.plain(from, &self.publications),
                (Some(window), from) => forms.compressed(window, from, &mut self.publications),
            };
            let to = joined.to;
            self.reached = self.reached.min(to);
            let publications = joined.publications(&self.publications);
            let frames = joined.frames(publications);
            // Most sockets of a turn get the same.
            while self.visited < end && bytes < BYTES_PER_TURN {
                let socket = &sockets[self.visited];
                if self.wanted_by(socket) != wanted {
                    break;
                }
                self.visited += 1;
                if to < self.publications.len() {
                    self.again = self.visited;
                }
                if publications.is_empty() {
                    continue;
                }
                bytes += frames.len();
                place(socket, self.visited - 1, self.first.wrapping_add(to as u32));
                counts.add(publications.len(), deliver(socket, publications, frames));
            }
        }
        forms.clear();
        self.counts.deliveries += counts.deliveries;
        self.counts.drops += counts.drops;
        Turn {
            sockets: self.visited - started,
            bytes,
            deliveries: counts.deliveries,
            drops: counts.drops,
            ..Turn::default()
        }
    }

    /// The form of what a socket gets, and which publication it gets first.
    fn wanted_by(&self, socket: &Socket) -> (Option<Window>, usize) {
        let from = socket.hub_place.get().cursor.wrapping_sub(self.first) as usize;
        (socket.window(), from)
    }

    /// If every socket of the lap has been visited: removes what all sockets have had, and begins the next lap if
    /// there is one. `None` within a lap.
    pub fn end_lap(&mut self) -> Option<LapEnd> {
        if self.visited < self.end {
            return None;
        }
        let is_last = self.again == 0;
        // Those that this lap has not visited have had everything.
        let all = self.publications.len();
        let done = if is_last { all } else { self.reached.min(all) };
        let oldest = self.received.first().copied().filter(|_| done > 0);
        let position = last_position(&self.publications[..done]);
        let bytes = self.publications.drain(..done).map(|one| one.frame.len()).sum();
        self.received.drain(..done);
        self.bytes -= bytes;
        self.first = self.first.wrapping_add(done as u32);
        (self.end, self.again, self.visited, self.reached) = (self.again, 0, 0, usize::MAX);
        let counts = std::mem::take(&mut self.counts);
        Some(LapEnd { publications: done, bytes, oldest, counts, is_last, position })
    }

    /// The position of the last publication before `cursor` that has one.
    pub fn last_position(&self, cursor: u32) -> Option<Position> {
        last_position(&self.publications[..cursor.wrapping_sub(self.first) as usize])
    }
}

impl Counts {
    fn add(&mut self, publications: usize, delivered: bool) {
        let count = if delivered { &mut self.deliveries } else { &mut self.drops };
        *count += publications as u64;
    }
}

fn last_position(publications: &[Delivery]) -> Option<Position> {
    publications.iter().rev().find_map(|one| one.position)
}

/// Returns whether the socket has taken all `publications`, whose frames are `frames`.
fn deliver(socket: &Socket, publications: &[Delivery], frames: &[u8]) -> bool {
    // A panic at one socket must not keep the publications from the others.
    let delivered = catch_unwind(AssertUnwindSafe(|| socket.deliver(publications, frames)));
    if delivered.is_err() {
        socket.close(CloseReason::InternalError);
    }
    delivered.unwrap_or(false)
}
