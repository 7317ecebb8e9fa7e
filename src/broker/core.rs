//! The engine thread's side: which threads hear which channel, and the way of a publication from the
//! intake to them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::thread::{Seat, Ticket, ToThread};
use super::{Publication, PublishError};
use crate::protocol::ChannelName;
use crate::socket::frame;
use crate::telemetry;

/// Publications that wait for the engine thread, by count.
const INTAKE_LENGTH: usize = 16 * 1024;

/// Publications that wait for the engine thread, in bytes; never less than two of the largest.
const INTAKE_BYTES: usize = 64 << 20;

/// Batches that wait for a worker thread; the engine thread waits when they are full.
const THREAD_QUEUE: usize = 64;

/// One batch ends at this many publications or bytes.
const BATCH_LENGTH: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

/// A worker thread's word about a channel.
#[derive(Debug)]
pub(super) enum Change {
    Join { channel: ChannelName, thread: usize, ticket: Ticket },
    Leave { channel: ChannelName, thread: usize },
}

/// A publication and its share of the intake's bytes.
struct Arriving {
    publication: Publication,
    _bytes: OwnedSemaphorePermit,
}

/// Where publications enter this node: bounded by count and bytes. When it is full, a publisher of the
/// memory engine waits, and the subscription of the Redis engine counts as broken (a gap).
#[derive(Clone)]
pub struct Intake {
    queue: mpsc::Sender<Arriving>,
    bytes: Arc<Semaphore>,
    capacity: usize,
}

/// The intake has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntakeFull;

impl Intake {
    /// Waits for room.
    pub async fn put(&self, channel: &ChannelName, json: &[u8]) -> Result<(), PublishError> {
        let bytes = Arc::clone(&self.bytes)
            .acquire_many_owned(self.share(json))
            .await
            .map_err(|_| PublishError::EngineDown)?;
        let arriving = Arriving { publication: encode(channel.clone(), json), _bytes: bytes };
        self.queue.send(arriving).await.map_err(|_| PublishError::EngineDown)
    }

    /// Does not wait.
    pub fn try_put(&self, channel: ChannelName, json: &[u8]) -> Result<(), IntakeFull> {
        let bytes = Arc::clone(&self.bytes)
            .try_acquire_many_owned(self.share(json))
            .map_err(|_| IntakeFull)?;
        let arriving = Arriving { publication: encode(channel, json), _bytes: bytes };
        self.queue.try_send(arriving).map_err(|_| IntakeFull)
    }

    fn share(&self, json: &[u8]) -> u32 {
        json.len().min(self.capacity) as u32
    }
}

/// As text, which must be UTF-8: one publication of other bytes would make every client of its channel
/// fail its connection (RFC 6455 section 8.1). Such bytes travel in a binary frame.
fn encode(channel: ChannelName, json: &[u8]) -> Publication {
    let opcode = match simdutf8::basic::from_utf8(json) {
        Ok(_) => frame::Opcode::Text,
        Err(_) => frame::Opcode::Binary,
    };
    Publication { channel, frame: frame::encode(opcode, json), received: Instant::now() }
}

/// One thread's wish to hear a channel.
pub(super) struct Listener {
    pub thread: usize,
    pub ticket: Ticket,
}

/// Which threads hear a channel.
#[derive(Default)]
pub(super) struct Channels {
    by_name: HashMap<ChannelName, Vec<Listener>>,
}

impl Channels {
    /// Returns the channel that `change` was about.
    pub fn apply(&mut self, change: Change) -> ChannelName {
        match change {
            Change::Join { channel, thread, ticket } => {
                let listeners = self.by_name.entry(channel.clone()).or_default();
                listeners.retain(|listener| listener.thread != thread);
                listeners.push(Listener { thread, ticket });
                channel
            }
            Change::Leave { channel, thread } => {
                if let Some(listeners) = self.by_name.get_mut(&channel) {
                    listeners.retain(|listener| listener.thread != thread);
                    if listeners.is_empty() {
                        self.by_name.remove(&channel);
                    }
                }
                channel
            }
        }
    }

    pub fn listeners(&self, channel: &ChannelName) -> &[Listener] {
        self.by_name.get(channel).map_or(&[], Vec::as_slice)
    }

    pub fn names(&self) -> impl Iterator<Item = &ChannelName> {
        self.by_name.keys()
    }
}

/// The engine thread's state, made before any thread starts.
pub struct Core {
    pub(super) channels: Rc<RefCell<Channels>>,
    pub(super) changes: mpsc::UnboundedReceiver<Change>,
    pub(super) threads: Rc<[mpsc::Sender<ToThread>]>,
    arriving: mpsc::Receiver<Arriving>,
    pub(super) intake: Intake,
    pub(super) live: Arc<AtomicBool>,
    pub(super) max_publication_bytes: usize,
}

