//! The order in which channels take turns.
//!
//! A channel whose sockets fit into one turn goes before those that need many, so that it does not wait for them. Neither
//! kind keeps the other from its turns: while both have something to deliver, each visits as many sockets as the other.

use std::collections::VecDeque;

use super::pass::SOCKETS_PER_TURN;
use crate::protocol::ChannelName;

/// What takes as long as the visit of a socket, in bytes.
const BYTES_PER_VISIT: usize = 16 * 1024;

/// The channels whose turns are next. Each channel with a pass is in it once, and perhaps some that have lost theirs.
#[derive(Default)]
pub(super) struct Turns {
    small: VecDeque<ChannelName>,
    large: VecDeque<ChannelName>,
    /// How many visits small channels have had since the last turn of a large one.
    since_large: usize,
}

impl Turns {
    pub fn is_empty(&self) -> bool {
        self.small.is_empty() && self.large.is_empty()
    }

    /// Adds a channel with this many sockets behind those of its kind.
    pub fn push(&mut self, channel: ChannelName, sockets: usize) {
        let kind = if sockets <= SOCKETS_PER_TURN { &mut self.small } else { &mut self.large };
        kind.push_back(channel);
    }

    /// Takes the channel whose turn it is.
    pub fn next(&mut self) -> Option<ChannelName> {
        if self.since_large >= SOCKETS_PER_TURN || self.small.is_empty() {
            self.since_large = 0;
            if let Some(channel) = self.large.pop_front() {
                return Some(channel);
            }
        }
        self.small.pop_front()
    }

    /// Counts a turn of a channel with this many sockets.
    pub fn count(&mut self, sockets: usize, visited: usize, bytes: usize) {
        if sockets <= SOCKETS_PER_TURN {
            self.since_large += visited + bytes / BYTES_PER_VISIT;
        }
    }
}

#[cfg(test)]
mod tests;
