//! Tails: publications of a channel for readers on the engine thread that have no socket.
//!
//! A tail keeps this node subscribed to its channel, and gets the publications that are delivered to the worker
//! threads. Invariant: no delivery waits for a tail. Its unread events are bounded; a tail that falls behind ends
//! with [`TailEnd::TooSlow`].

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::channels::Change;
use crate::protocol::ChannelName;
use crate::socket::Delivery;

/// The most tails that may be open on this node at a time.
const MAX_TAILS: usize = 64;

/// The most unread events of one tail, and the most bytes of them, but at least two publications of the maximum
/// size.
const MAX_WAITING: usize = 1024;
const MAX_WAITING_BYTES: usize = 4 << 20;

/// The tails of this node. Cheap to clone, on the engine thread.
#[derive(Clone)]
pub struct Tails(Rc<Inner>);

struct Inner {
    by_channel: RefCell<HashMap<ChannelName, Vec<Rc<Queue>>>>,
    count: Cell<usize>,
    to_core: mpsc::WeakUnboundedSender<Change>,
    max_bytes: usize,
}

/// The unread events of one tail.
struct Queue {
    waiting: RefCell<Waiting>,
    /// Cancelled when the tail has fallen behind.
    too_slow: CancellationToken,
}

#[derive(Default)]
struct Waiting {
    /// The events, at most [`MAX_WAITING`] and `max_bytes`.
    events: VecDeque<TailEvent>,
    bytes: usize,
    ended: bool,
    waker: Option<Waker>,
}

/// An event that a tail reads.
#[derive(Debug, Clone)]
pub enum TailEvent {
    /// The channel is subscribed: every later publication follows.
    Live,
    Publication(Delivery),
    /// Publications may have been missed.
    Gap,
    /// The last event.
    End(TailEnd),
}

/// Why a tail ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailEnd {
    /// The reader fell behind.
    TooSlow,
    /// Redis does not let this node subscribe to the channel.
    Refused,
}

/// The limit of open tails is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyTails;

/// A reader of one channel, until it is dropped.
pub struct Tail {
    tails: Tails,
    channel: ChannelName,
    queue: Rc<Queue>,
    to_core: Option<mpsc::UnboundedSender<Change>>,
}

impl Tails {
    pub(super) fn new(
        to_core: mpsc::WeakUnboundedSender<Change>,
        max_publication_bytes: usize,
    ) -> Self {
        Self(Rc::new(Inner {
            by_channel: RefCell::default(),
            count: Cell::new(0),
            to_core,
            max_bytes: MAX_WAITING_BYTES.max(max_publication_bytes.saturating_mul(2)),
        }))
    }

    /// Opens a tail of `channel`. It reads publications from [`TailEvent::Live`] on. `too_slow` is cancelled when
    /// the reader falls behind.
    pub fn open(
        &self,
        channel: &ChannelName,
        too_slow: CancellationToken,
    ) -> Result<Tail, TooManyTails> {
        let count = self.0.count.get();
        if count >= MAX_TAILS {
            return Err(TooManyTails);
        }
        self.0.count.set(count + 1);
        let queue = Rc::new(Queue { waiting: RefCell::default(), too_slow });
        let mut by_channel = self.0.by_channel.borrow_mut();
        by_channel.entry(channel.clone()).or_default().push(Rc::clone(&queue));
        drop(by_channel);
        let to_core = self.0.to_core.upgrade();
        if let Some(to_core) = &to_core {
            // The core only ends with the process, when nothing is published any more.
            let _ = to_core.send(Change::Pin(channel.clone()));
        }
        Ok(Tail { tails: self.clone(), channel: channel.clone(), queue, to_core })
    }

    /// Delivers a publication to the tails of its channel.
    pub(super) fn deliver(&self, channel: &ChannelName, delivery: &Delivery) {
        let by_channel = self.0.by_channel.borrow();
        if by_channel.is_empty() {
            return;
        }
        for queue in by_channel.get(channel).into_iter().flatten() {
            queue.put(TailEvent::Publication(delivery.clone()), self.0.max_bytes);
        }
    }

    /// Notifies the tails of `channel` that it is subscribed.
    pub(super) fn confirm(&self, channel: &ChannelName) {
        self.send(channel, TailEvent::Live);
    }

    /// Ends the tails of `channel`, because Redis refuses the subscription.
    pub(super) fn refuse(&self, channel: &ChannelName) {
        self.send(channel, TailEvent::End(TailEnd::Refused));
    }

    /// Notifies the tails of `channel` that publications may have been missed.
    pub(super) fn report_gap(&self, channel: &ChannelName) {
        self.send(channel, TailEvent::Gap);
    }

    /// Notifies the tails of all channels that publications may have been missed, except those in `caught_up`,
    /// which are read from their histories.
    pub(super) fn report_gap_except(&self, caught_up: &[(ChannelName, u64)]) {
        let by_channel = self.0.by_channel.borrow();
        if by_channel.is_empty() {
            return;
        }
        let caught_up: HashSet<_> = caught_up.iter().map(|(channel, _)| channel).collect();
        for (_, queues) in by_channel.iter().filter(|(channel, _)| !caught_up.contains(channel)) {
            queues.iter().for_each(|queue| queue.put(TailEvent::Gap, self.0.max_bytes));
        }
    }

    fn send(&self, channel: &ChannelName, event: TailEvent) {
        for queue in self.0.by_channel.borrow().get(channel).into_iter().flatten() {
            queue.put(event.clone(), self.0.max_bytes);
        }
    }
}

impl Queue {
    fn put(&self, event: TailEvent, max_bytes: usize) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.ended {
            return;
        }
        let bytes = event.bytes();
        let is_full = waiting.events.len() >= MAX_WAITING || waiting.bytes + bytes > max_bytes;
        let event = if is_full {
            self.too_slow.cancel();
            TailEvent::End(TailEnd::TooSlow)
        } else {
            waiting.bytes += bytes;
            event
        };
        waiting.ended = matches!(event, TailEvent::End(_));
        waiting.events.push_back(event);
        if let Some(waker) = waiting.waker.take() {
            waker.wake();
        }
    }
}

impl TailEvent {
    fn bytes(&self) -> usize {
        match self {
            Self::Publication(delivery) => delivery.frame.len(),
            Self::Live | Self::Gap | Self::End(_) => 0,
        }
    }
}

impl Tail {
    /// Polls for the next event; `None` follows the last one.
    pub fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Option<TailEvent>> {
        let mut waiting = self.queue.waiting.borrow_mut();
        match waiting.events.pop_front() {
            Some(event) => {
                waiting.bytes -= event.bytes();
                Poll::Ready(Some(event))
            }
            None if waiting.ended => Poll::Ready(None),
            None => {
                waiting.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub async fn next(&mut self) -> Option<TailEvent> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let inner = &self.tails.0;
        inner.count.set(inner.count.get() - 1);
        let mut by_channel = inner.by_channel.borrow_mut();
        if let Some(queues) = by_channel.get_mut(&self.channel) {
            queues.retain(|queue| !Rc::ptr_eq(queue, &self.queue));
            if queues.is_empty() {
                by_channel.remove(&self.channel);
            }
        }
        if let Some(to_core) = &self.to_core {
            // The core only ends with the process, when nothing is subscribed any more.
            let _ = to_core.send(Change::Unpin(self.channel.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
