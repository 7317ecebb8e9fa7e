//! The part of the broker on a worker thread: it attaches sockets to the hub and waits until the engine has
//! confirmed their channels.

mod delivering;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::Publication;
use super::catch_up::Observer;
use super::channels::{Arrival, Change, JoinId, SharedChannels};
use super::layer_reads::{LayerReads, ReadMark};
use crate::hub::HubPart;
use crate::protocol::{ChannelName, Position};
use crate::redis_link::EngineUnavailable;
use crate::socket::{Delivery, Socket, frame};
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
    pub(super) channels: SharedChannels,
    /// Whether threads join and leave channels by themselves, because nothing has to confirm it. It is set before `live`.
    pub(super) is_direct: Arc<AtomicBool>,
    /// How many publications are in the intake, or have left it and are not in the queues of all their threads yet.
    pub(super) undistributed: Arc<AtomicUsize>,
    pub(super) observer: Arc<OnceLock<Observer>>,
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
    /// What the engine thread has sent and [`Broker::run`] has not taken.
    from_core: RefCell<mpsc::Receiver<ToThread>>,
    /// Wakes [`Broker::run`] while it waits for something to deliver.
    waiting: Cell<Option<Waker>>,
    /// The sockets that were handed frames to be written with what follows.
    unwritten: RefCell<Vec<Rc<Socket>>>,
    channels: SharedChannels,
    is_direct: Arc<AtomicBool>,
    undistributed: Arc<AtomicUsize>,
    observer: Arc<OnceLock<Observer>>,
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
            from_core: RefCell::new(handle.from_core),
            waiting: Cell::default(),
            unwritten: RefCell::default(),
            channels: handle.channels,
            is_direct: handle.is_direct,
            undistributed: handle.undistributed,
            observer: handle.observer,
            live: handle.live,
            layer_up: handle.layer_up,
            layer_reads: handle.layer_reads,
            pending: RefCell::default(),
            next_join_id: Cell::new(0),
        });
        let run = Rc::clone(&broker).run();
        // A delivery polls many sockets at once; it gives way by itself, where tokio's budget would make writes fail.
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
            if !self.is_direct() {
                let pending = Pending { join_id, waiters: Vec::new() };
                self.pending.borrow_mut().insert(channel.clone(), pending);
            }
            let (channel, thread) = (channel.clone(), self.thread);
            self.send(Change::Join { channel, thread, join_id });
        }
        let subscription = Subscription {
            broker: Rc::clone(self),
            channel: channel.clone(),
            socket: Rc::clone(socket),
            is_left: false,
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

    fn wake(&self) {
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// Has the frames written that were handed to `socket` with [`Socket::send_with_next`], once what is ready on this
    /// thread just now has been delivered: they leave in one write with it.
    pub fn write_soon(&self, socket: &Rc<Socket>) {
        self.unwritten.borrow_mut().push(Rc::clone(socket));
        self.wake();
    }

    fn write_all(&self) {
        self.unwritten.borrow_mut().drain(..).for_each(|socket| socket.send_waiting());
    }

    /// Whether a publication to `channel` may be queued for this thread's sockets right away, which is so if it is for
    /// nobody else, and everything that was published to them before is in the hub. The histories must be locked, so that
    /// this stays so.
    pub(super) fn may_queue(&self, channel: &ChannelName) -> bool {
        self.is_direct()
            && self.undistributed.load(Ordering::Acquire) == 0
            && self.from_core.borrow().is_empty()
            && self.hub.has_room()
            && self.channels.lock().concerns_only(channel, self.thread)
    }

    /// Queues a publication for this thread's sockets, as the engine thread would have it queued. Returns its position if
    /// it is not delivered and must be removed from the history.
    pub(super) fn queue(&self, channel: &ChannelName, delivery: Delivery) -> Option<Position> {
        telemetry::delivery::publications_received(1);
        if let Some(position) = delivery.position {
            let mut channels = self.channels.lock();
            match channels.record_arrival(channel, position) {
                Arrival::Deliver => {}
                Arrival::Wait => return None,
                // Each socket finds out by itself what it has missed.
                Arrival::CatchUp(number) => channels.give_up(channel, number),
            }
        }
        let (json, position) = (frame::payload(&delivery.frame), delivery.position);
        if self.observer.get().is_some_and(|observe| !observe(channel, json, position)) {
            return position;
        }
        self.hub.queue(channel.clone(), delivery, Instant::now());
        self.wake();
        None
    }

    /// Reports that a connection of `channel` has its history up to `position`, and must get everything after it.
    pub fn start_after(&self, channel: &ChannelName, position: Position) {
        self.send(Change::Start { channel: channel.clone(), position });
    }

    /// The last publication with a position that was handed to `socket`, or to the others of its channel before it came.
    pub fn last_position(&self, channel: &ChannelName, socket: &Socket) -> Option<Position> {
        self.hub.last_position(channel, socket)
    }

    /// Keeps this node subscribed to `channel`, even without a socket, until the guard is dropped. The
    /// subscription may start after this call returns.
    pub fn pin(&self, channel: &ChannelName) -> ChannelPin {
        // Always by the core, which notifies tails. It only ends with the process, when nothing is subscribed any more.
        let _ = self.to_core.send(Change::Pin(channel.clone()));
        ChannelPin { to_core: self.to_core.clone(), channel: channel.clone() }
    }

    /// The name of a channel that has sockets on this thread, as it is kept for them.
    pub fn shared_name(&self, channel: &ChannelName) -> Option<ChannelName> {
        self.hub.shared_name(channel)
    }

    /// Ends a subscription that was left to the caller, see [`Subscription::leave`].
    pub fn unsubscribe(&self, channel: &ChannelName, socket: &Rc<Socket>) {
        if self.hub.detach(channel, socket) {
            self.pending.borrow_mut().remove(channel);
            let (channel, thread) = (channel.clone(), self.thread);
            self.send(Change::Leave { channel, thread });
        }
    }

    fn is_direct(&self) -> bool {
        self.is_direct.load(Ordering::Relaxed)
    }

    /// Applies a change of this thread's own listeners, or has it applied.
    fn send(&self, change: Change) {
        if self.is_direct() {
            self.channels.lock().apply(change);
            return;
        }
        // The core only ends with the process, when nothing is subscribed any more.
        let _ = self.to_core.send(change);
    }
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
    is_left: bool,
}

impl Subscription {
    /// Leaves the subscription to the caller, who ends it with [`Broker::unsubscribe`]. A session has all that a
    /// subscription consists of, and need not keep it twice.
    pub fn leave(mut self) {
        self.is_left = true;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if !self.is_left {
            self.broker.unsubscribe(&self.channel, &self.socket);
        }
    }
}
