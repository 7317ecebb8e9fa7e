//! A worker thread's side: joins sockets to the hub and waits for the engine's confirmation.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::Publication;
use super::channels::{Change, Ticket};
use crate::hub::HubPart;
use crate::protocol::{ChannelName, CloseReason, Position};
use crate::redis_link::EngineUnavailable;
use crate::socket::{Delivery, Socket};
use crate::telemetry;

/// How long a new socket waits for the engine to confirm its channel.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(5);

/// A message of the engine thread to a worker thread. All of them arrive in the order in which they were sent.
pub(super) enum ToThread {
    Batch(Vec<Publication>),
    /// These channels are subscribed.
    Confirmed(Vec<(ChannelName, Ticket)>),
    /// Redis does not let this node subscribe to the channel.
    Refused(ChannelName, Ticket),
    /// Publications of these channels may have been missed. Sockets that still wait for the confirmation are
    /// not affected.
    Gap(Vec<ChannelName>),
}

/// What a worker thread needs to become a [`Broker`]. It is made on another thread.
pub struct WorkerHandle {
    pub(super) thread: usize,
    pub(super) from_core: mpsc::Receiver<ToThread>,
    pub(super) to_core: mpsc::UnboundedSender<Change>,
    pub(super) live: Arc<AtomicBool>,
}

/// The sockets that wait for one channel's confirmation.
struct Pending {
    ticket: Ticket,
    waiters: Vec<oneshot::Sender<Result<(), EngineUnavailable>>>,
}

/// The broker of one worker thread.
pub struct Broker {
    thread: usize,
    hub: HubPart,
    to_core: mpsc::UnboundedSender<Change>,
    live: Arc<AtomicBool>,
    /// The channels of the hub that are not confirmed yet.
    pending: RefCell<HashMap<ChannelName, Pending>>,
    next_ticket: Cell<Ticket>,
}

impl Broker {
    /// The returned future delivers publications and must run as a task of the thread.
    pub fn new(handle: WorkerHandle) -> (Rc<Self>, impl Future<Output = ()>) {
        let broker = Rc::new(Self {
            thread: handle.thread,
            hub: HubPart::default(),
            to_core: handle.to_core,
            live: handle.live,
            pending: RefCell::default(),
            next_ticket: Cell::new(0),
        });
        let run = Rc::clone(&broker).run(handle.from_core);
        // A delivery polls many sockets at once; tokio's budget would interrupt it after 128.
        (broker, tokio::task::unconstrained(run))
    }

    /// Whether a new socket would receive publications.
    pub fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    /// Joins `socket` to `channel` and returns once the engine has confirmed it. A caller that has to send
    /// something before the first publication holds the socket back ([`Socket::hold`]) before it calls.
    pub async fn subscribe(
        self: &Rc<Self>,
        channel: &ChannelName,
        socket: &Rc<Socket>,
    ) -> Result<Subscription, EngineUnavailable> {
        if !self.is_live() {
            return Err(EngineUnavailable);
        }
        if self.hub.attach(channel, Rc::clone(socket)) {
            let ticket = self.next_ticket.get();
            self.next_ticket.set(ticket + 1);
            let pending = Pending { ticket, waiters: Vec::new() };
            self.pending.borrow_mut().insert(channel.clone(), pending);
            let (channel, thread) = (channel.clone(), self.thread);
            self.send(Change::Join { channel, thread, ticket });
        }
        let subscription = Subscription {
            broker: Rc::clone(self),
            channel: channel.clone(),
            socket: Rc::clone(socket),
        };
        let confirmation = self.pending.borrow_mut().get_mut(channel).map(|pending| {
            let (sender, receiver) = oneshot::channel();
            pending.waiters.push(sender);
            receiver
        });
        if let Some(confirmation) = confirmation {
            match tokio::time::timeout(SUBSCRIBE_TIMEOUT, confirmation).await {
                Ok(Ok(outcome)) => outcome?,
                _ => return Err(EngineUnavailable),
            }
        }
        Ok(subscription)
    }

    async fn run(self: Rc<Self>, mut from_core: mpsc::Receiver<ToThread>) {
        while let Some(message) = from_core.recv().await {
            match message {
                ToThread::Batch(batch) => self.deliver(batch).await,
                ToThread::Confirmed(channels) => {
                    for (channel, ticket) in channels {
                        self.answer_waiters(&channel, ticket, Ok(()));
                    }
                }
                ToThread::Refused(channel, ticket) => {
                    self.answer_waiters(&channel, ticket, Err(EngineUnavailable));
                }
                ToThread::Gap(channels) => self.close_confirmed(&channels),
            }
        }
    }

