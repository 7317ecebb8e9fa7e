//! Maps channels to sockets. Each thread has its own part of the hub, so that a delivery takes no lock.
//!
//! The broker encodes a publication once and queues it here; the hub delivers it to every socket of its channel, in
//! short turns that the channels take one after the other. Each visit writes everything that the socket has not had yet
//! with one system call, also what has been queued since the turn before. So publications that arrive one by one leave
//! together as soon as more of them wait than can be written, and a single one is written at once.
//!
//! The hub holds socket handles and does not know sessions; the broker decides which sockets are attached, and bounds
//! what is queued ([`HubPart::has_room`]).

mod joined;
mod pass;
#[cfg(test)]
mod tests;
mod turns;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::protocol::{ChannelName, CloseReason, Position};
use crate::socket::{Delivery, Socket};
use crate::telemetry;
use joined::JoinedForms;
use pass::{LapEnd, Pass};
use turns::Turns;

/// No more publications are to be queued on a thread while this many publications or bytes wait for their last socket.
const MAX_WAITING: usize = 4096;
const MAX_WAITING_BYTES: usize = 16 << 20;

/// How many passes are kept for the next publications, so that a busy thread allocates none.
const SPARE_PASSES: usize = 256;

/// What one turn has done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// How many sockets were visited.
    pub sockets: usize,
    /// How many bytes were handed to them.
    pub bytes: usize,
    /// How many times a publication was handed to a connection.
    pub deliveries: u64,
    /// How many times a connection could not take a publication.
    pub drops: u64,
    /// Set if every socket of the channel has had some publications now: the time since the oldest of them arrived.
    pub latency: Option<Duration>,
    /// Whether the channel's next turn visits sockets that this or an earlier turn has visited.
    pub repeats: bool,
}

/// The channels of one thread.
#[derive(Default)]
pub struct HubPart(RefCell<State>);

#[derive(Default)]
struct State {
    /// In boxes, since a table has many free slots, and is there twice while it grows.
    channels: HashMap<ChannelName, Box<Channel>>,
    turns: Turns,
    waiting: Waiting,
    #[expect(
        clippy::vec_box,
        reason = "channels hold boxes, and an allocation is what this saves"
    )]
    spare: Vec<Box<Pass>>,
    /// The buffers in which frames are joined.
    forms: JoinedForms,
}

/// What all passes together hold.
#[derive(Default, Clone, Copy)]
struct Waiting {
    publications: usize,
    bytes: usize,
}

/// The sockets of one channel on this thread, each at the index in its [`HubPlace`](crate::socket::HubPlace).
#[derive(Default)]
struct Channel {
    sockets: Vec<Rc<Socket>>,
    /// What some of the sockets have not had yet. While it is `None` all have the same cursor.
    pass: Option<Box<Pass>>,
    /// The last publication with a position that every socket has had, of those that are not in the pass any more.
    last: Option<Position>,
}

impl HubPart {
    /// Adds `socket` to `channel`. It gets what is queued from now on. Returns whether it is the channel's first socket.
    pub fn attach(&self, channel: &ChannelName, socket: Rc<Socket>) -> bool {
        let mut state = self.0.borrow_mut();
        let found = match state.channels.get_mut(channel) {
            Some(found) => found,
            None => state.channels.entry(channel.clone()).or_default(),
        };
        let cursor = match (&found.pass, found.sockets.first()) {
            (Some(pass), _) => pass.end_cursor(),
            (None, Some(other)) => other.hub_place.get().cursor,
            (None, None) => 0,
        };
        pass::place(&socket, found.sockets.len(), cursor);
        // Most channels have few sockets, and a vector that grows by itself begins with room for four.
        if found.sockets.len() == found.sockets.capacity() {
            found.sockets.reserve_exact((found.sockets.len() / 2).max(1));
        }
        found.sockets.push(socket);
        found.sockets.len() == 1
    }

    /// The name of a channel that has sockets, as it is kept here, so that it need not be kept once for each of them.
    pub fn shared_name(&self, channel: &ChannelName) -> Option<ChannelName> {
        self.0.borrow().channels.get_key_value(channel).map(|(name, _)| name.clone())
    }

