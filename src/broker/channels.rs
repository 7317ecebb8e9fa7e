//! The engine thread's state of each channel: which worker threads listen to it, and up to which position its
//! history was delivered to them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::protocol::{ChannelName, Position};

/// Identifies one join of a channel by a thread, so that a late confirmation of an earlier join is not mistaken for
/// the confirmation of this one.
pub(super) type JoinId = u64;

/// A worker thread's message about a channel.
#[derive(Debug)]
pub(super) enum Change {
    Join {
        channel: ChannelName,
        thread: usize,
        join_id: JoinId,
    },
    Leave {
        channel: ChannelName,
        thread: usize,
    },
    /// The node must be subscribed to the channel even without listeners. Its tails are notified once it is.
    Pin(ChannelName),
    Unpin(ChannelName),
    /// A connection has received the channel's history up to this position.
    Start {
        channel: ChannelName,
        position: Position,
    },
}

/// A thread that listens to a channel.
pub(super) struct Listener {
    pub thread: usize,
    pub join_id: JoinId,
}

/// The [`Channels`] of the node. On the memory engine the worker threads change them as well, so that a client which joins
/// a channel does not wait for the engine thread.
#[derive(Clone, Default)]
pub(super) struct SharedChannels(Arc<Mutex<Channels>>);

impl SharedChannels {
    /// Held for one look-up or change, and never across an await.
    pub fn lock(&self) -> MutexGuard<'_, Channels> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The channels that have listeners or pins.
#[derive(Default)]
pub(super) struct Channels {
    /// In boxes, since a table has many free slots, and is there twice while it grows.
    by_name: HashMap<ChannelName, Box<Entry>>,
    next_catch_up: u64,
}

#[derive(Default)]
struct Entry {
    listeners: Box<[Listener]>,
    /// How many pins keep the node subscribed to the channel.
    pins: usize,
    /// The position up to which everything was delivered.
    position: Option<Position>,
    /// The lowest position at which a connection started. It is used until there is a `position`.
    start: Option<Position>,
    catch_up: Option<Box<CatchUp>>,
}

/// A read of the channel's history that is in progress. Publications that arrive during the read are only
/// recorded, because the read will find them in the history.
#[derive(Clone, Copy)]
struct CatchUp {
    number: u64,
    /// The position of the last publication that arrived during the read.
    arrived: Option<Position>,
}

/// What to do with a publication that has a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    Deliver,
    /// Do not deliver it now: it will be read from the history.
    Wait,
    /// Start the catch-up with this number: the publication does not follow the previous one.
    CatchUp(u64),
}

/// The channels of which publications may have been missed, by how each is handled.
#[derive(Default)]
pub(super) struct Gap {
    /// The channels of each thread whose missed publications cannot be recovered.
    pub lost: HashMap<usize, Vec<ChannelName>>,
    /// The channels to catch up from their histories, each with the number of its catch-up.
    pub catch_up: Vec<(ChannelName, u64)>,
}

impl Entry {
    fn replace_listener(&mut self, thread: usize, new: Option<Listener>) {
        let mut listeners = std::mem::take(&mut self.listeners).into_vec();
        listeners.retain(|listener| listener.thread != thread);
        if let Some(new) = new {
            listeners.reserve_exact(1);
            listeners.push(new);
        }
        self.listeners = listeners.into();
    }

    /// Begins a catch-up, if there is a position to continue from.
    fn record_gap(&mut self, channel: &ChannelName, next_catch_up: &mut u64, gap: &mut Gap) {
        self.position = self.position.or(self.start);
        if self.position.is_some() {
            let number = *next_catch_up;
            *next_catch_up += 1;
            self.catch_up = Some(Box::new(CatchUp { number, arrived: None }));
            gap.catch_up.push((channel.clone(), number));
        } else {
            for listener in &*self.listeners {
                gap.lost.entry(listener.thread).or_default().push(channel.clone());
            }
        }
    }

    /// The read of the history that is in progress, if it has this number.
    fn catch_up(&self, number: u64) -> Option<CatchUp> {
        self.catch_up.as_deref().filter(|catch_up| catch_up.number == number).copied()
    }
}

impl Channels {
    /// Applies a change and returns the channel whose subscription may have to change.
    pub fn apply(&mut self, change: Change) -> Option<ChannelName> {
        match change {
            Change::Join { channel, thread, join_id } => {
                let entry = self.by_name.entry(channel.clone()).or_default();
                entry.replace_listener(thread, Some(Listener { thread, join_id }));
                Some(channel)
            }
            Change::Leave { channel, thread } => {
                if let Some(entry) = self.by_name.get_mut(&channel) {
                    entry.replace_listener(thread, None);
                }
                self.remove_unwanted(&channel);
                Some(channel)
            }
            Change::Pin(channel) => {
                self.by_name.entry(channel.clone()).or_default().pins += 1;
                Some(channel)
            }
            Change::Unpin(channel) => {
                if let Some(entry) = self.by_name.get_mut(&channel) {
                    entry.pins = entry.pins.saturating_sub(1);
                }
                self.remove_unwanted(&channel);
                Some(channel)
            }
            Change::Start { channel, position } => {
                if let Some(entry) = self.by_name.get_mut(&channel)
                    && entry.start.is_none_or(|start| {
                        start.epoch != position.epoch || start.offset > position.offset
                    })
                {
                    entry.start = Some(position);
                }
                None
            }
        }
    }

