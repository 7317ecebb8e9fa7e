//! The queue of joins and leaves that the engine has reported and that are still to be published.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use bytes::Bytes;
use tokio::sync::Notify;

use super::Change;
use crate::protocol::ChannelName;
use crate::telemetry;

/// The most events that wait to be published. Further events are dropped: if the publisher is not keeping up,
/// members must still be renewed.
const MAX_WAITING: usize = 20_000;

/// Events for one channel, in the order in which the engine reported them.
pub struct Announcement {
    pub channel: ChannelName,
    pub events: Vec<Bytes>,
}

/// The joins and leaves of one thread.
#[derive(Default)]
pub(super) struct Announcements {
    waiting: RefCell<VecDeque<Announcement>>,
    /// The number of events in `waiting`; at most [`MAX_WAITING`].
    count: Cell<usize>,
    added: Notify,
}

impl Announcements {
    pub fn add(&self, channel: &ChannelName, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        if self.count.get() + changes.len() > MAX_WAITING {
            return telemetry::presence::not_announced(changes.len());
        }
        self.count.set(self.count.get() + changes.len());
        let events = changes.iter().map(Change::event).collect();
        self.waiting.borrow_mut().push_back(Announcement { channel: channel.clone(), events });
        self.added.notify_one();
    }

    pub fn pop(&self) -> Option<Announcement> {
        let next = self.waiting.borrow_mut().pop_front()?;
        self.count.set(self.count.get() - next.events.len());
        Some(next)
    }

    /// Waits until there may be a new announcement.
    pub async fn wait(&self) {
        self.added.notified().await;
    }
}

#[cfg(test)]
mod tests;