    /// Removes `socket` from `channel`. Returns whether it was the channel's last socket.
    pub fn detach(&self, channel: &ChannelName, socket: &Rc<Socket>) -> bool {
        let mut state = self.0.borrow_mut();
        let Some(found) = state.channels.get_mut(channel) else { return false };
        let slot = socket.hub_place.get().slot as usize;
        if !found.sockets.get(slot).is_some_and(|other| Rc::ptr_eq(other, socket)) {
            return false;
        }
        let hole = match &mut found.pass {
            Some(pass) => pass.make_hole(&mut found.sockets, slot),
            None => slot,
        };
        found.sockets.swap_remove(hole);
        if let Some(moved) = found.sockets.get(hole) {
            pass::place(moved, hole, moved.hub_place.get().cursor);
        }
        let was_last = found.sockets.is_empty();
        if was_last {
            if let Some(pass) = found.pass.take() {
                state.waiting.remove(pass.len(), pass.bytes());
                state.keep_spare(pass);
            }
            state.channels.remove(channel);
            let channels = &mut state.channels;
            if channels.capacity() > 4096 && channels.len() * 4 < channels.capacity() {
                channels.shrink_to_fit();
            }
        }
        was_last
    }

    /// Queues a publication that `received` this node at that time for every socket that `channel` has now.
    pub fn queue(&self, channel: ChannelName, delivery: Delivery, received: Instant) {
        let mut state = self.0.borrow_mut();
        let State { channels, turns, waiting, spare, .. } = &mut *state;
        let Some(found) = channels.get_mut(&channel) else { return };
        let Channel { sockets, pass, .. } = &mut **found;
        if pass.is_none() {
            let Some(first) = sockets.first() else { return };
            let mut next = spare.pop().unwrap_or_default();
            next.begin(first.hub_place.get().cursor);
            *pass = Some(next);
            turns.push(channel, sockets.len());
        }
        let Some(pass) = pass else { return };
        waiting.publications += 1;
        waiting.bytes += delivery.frame.len();
        pass.push(delivery, received, sockets.len());
    }

    /// Whether there is nothing to deliver.
    pub fn is_idle(&self) -> bool {
        self.0.borrow().turns.is_empty()
    }

    /// Whether more may be queued. If not, some turns make room.
    pub fn has_room(&self) -> bool {
        let Waiting { publications, bytes } = self.0.borrow().waiting;
        publications < MAX_WAITING && bytes < MAX_WAITING_BYTES
    }

    /// Delivers to some sockets of the channel whose turn it is.
    pub fn take_turn(&self) -> Turn {
        let mut state = self.0.borrow_mut();
        let State { channels, turns, waiting, forms, .. } = &mut *state;
        let Some(name) = turns.next() else { return Turn::default() };
        // A channel that has lost its last socket has no pass any more.
        let Some(channel) = channels.get_mut(&name) else { return Turn::default() };
        let Channel { sockets, pass: Some(pass), last } = &mut **channel else {
            return Turn::default();
        };
        let mut turn = pass.visit(sockets, forms);
        turns.count(sockets.len(), turn.sockets, turn.bytes);
        let Some(ended) = pass.end_lap() else {
            turns.push(name, sockets.len());
            return turn;
        };
        let LapEnd { publications, bytes, oldest, counts, is_last, position } = ended;
        *last = position.or(*last);
        waiting.remove(publications, bytes);
        turn.latency = oldest.map(|oldest| oldest.elapsed());
        turn.repeats = !is_last;
        telemetry::delivery::channel_delivered(
            &name,
            publications,
            bytes,
            counts.deliveries,
            counts.drops,
        );
        if is_last {
            let pass = channel.pass.take();
            pass.into_iter().for_each(|pass| state.keep_spare(pass));
        } else {
            turns.push(name, sockets.len());
        }
        turn
    }

    /// The last publication with a position that was handed to `socket`, which is in `channel`, or to the sockets that it
    /// has joined; `None` if there was none since the first of them came.
    pub fn last_position(&self, channel: &ChannelName, socket: &Socket) -> Option<Position> {
        let state = self.0.borrow();
        let Channel { pass, last, .. } = &**state.channels.get(channel)?;
        let cursor = socket.hub_place.get().cursor;
        pass.as_ref().and_then(|pass| pass.last_position(cursor)).or(*last)
    }

    /// Closes every open socket of `channel`.
    pub fn close_all(&self, channel: &ChannelName, reason: CloseReason) {
        if let Some(found) = self.0.borrow().channels.get(channel) {
            found.sockets.iter().for_each(|socket| socket.close(reason));
        }
    }
}

impl State {
    fn keep_spare(&mut self, mut pass: Box<Pass>) {
        if self.spare.len() < SPARE_PASSES && pass.empty() {
            self.spare.push(pass);
        }
    }
}

impl Waiting {
    fn remove(&mut self, publications: usize, bytes: usize) {
        self.publications -= publications;
        self.bytes -= bytes;
    }
}