    fn remove_unwanted(&mut self, channel: &ChannelName) {
        if !self.is_wanted(channel) {
            self.by_name.remove(channel);
        }
    }

    /// Whether this node must be subscribed to `channel`.
    pub fn is_wanted(&self, channel: &ChannelName) -> bool {
        let entry = self.by_name.get(channel);
        entry.is_some_and(|entry| !entry.listeners.is_empty() || entry.pins > 0)
    }

    pub fn listeners(&self, channel: &ChannelName) -> &[Listener] {
        self.by_name.get(channel).map_or(&[], |entry| &entry.listeners)
    }

    /// Whether what is published to `channel` now concerns no listener but `thread`, if any.
    pub fn concerns_only(&self, channel: &ChannelName, thread: usize) -> bool {
        self.by_name.get(channel).is_none_or(|entry| {
            entry.pins == 0
                && entry.catch_up.is_none()
                && entry.listeners.iter().all(|listener| listener.thread == thread)
        })
    }

    pub fn names(&self) -> impl Iterator<Item = &ChannelName> {
        self.by_name.keys()
    }

    /// Records the arrival of a publication with a position, and decides what to do with it.
    pub fn record_arrival(&mut self, channel: &ChannelName, position: Position) -> Arrival {
        let Some(entry) = self.by_name.get_mut(channel) else { return Arrival::Wait };
        if let Some(catch_up) = &mut entry.catch_up {
            catch_up.arrived = Some(position);
            return Arrival::Wait;
        }
        let follows = match (entry.position, entry.start) {
            (Some(last), _) if last.epoch == position.epoch => position.offset == last.offset + 1,
            // This is the first publication since the subscription: every connection started at `start` or later.
            (None, Some(start)) if start.epoch == position.epoch => {
                position.offset <= start.offset + 1
            }
            // The epoch differs: each connection decides by itself what to do.
            _ => true,
        };
        if follows {
            entry.position = Some(position);
            return Arrival::Deliver;
        }
        entry.position = entry.position.or(entry.start);
        let number = self.next_catch_up;
        self.next_catch_up += 1;
        entry.catch_up = Some(Box::new(CatchUp { number, arrived: Some(position) }));
        Arrival::CatchUp(number)
    }

    /// Records that publications of any channel may have been missed.
    pub fn record_gap(&mut self) -> Gap {
        let mut gap = Gap::default();
        for (channel, entry) in &mut self.by_name {
            entry.record_gap(channel, &mut self.next_catch_up, &mut gap);
        }
        gap
    }

    /// Records that publications of these channels may have been missed.
    pub fn record_gap_of<'a>(&mut self, channels: impl Iterator<Item = &'a ChannelName>) -> Gap {
        let mut gap = Gap::default();
        for channel in channels {
            if let Some(entry) = self.by_name.get_mut(channel) {
                entry.record_gap(channel, &mut self.next_catch_up, &mut gap);
            }
        }
        gap
    }

    /// The position after which the catch-up `number` continues; `None` if it is no longer needed.
    pub fn next_read(&self, channel: &ChannelName, number: u64) -> Option<Position> {
        let entry = self.by_name.get(channel)?;
        entry.catch_up(number)?;
        entry.position
    }

    /// Records that everything up to `position` was delivered; `to_end` says that nothing followed it. Returns
    /// whether the catch-up is complete; if so, publications are delivered as they arrive again.
    pub fn record_read(
        &mut self,
        channel: &ChannelName,
        number: u64,
        position: Position,
        to_end: bool,
    ) -> bool {
        let Some(entry) = self.by_name.get_mut(channel) else { return true };
        let Some(catch_up) = entry.catch_up(number) else { return true };
        entry.position = Some(position);
        let nothing_newer_arrived = catch_up.arrived.is_none_or(|arrived| {
            arrived.epoch == position.epoch && arrived.offset <= position.offset
        });
        let done = to_end && nothing_newer_arrived;
        if done {
            entry.catch_up = None;
        }
        done
    }

    /// Ends a catch-up that could not recover the missed publications. Publications are delivered as they arrive
    /// again.
    pub fn give_up(&mut self, channel: &ChannelName, number: u64) {
        if let Some(entry) = self.by_name.get_mut(channel)
            && entry.catch_up(number).is_some()
        {
            (entry.position, entry.start, entry.catch_up) = (None, None, None);
        }
    }
}

#[cfg(test)]
mod tests;
