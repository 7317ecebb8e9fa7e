//! Maps channels to sockets. Each thread has its own part of the hub, so that a delivery takes no lock.
//!
//! The broker encodes a publication once; the hub delivers it to every socket of its channel. All publications
//! of one batch for a channel are written to a connection together. The hub holds socket handles and does not know
//! sessions; the broker decides which sockets are attached.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use crate::protocol::{ChannelName, CloseReason, Position};
use crate::socket::{Delivery, Socket};

/// A delivery to a large channel lets other tasks of the thread run after this many sockets.
const SOCKETS_PER_SLICE: usize = 512;

/// Publications of a batch are concatenated into buffers of up to this many bytes.
const MAX_JOINED: usize = 256 * 1024;

/// How many publications of one batch were delivered and dropped.
#[derive(Debug, Default, Clone, Copy)]
pub struct Delivered {
    /// How many times a publication was handed to a connection.
    pub deliveries: u64,
    /// How many times a connection could not take a publication.
    pub drops: u64,
}

/// The sockets of one channel on this thread, each at the index in its `hub_slot`.
type Sockets = Vec<Rc<Socket>>;

/// One channel on this thread.
struct Channel {
    sockets: Sockets,
    /// The last publication with a position that was handed to the sockets.
    last: Cell<Option<Position>>,
}

/// The channels of one thread.
#[derive(Default)]
pub struct HubPart {
    channels: RefCell<HashMap<ChannelName, Channel>>,
}

impl HubPart {
    /// Adds `socket` to `channel`. Returns whether it is the channel's first socket.
    pub fn attach(&self, channel: &ChannelName, socket: Rc<Socket>) -> bool {
        let mut channels = self.channels.borrow_mut();
        let Channel { sockets, .. } = match channels.get_mut(channel) {
            Some(channel) => channel,
            None => channels.entry(channel.clone()).or_insert_with(|| Channel {
                sockets: Vec::with_capacity(1),
                last: Cell::new(None),
            }),
        };
        socket.hub_slot.set(sockets.len());
        sockets.push(socket);
        sockets.len() == 1
    }

    /// Removes `socket` from `channel`. Returns whether it was the channel's last socket.
    pub fn detach(&self, channel: &ChannelName, socket: &Rc<Socket>) -> bool {
        let mut channels = self.channels.borrow_mut();
        let Some(Channel { sockets, .. }) = channels.get_mut(channel) else { return false };
        let slot = socket.hub_slot.get();
        if !sockets.get(slot).is_some_and(|found| Rc::ptr_eq(found, socket)) {
            return false;
        }
        sockets.swap_remove(slot);
        if let Some(moved) = sockets.get(slot) {
            moved.hub_slot.set(slot);
        }
        let was_last = sockets.is_empty();
        if was_last {
            channels.remove(channel);
            if channels.capacity() > 4096 && channels.len() * 4 < channels.capacity() {
                channels.shrink_to_fit();
            }
        }
        was_last
    }

    /// Delivers `frames`, in order, to every socket of `channel`.
    pub async fn deliver(&self, channel: &ChannelName, frames: &[Delivery]) -> Delivered {
        let mut total = Delivered::default();
        let mut from = 0;
        while from < frames.len() {
            let to = end_of_join(frames, from);
            let joined = concat(&frames[from..to]);
            self.deliver_joined(channel, &frames[from..to], &joined, &mut total).await;
            from = to;
        }
        total
    }

    async fn deliver_joined(
        &self,
        channel: &ChannelName,
        frames: &[Delivery],
        joined: &Bytes,
        total: &mut Delivered,
    ) {
        let mut deliver = |socket: &Socket| {
            let count = frames.len() as u64;
            // A panic at one socket must not keep the publication from the others.
            let delivered = catch_unwind(AssertUnwindSafe(|| socket.deliver(frames, joined)));
            if delivered.is_err() {
                socket.close(CloseReason::InternalError);
            }
            if delivered.unwrap_or(false) {
                total.deliveries += count;
            } else {
                total.drops += count;
            }
        };
        let snapshot: Sockets = {
            let channels = self.channels.borrow();
            let Some(Channel { sockets, last }) = channels.get(channel) else { return };
            // Once a batch, whatever the number of sockets.
            if let Some(position) = frames.iter().rev().find_map(|frame| frame.position) {
                last.set(Some(position));
            }
            if sockets.len() <= SOCKETS_PER_SLICE {
                sockets.iter().for_each(|socket| deliver(socket));
                return;
            }
            // Tasks that run in between may change the list. A socket that is detached by one of them still gets
            // these publications.
            sockets.clone()
        };
        for slice in snapshot.chunks(SOCKETS_PER_SLICE) {
            slice.iter().for_each(|socket| deliver(socket));
            tokio::task::yield_now().await;
        }
    }

    /// Closes every open socket of `channel`.
    pub fn close_all(&self, channel: &ChannelName, reason: CloseReason) {
        if let Some(Channel { sockets, .. }) = self.channels.borrow().get(channel) {
            sockets.iter().for_each(|socket| socket.close(reason));
        }
    }

    /// The last publication with a position that was handed to the sockets of `channel`; `None` if there was none
    /// since the first of them came.
    pub fn last_position(&self, channel: &ChannelName) -> Option<Position> {
        self.channels.borrow().get(channel)?.last.get()
    }
}

/// The end of the range from `from` whose frames fit into one buffer. It has at least one frame.
fn end_of_join(frames: &[Delivery], from: usize) -> usize {
    let mut size = 0;
    let mut to = from;
    while to < frames.len() && (to == from || size + frames[to].frame.len() <= MAX_JOINED) {
        size += frames[to].frame.len();
        to += 1;
    }
    to
}

fn concat(frames: &[Delivery]) -> Bytes {
    if let [single] = frames {
        return single.frame.clone();
    }
    let mut joined = BytesMut::with_capacity(frames.iter().map(|one| one.frame.len()).sum());
    frames.iter().for_each(|one| joined.extend_from_slice(&one.frame));
    joined.freeze()
}