impl Core {
    /// A core for `threads` worker threads, and the seat of each.
    pub fn new(threads: usize, max_publication_bytes: usize) -> (Self, Vec<Seat>) {
        // Unbounded, but not without bound: an open connection has at most one join and one leave
        // under way, and is not admitted before the join is confirmed.
        let (to_core, changes) = mpsc::unbounded_channel();
        let (queue, arriving) = mpsc::channel(INTAKE_LENGTH);
        let capacity = INTAKE_BYTES.max(max_publication_bytes.saturating_mul(2));
        let capacity = capacity.min(u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        let live = Arc::new(AtomicBool::new(false));
        let (senders, seats) = (0..threads)
            .map(|thread| {
                let (sender, receiver) = mpsc::channel(THREAD_QUEUE);
                let live = Arc::clone(&live);
                (sender, Seat { thread, from_core: receiver, to_core: to_core.clone(), live })
            })
            .unzip::<_, _, Vec<_>, Vec<_>>();
        let core = Self {
            channels: Rc::default(),
            changes,
            threads: senders.into(),
            arriving,
            intake: Intake { queue, bytes: Arc::new(Semaphore::new(capacity)), capacity },
            live,
            max_publication_bytes,
        };
        (core, seats)
    }

    pub fn intake(&self) -> Intake {
        self.intake.clone()
    }

    /// Whether subscriptions are live; shared with readiness checks.
    pub fn live(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.live)
    }

    /// Serves the memory engine: a channel is confirmed as soon as it is known here.
    /// Subscriptions are live from the call on, so that no client can come too early.
    pub fn run_memory(self) -> impl Future<Output = ()> {
        self.live.store(true, Ordering::Release);
        self.follow_changes()
    }

    async fn follow_changes(self) {
        let Self { channels, mut changes, threads, arriving, .. } = self;
        let distribution = tokio::task::spawn_local(distribute(
            arriving,
            Rc::clone(&channels),
            Rc::clone(&threads),
        ));
        while let Some(change) = changes.recv().await {
            let confirmed = match &change {
                Change::Join { channel, thread, ticket } => {
                    Some((*thread, channel.clone(), *ticket))
                }
                Change::Leave { .. } => None,
            };
            channels.borrow_mut().apply(change);
            if let Some((thread, channel, ticket)) = confirmed {
                let word = ToThread::Confirmed(vec![(channel, ticket)]);
                let _thread_ended = threads[thread].send(word).await;
            }
        }
        distribution.abort();
    }

    /// Splits off the task that hands publications on.
    pub(super) fn split(self) -> (Rc<RefCell<Channels>>, Parts) {
        let distribution =
            distribute(self.arriving, Rc::clone(&self.channels), Rc::clone(&self.threads));
        tokio::task::spawn_local(distribution);
        let parts = Parts {
            changes: self.changes,
            threads: self.threads,
            intake: self.intake,
            live: self.live,
            max_publication_bytes: self.max_publication_bytes,
        };
        (self.channels, parts)
    }
}

/// What the supervisor of a Redis subscription works with.
pub(super) struct Parts {
    pub changes: mpsc::UnboundedReceiver<Change>,
    pub threads: Rc<[mpsc::Sender<ToThread>]>,
    pub intake: Intake,
    pub live: Arc<AtomicBool>,
    pub max_publication_bytes: usize,
}

/// Hands what is ready to the threads that have listeners, in order, a batch a thread at a time.
async fn distribute(
    mut arriving: mpsc::Receiver<Arriving>,
    channels: Rc<RefCell<Channels>>,
    threads: Rc<[mpsc::Sender<ToThread>]>,
) {
    let mut ready = Vec::with_capacity(BATCH_LENGTH);
    let mut batches: Vec<Vec<Publication>> = threads.iter().map(|_| Vec::new()).collect();
    while arriving.recv_many(&mut ready, BATCH_LENGTH).await > 0 {
        telemetry::delivery::publications_received(ready.len());
        let mut bytes = 0;
        for Arriving { publication, _bytes } in ready.drain(..) {
            bytes += publication.frame.len();
            for listener in channels.borrow().listeners(&publication.channel) {
                batches[listener.thread].push(publication.clone());
            }
            if bytes >= BATCH_BYTES {
                hand_over(&threads, &mut batches).await;
                bytes = 0;
            }
        }
        hand_over(&threads, &mut batches).await;
        let waiting = threads.iter().map(|thread| THREAD_QUEUE - thread.capacity()).max();
        telemetry::delivery::queues(arriving.len(), waiting.unwrap_or(0));
    }
}

async fn hand_over(threads: &[mpsc::Sender<ToThread>], batches: &mut [Vec<Publication>]) {
    for (thread, batch) in threads.iter().zip(batches) {
        if !batch.is_empty() {
            let _thread_ended = thread.send(ToThread::Batch(std::mem::take(batch))).await;
        }
    }
}

/// A channel's payload as Redis gave it.
pub(super) fn accept(intake: &Intake, channel: &[u8], json: Bytes) -> Result<(), IntakeFull> {
    match std::str::from_utf8(channel).ok().and_then(|name| ChannelName::new(name).ok()) {
        Some(channel) => intake.try_put(channel, &json),
        None => Ok(()),
    }
}
