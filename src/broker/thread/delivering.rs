//! Takes what the engine thread sends to a worker thread, and delivers it in turns of the hub.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{Broker, Pending, ToThread};
use crate::broker::Publication;
use crate::broker::channels::JoinId;
use crate::hub::Turn;
use crate::protocol::{ChannelName, CloseReason};
use crate::redis_link::EngineUnavailable;
use crate::telemetry;

/// Other tasks of the thread run after this many sockets were visited, bytes were written or messages of the engine thread
/// were taken. The kernel is asked for new input each time, which takes less time than one write. So what comes for a small
/// channel waits for a few hundred microseconds, whatever a large one has to deliver.
const SOCKETS_PER_POLL: usize = 32;
const BYTES_PER_POLL: usize = 1 << 20;
const MESSAGES_PER_POLL: usize = 512;

/// What was done since other tasks of the thread could run.
#[derive(Default)]
struct Work {
    messages: usize,
    sockets: usize,
    bytes: usize,
}

impl Work {
    fn is_much(&self) -> bool {
        self.sockets >= SOCKETS_PER_POLL
            || self.bytes >= BYTES_PER_POLL
            || self.messages >= MESSAGES_PER_POLL
    }
}

/// What was delivered since the last report.
#[derive(Default)]
struct Delivered {
    sockets: usize,
    deliveries: u64,
    drops: u64,
    latency: Option<Duration>,
}

impl Delivered {
    fn add(&mut self, turn: Turn) {
        self.sockets += turn.sockets;
        self.deliveries += turn.deliveries;
        self.drops += turn.drops;
        self.latency = self.latency.max(turn.latency);
    }

    fn report(&mut self) {
        let Self { sockets, deliveries, drops, latency, .. } = std::mem::take(self);
        if sockets > 0 {
            telemetry::delivery::delivered(deliveries, drops, latency);
        }
    }
}

impl Broker {
    /// Takes what the engine thread has sent and delivers it. Nothing that has arrived waits while the hub takes turns.
    pub(super) async fn run(self: Rc<Self>) {
        let mut gap: Option<Vec<ChannelName>> = None;
        let mut delivered = Delivered::default();
        let mut since_yield = Work::default();
        loop {
            if self.hub.is_idle() {
                delivered.report();
                if let Some(channels) = gap.take() {
                    self.close_confirmed(&channels);
                }
                // The hub may be idle after each of any number of messages; other tasks run only where this one waits.
                let message = match self.try_receive() {
                    Some(message) => Some(message),
                    None => {
                        self.write_all();
                        since_yield = Work::default();
                        let Some(received) = poll_fn(|cx| self.poll_receive(cx)).await else {
                            return;
                        };
                        received
                    }
                };
                if let Some(message) = message {
                    since_yield.messages += 1;
                    gap = self.accept(message);
                }
            }
            // What came after a gap must not reach the sockets that it closes, and what came before it must.
            while gap.is_none()
                && self.hub.has_room()
                && let Some(message) = self.try_receive()
            {
                since_yield.messages += 1;
                gap = self.accept(message);
            }
            let turn = self.hub.take_turn();
            delivered.add(turn);
            since_yield.sockets += turn.sockets;
            since_yield.bytes += turn.bytes;
            if turn.repeats || since_yield.is_much() {
                since_yield = Work::default();
                delivered.report();
                self.write_all();
                // The kernel is asked for new input the first time. Before the second time the tasks run that it has
                // woken, so that what they pass on, such as a publication to a small channel, does not wait for
                // further visits.
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
            }
        }
    }

    fn try_receive(&self) -> Option<ToThread> {
        self.from_core.borrow_mut().try_recv().ok()
    }

    /// Waits for a message of the engine thread, or for something to deliver or to write, which is `Some(None)`. `None` =
    /// the engine thread has ended.
    fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<Option<Option<ToThread>>> {
        if !self.hub.is_idle() || !self.unwritten.borrow().is_empty() {
            return Poll::Ready(Some(None));
        }
        let polled = self.from_core.borrow_mut().poll_recv(cx);
        if polled.is_pending() {
            self.waiting.set(Some(cx.waker().clone()));
        }
        polled.map(|message| message.map(Some))
    }

    /// Queues what is to be delivered. Returns the channels of a gap, which the caller closes once everything that was
    /// queued before is delivered.
    fn accept(&self, message: ToThread) -> Option<Vec<ChannelName>> {
        match message {
            ToThread::Batch(batch) => {
                for Publication { channel, delivery, received } in batch {
                    self.hub.queue(channel, delivery, received);
                }
            }
            ToThread::Confirmed(channels) => {
                for (channel, join_id) in channels {
                    self.answer_waiters(&channel, join_id, Ok(()));
                }
            }
            ToThread::Refused(channel, join_id) => {
                self.answer_waiters(&channel, join_id, Err(EngineUnavailable));
            }
            ToThread::Gap(channels) => return Some(channels),
        }
        None
    }

    fn answer_waiters(
        &self,
        channel: &ChannelName,
        join_id: JoinId,
        outcome: Result<(), EngineUnavailable>,
    ) {
        let mut pending = self.pending.borrow_mut();
        if pending.get(channel).is_some_and(|pending| pending.join_id == join_id)
            && let Some(Pending { waiters, .. }) = pending.remove(channel)
        {
            for waiter in waiters {
                // A socket that has closed no longer waits.
                let _ = waiter.send(outcome);
            }
        }
    }

    /// Closes the sockets of those `channels` that are confirmed.
    fn close_confirmed(&self, channels: &[ChannelName]) {
        let pending = self.pending.borrow();
        for channel in channels.iter().filter(|channel| !pending.contains_key(*channel)) {
            self.hub.close_all(channel, CloseReason::BrokerGap);
        }
    }
}
