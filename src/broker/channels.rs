//! What the engine thread knows about channels: which worker threads listen to them, and how far each
//! history was delivered to these.

use std::collections::HashMap;

use crate::protocol::{ChannelName, Position};

/// Distinguishes one join of a channel from the next, so that a late confirmation is not taken for a new one.
pub(super) type Ticket = u64;

/// A worker thread's message about a channel.
#[derive(Debug)]
pub(super) enum Change {
    Join {
        channel: ChannelName,
        thread: usize,
        ticket: Ticket,
    },
    Leave {
        channel: ChannelName,
        thread: usize,
    },
    /// The node is to subscribe to the channel even without listeners. Its tails learn when it has.
    Pin(ChannelName),
    Unpin(ChannelName),
    /// A connection has the channel's history up to this position.
    Start {
        channel: ChannelName,
        position: Position,
    },
}

/// A thread that listens to a channel.
pub(super) struct Listener {
    pub thread: usize,
    pub ticket: Ticket,
}

/// The channels that have listeners or pins.
#[derive(Default)]
pub(super) struct Channels {
    by_name: HashMap<ChannelName, Entry>,
    next_catch_up: u64,
}

#[derive(Default)]
struct Entry {
    listeners: Vec<Listener>,
    /// How many pins keep it.
    pins: usize,
    /// The position up to which everything was delivered.
    position: Option<Position>,
    /// The position that the earliest connection started after, until there is a `position`.
    start: Option<Position>,
    catch_up: Option<CatchUp>,
}

/// A read of the channel's history that is under way. Publications that arrive meanwhile are only recorded,
/// since they will be found there.
#[derive(Clone, Copy)]
struct CatchUp {
    number: u64,
    /// The position of the last publication that arrived meanwhile.
    arrived: Option<Position>,
}

/// What to do with a publication that has a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    Deliver,
    /// Ignore it, since it will be read from the history.
    Wait,
    /// Read the history under this number, since it does not follow what came before.
    CatchUp(u64),
}

/// What is to be done about each channel when publications may have been missed.
#[derive(Default)]
pub(super) struct Gap {
    /// The channels of each thread for which everything that was missed is lost.
    pub lost: HashMap<usize, Vec<ChannelName>>,
    /// The channels that are to be read from their histories, each under its number.
    pub catch_up: Vec<(ChannelName, u64)>,
}

impl Channels {
    /// Applies a change and returns the channel whose subscription may have to change.
    pub fn apply(&mut self, change: Change) -> Option<ChannelName> {
        match change {
            Change::Join { channel, thread, ticket } => {
                let entry = self.by_name.entry(channel.clone()).or_default();
                entry.listeners.retain(|listener| listener.thread != thread);
                entry.listeners.push(Listener { thread, ticket });
                Some(channel)
            }
            Change::Leave { channel, thread } => {
                if let Some(entry) = self.by_name.get_mut(&channel) {
                    entry.listeners.retain(|listener| listener.thread != thread);
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

    /// Whether this node is to be subscribed to `channel`.
    pub fn is_wanted(&self, channel: &ChannelName) -> bool {
        let wanted = |entry: &Entry| !entry.listeners.is_empty() || entry.pins > 0;
        self.by_name.get(channel).is_some_and(wanted)
    }

    pub fn listeners(&self, channel: &ChannelName) -> &[Listener] {
        self.by_name.get(channel).map_or(&[], |entry| &entry.listeners)
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
            // The first since the subscription: every connection started at `start` or later.
            (None, Some(start)) if start.epoch == position.epoch => {
                position.offset <= start.offset + 1
            }
            // Of another epoch: each connection decides for itself.
            _ => true,
        };
        if follows {
            entry.position = Some(position);
            return Arrival::Deliver;
        }
        entry.position = entry.position.or(entry.start);
        let number = self.next_catch_up;
        self.next_catch_up += 1;
        entry.catch_up = Some(CatchUp { number, arrived: Some(position) });
        Arrival::CatchUp(number)
    }

    /// Records that publications of any channel may have been missed.
    pub fn record_gap(&mut self) -> Gap {
        let mut gap = Gap::default();
        for (channel, entry) in &mut self.by_name {
            entry.position = entry.position.or(entry.start);
            if entry.position.is_some() {
                let number = self.next_catch_up;
                self.next_catch_up += 1;
                entry.catch_up = Some(CatchUp { number, arrived: None });
                gap.catch_up.push((channel.clone(), number));
            } else {
                for listener in &entry.listeners {
                    gap.lost.entry(listener.thread).or_default().push(channel.clone());
                }
            }
        }
        gap
    }

    /// The position after which the catch-up with this `number` is to continue; `None` = it is no longer needed.
    pub fn next_read(&self, channel: &ChannelName, number: u64) -> Option<Position> {
        let entry = self.by_name.get(channel)?;
        entry.catch_up.filter(|catch_up| catch_up.number == number)?;
        entry.position
    }

    /// Records that everything up to `position` was delivered; `to_end` = there was nothing after it. Returns
    /// whether the catch-up is complete, so that publications are delivered as they arrive again.
    pub fn record_read(
        &mut self,
        channel: &ChannelName,
        number: u64,
        position: Position,
        to_end: bool,
    ) -> bool {
        let Some(entry) = self.by_name.get_mut(channel) else { return true };
        let Some(catch_up) = entry.catch_up.filter(|catch_up| catch_up.number == number) else {
            return true;
        };
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

    /// Ends a catch-up that could not find what was missed. Publications are delivered as they arrive again.
    pub fn give_up(&mut self, channel: &ChannelName, number: u64) {
        if let Some(entry) = self.by_name.get_mut(channel)
            && entry.catch_up.is_some_and(|catch_up| catch_up.number == number)
        {
            (entry.position, entry.start, entry.catch_up) = (None, None, None);
        }
    }
}
