//! The part of the broker on a worker thread: it attaches sockets to the hub and waits until the engine has
//! confirmed their channels.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::Publication;
use super::channels::{Change, JoinId};
use super::layer_reads::{LayerReads, ReadMark};
use crate::hub::HubPart;
use crate::protocol::{ChannelName, CloseReason, Position};
use crate::redis_link::EngineUnavailable;
use crate::socket::{Delivery, Socket};
use crate::telemetry;

/// How long a new socket waits for the engine to confirm its channel.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(5);

/// A message from the engine thread to a worker thread. Messages arrive in the order in which they were sent.
pub(super) enum ToThread {
    Batch(Vec<Publication>),
    /// These channels are subscribed.
    Confirmed(Vec<(ChannelName, JoinId)>),
    /// Redis does not let this node subscribe to the channel.
    Refused(ChannelName, JoinId),
    /// Publications of these channels may have been missed. Sockets whose channel is not confirmed yet are not
    /// affected.
    Gap(Vec<ChannelName>),
}

/// What a worker thread needs to create its [`Broker`]. The handle is created on another thread.
pub struct WorkerHandle {
    pub(super) thread: usize,
    pub(super) from_core: mpsc::Receiver<ToThread>,
    pub(super) to_core: mpsc::UnboundedSender<Change>,
    pub(super) live: Arc<AtomicBool>,
    pub(super) layer_up: Arc<AtomicBool>,
    pub(super) layer_reads: Arc<LayerReads>,
}

/// The sockets that wait for one channel's confirmation.
struct Pending {
    join_id: JoinId,
    waiters: Vec<oneshot::Sender<Result<(), EngineUnavailable>>>,
}

/// The broker of one worker thread.
pub struct Broker {
    thread: usize,
    hub: HubPart,
    to_core: mpsc::UnboundedSender<Change>,
    live: Arc<AtomicBool>,
    layer_up: Arc<AtomicBool>,
    layer_reads: Arc<LayerReads>,
    /// The channels of the hub that are not confirmed yet.
    pending: RefCell<HashMap<ChannelName, Pending>>,
    next_join_id: Cell<JoinId>,
}

impl Broker {
    /// Creates the broker of the current thread. The returned future delivers publications and must run as a task
    /// of this thread.
    pub fn new(handle: WorkerHandle) -> (Rc<Self>, impl Future<Output = ()>) {
        let broker = Rc::new(Self {
            thread: handle.thread,
            hub: HubPart::default(),
            to_core: handle.to_core,
            live: handle.live,
            layer_up: handle.layer_up,
            layer_reads: handle.layer_reads,
            pending: RefCell::default(),
            next_join_id: Cell::new(0),
        });
        let run = Rc::clone(&broker).run(handle.from_core);
        // A delivery polls many sockets at once; tokio's budget would interrupt it after 128.
        (broker, tokio::task::unconstrained(run))
    }

    /// Whether a new socket would receive publications.
    pub fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    /// Whether everything that is published reaches this node at the moment, also by the channel layer.
    pub fn hears_all(&self) -> bool {
        self.is_live() && self.layer_up.load(Ordering::Acquire)
    }

    /// Marks what this node's mailbox of the channel layer holds now.
    pub fn mark_layer_reads(&self) -> ReadMark {
        self.layer_reads.mark()
    }

    /// Whether the messages that the mailbox held at `mark` have been appended.
    pub fn has_read_layer_until(&self, mark: ReadMark) -> bool {
        self.layer_reads.has_passed(mark)
    }

    /// Subscribes `socket` to `channel` and returns once the engine has confirmed the channel. A caller that has
    /// to send something before the first publication must hold the socket ([`Socket::hold`]) before this call.
    pub async fn subscribe(
        self: &Rc<Self>,
        channel: &ChannelName,
        socket: &Rc<Socket>,
    ) -> Result<Subscription, EngineUnavailable> {
        if !self.is_live() {
            return Err(EngineUnavailable);
        }
        if self.hub.attach(channel, Rc::clone(socket)) {
            let join_id = self.next_join_id.get();
            self.next_join_id.set(join_id + 1);
            let pending = Pending { join_id, waiters: Vec::new() };
            self.pending.borrow_mut().insert(channel.clone(), pending);
            let (channel, thread) = (channel.clone(), self.thread);
            self.send(Change::Join { channel, thread, join_id });
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
                    for (channel, join_id) in channels {
                        self.answer_waiters(&channel, join_id, Ok(()));
                    }
                }
                ToThread::Refused(channel, join_id) => {
                    self.answer_waiters(&channel, join_id, Err(EngineUnavailable));
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

    /// Reports that a connection of `channel` has its history up to `position`, and must get everything after it.
    pub fn start_after(&self, channel: &ChannelName, position: Position) {
        self.send(Change::Start { channel: channel.clone(), position });
    }

    /// Keeps this node subscribed to `channel`, even without a socket, until the guard is dropped. The
    /// subscription may start after this call returns.
    pub fn pin(&self, channel: &ChannelName) -> ChannelPin {
        self.send(Change::Pin(channel.clone()));
        ChannelPin { to_core: self.to_core.clone(), channel: channel.clone() }
    }

    fn unsubscribe(&self, channel: &ChannelName, socket: &Rc<Socket>) {
        if self.hub.detach(channel, socket) {
            self.pending.borrow_mut().remove(channel);
            let (channel, thread) = (channel.clone(), self.thread);
            self.send(Change::Leave { channel, thread });
        }
    }

    fn send(&self, change: Change) {
        // The core only ends with the process, when nothing is subscribed any more.
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
        // The core only ends with the process, when nothing is subscribed any more.
        let _ = self.to_core.send(Change::Unpin(self.channel.clone()));
    }
}

/// A socket's subscription to its channel, which ends when this is dropped.
pub struct Subscription {
    broker: Rc<Broker>,
    channel: ChannelName,
    socket: Rc<Socket>,
}

impl Subscription {
    /// The last publication with a position that this thread has handed to the sockets of the channel.
    pub fn last_position(&self) -> Option<Position> {
        self.broker.hub.last_position(&self.channel)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.broker.unsubscribe(&self.channel, &self.socket);
    }
}