    async fn deliver(&self, batch: Vec<Publication>) {
        let Some(oldest) = batch.first().map(|publication| publication.received) else { return };
        let mut delivered = crate::hub::Delivered::default();
        let mut add = |channel: &ChannelName, frames: &[Delivery], more: crate::hub::Delivered| {
            telemetry::delivery::channel_delivered(channel, frames, more.deliveries, more.drops);
            delivered.deliveries += more.deliveries;
            delivered.drops += more.drops;
        };
        if let [publication] = &batch[..] {
            let delivery = std::slice::from_ref(&publication.delivery);
            let channel = &publication.channel;
            add(channel, delivery, self.hub.deliver(channel, delivery).await);
        } else {
            for (channel, frames) in by_channel(batch) {
                add(&channel, &frames, self.hub.deliver(&channel, &frames).await);
            }
        }
        telemetry::delivery::batch_delivered(
            delivered.deliveries,
            delivered.drops,
            oldest.elapsed(),
        );
    }

    fn answer_waiters(
        &self,
        channel: &ChannelName,
        ticket: Ticket,
        outcome: Result<(), EngineUnavailable>,
    ) {
        let mut pending = self.pending.borrow_mut();
        if pending.get(channel).is_some_and(|pending| pending.ticket == ticket)
            && let Some(Pending { waiters, .. }) = pending.remove(channel)
        {
            for waiter in waiters {
                // A socket that has closed does not wait any more.
                let _ = waiter.send(outcome);
            }
        }
    }

    /// Closes the sockets of those of `channels` that are confirmed.
    fn close_confirmed(&self, channels: &[ChannelName]) {
        let pending = self.pending.borrow();
        for channel in channels.iter().filter(|channel| !pending.contains_key(*channel)) {
            self.hub.close_all(channel, CloseReason::BrokerGap);
        }
    }

    /// Reports that a connection of `channel` has its history up to `position`, and is to get the rest.
    pub fn start_after(&self, channel: &ChannelName, position: Position) {
        self.send(Change::Start { channel: channel.clone(), position });
    }

    /// Keeps this node subscribed to `channel` without a socket, from soon on until the guard is dropped.
    pub fn pin(&self, channel: &ChannelName) -> ChannelPin {
        self.send(Change::Pin(channel.clone()));
        ChannelPin { to_core: self.to_core.clone(), channel: channel.clone() }
    }

    fn leave(&self, channel: &ChannelName, socket: &Rc<Socket>) {
        if self.hub.detach(channel, socket) {
            self.pending.borrow_mut().remove(channel);
            let (channel, thread) = (channel.clone(), self.thread);
            self.send(Change::Leave { channel, thread });
        }
    }

    fn send(&self, change: Change) {
        // The core ends with the process; nothing is subscribed then.
        let _ = self.to_core.send(change);
    }
}

/// The frames of each channel in their order, and the channels in the order of their first frame.
fn by_channel(batch: Vec<Publication>) -> Vec<(ChannelName, Vec<Delivery>)> {
    let mut groups: Vec<(ChannelName, Vec<Delivery>)> = Vec::new();
    let mut index: HashMap<ChannelName, usize> = HashMap::new();
    for Publication { channel, delivery, .. } in batch {
        match groups.last_mut() {
            Some((last, frames)) if *last == channel => frames.push(delivery),
            _ => {
                let at = *index.entry(channel.clone()).or_insert(groups.len());
                match groups.get_mut(at) {
                    Some((_, frames)) => frames.push(delivery),
                    None => groups.push((channel, vec![delivery])),
                }
            }
        }
    }
    groups
}

/// Keeps this node subscribed to a channel until it is dropped.
pub struct ChannelPin {
    to_core: mpsc::UnboundedSender<Change>,
    channel: ChannelName,
}

impl Drop for ChannelPin {
    fn drop(&mut self) {
        // The core ends with the process; nothing is subscribed then.
        let _ = self.to_core.send(Change::Unpin(self.channel.clone()));
    }
}

/// A socket's membership in its channel, which ends when this is dropped.
pub struct Subscription {
    broker: Rc<Broker>,
    channel: ChannelName,
    socket: Rc<Socket>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.broker.leave(&self.channel, &self.socket);
    }
}
