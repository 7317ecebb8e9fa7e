//! The engine thread's books: which worker threads hear a channel, and how far its history was handed
//! to them.

use std::collections::HashMap;

use super::thread::Ticket;
use crate::protocol::{ChannelName, Position};

/// A worker thread's word about a channel.
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
    /// The node wants to hear it, whether or not anybody else does; tails of it are told when it does.
    Pin(ChannelName),
    Unpin(ChannelName),
    /// A connection begins after this position: what came before is its own affair.
    Begins {
        channel: ChannelName,
        position: Position,
    },
}

/// One thread's wish to hear a channel.
pub(super) struct Listener {
    pub thread: usize,
    pub ticket: Ticket,
}

/// The channels that somebody hears.
#[derive(Default)]
pub(super) struct Channels {
    by_name: HashMap<ChannelName, Entry>,
    next_catch_up: u64,
}

#[derive(Default)]
struct Entry {
    listeners: Vec<Listener>,
    /// How many times it is kept.
    kept: usize,
    /// Of the last publication that was handed on; everything up to it was.
    position: Option<Position>,
    /// Where the earliest connection began, until there is a `position`.
    begin: Option<Position>,
    catch_up: Option<CatchUp>,
}

/// Publications of the channel are being read from its history; those that come meanwhile are only
/// noted, since they will be found there.
#[derive(Clone, Copy)]
struct CatchUp {
    number: u64,
    heard: Option<Position>,
}

/// What to do with a publication that has a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    Deliver,
    /// It will be read from the history.
    Wait,
    /// It does not follow what came before: to be read from the history, under this number.
    CatchUp(u64),
}

/// What becomes of the channels when publications may have been missed.
#[derive(Default)]
pub(super) struct Gap {
    /// Whatever was missed is lost: by thread.
    pub lost: HashMap<usize, Vec<ChannelName>>,
    /// To be read from their histories, each under its number.
    pub catch_up: Vec<(ChannelName, u64)>,
}

impl Channels {
    /// Returns the channel whose subscription may have to change.
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
                self.tidy(&channel);
                Some(channel)
            }
            Change::Pin(channel) => {
                self.by_name.entry(channel.clone()).or_default().kept += 1;
                Some(channel)
            }
            Change::Unpin(channel) => {
                if let Some(entry) = self.by_name.get_mut(&channel) {
                    entry.kept = entry.kept.saturating_sub(1);
                }
                self.tidy(&channel);
                Some(channel)
            }
            Change::Begins { channel, position } => {
                if let Some(entry) = self.by_name.get_mut(&channel)
                    && entry.begin.is_none_or(|begin| {
                        begin.epoch != position.epoch || begin.offset > position.offset
                    })
                {
                    entry.begin = Some(position);
                }
                None
            }
        }
    }

    fn tidy(&mut self, channel: &ChannelName) {
        if !self.is_wanted(channel) {
            self.by_name.remove(channel);
        }
    }

    /// Whether this node is to hear `channel`.
    pub fn is_wanted(&self, channel: &ChannelName) -> bool {
        let wanted = |entry: &Entry| !entry.listeners.is_empty() || entry.kept > 0;
        self.by_name.get(channel).is_some_and(wanted)
    }

    pub fn listeners(&self, channel: &ChannelName) -> &[Listener] {
        self.by_name.get(channel).map_or(&[], |entry| &entry.listeners)
    }

    pub fn names(&self) -> impl Iterator<Item = &ChannelName> {
        self.by_name.keys()
    }

    /// A publication with a position has come.
    pub fn arrives(&mut self, channel: &ChannelName, position: Position) -> Arrival {
        let Some(entry) = self.by_name.get_mut(channel) else { return Arrival::Wait };
        if let Some(catch_up) = &mut entry.catch_up {
            catch_up.heard = Some(position);
            return Arrival::Wait;
        }
        let follows = match (entry.position, entry.begin) {
            (Some(last), _) if last.epoch == position.epoch => position.offset == last.offset + 1,
            // The first since the subscription; what it overtook is within `begin` of everybody.
            (None, Some(begin)) if begin.epoch == position.epoch => {
                position.offset <= begin.offset + 1
            }
            // Of another epoch: each connection judges for itself.
            _ => true,
        };
        if follows {
            entry.position = Some(position);
            return Arrival::Deliver;
        }
        entry.position = entry.position.or(entry.begin);
        let number = self.next_catch_up;
        self.next_catch_up += 1;
        entry.catch_up = Some(CatchUp { number, heard: Some(position) });
        Arrival::CatchUp(number)
    }

    /// Publications of any channel may have been missed.
    pub fn gap(&mut self) -> Gap {
        let mut gap = Gap::default();
        for (channel, entry) in &mut self.by_name {
            entry.position = entry.position.or(entry.begin);
            if entry.position.is_some() {
                let number = self.next_catch_up;
                self.next_catch_up += 1;
                entry.catch_up = Some(CatchUp { number, heard: None });
                gap.catch_up.push((channel.clone(), number));
            } else {
                for listener in &entry.listeners {
                    gap.lost.entry(listener.thread).or_default().push(channel.clone());
                }
            }
        }
        gap
    }

    /// After which position the catch-up called `number` is to read on; `None` = it is no longer needed.
    pub fn reads_after(&self, channel: &ChannelName, number: u64) -> Option<Position> {
        let entry = self.by_name.get(channel)?;
        entry.catch_up.filter(|catch_up| catch_up.number == number)?;
        entry.position
    }

    /// Everything up to `position` was handed on; `to_end` = there was nothing after it. Returns whether
    /// publications are delivered as they come again.
    pub fn caught_up(
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
        let heard_nothing_newer = catch_up
            .heard
            .is_none_or(|heard| heard.epoch == position.epoch && heard.offset <= position.offset);
        let done = to_end && heard_nothing_newer;
        if done {
            entry.catch_up = None;
        }
        done
    }

    /// The history does not tell what was missed. Publications are delivered as they come again.
    pub fn give_up(&mut self, channel: &ChannelName, number: u64) {
        if let Some(entry) = self.by_name.get_mut(channel)
            && entry.catch_up.is_some_and(|catch_up| catch_up.number == number)
        {
            (entry.position, entry.begin, entry.catch_up) = (None, None, None);
        }
    }
}
