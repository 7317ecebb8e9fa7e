//! The engine thread's side: takes publications from the intake and delivers them to the threads that listen
//! to their channels.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc::PermitIterator;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::canary::Canary;
use super::catch_up::{CatchUps, Observer};
use super::channels::{Arrival, Change, Channels};
use super::history::{self, History};
use super::tails::Tails;
use super::thread::{ToThread, WorkerHandle};
use super::{Publication, PublishError};
use crate::protocol::{ChannelName, Position};
use crate::telemetry;

/// The most publications that wait for the engine thread.
const INTAKE_LENGTH: usize = 16 * 1024;

/// The most bytes of publications that wait for the engine thread; never less than two of the largest.
const INTAKE_BYTES: usize = 64 << 20;

/// The most batches that wait for a worker thread. When its queue is full, the engine thread waits.
const THREAD_QUEUE: usize = 64;

/// The most publications of a batch, and the bytes at which it ends.
const BATCH_LENGTH: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

/// A publication and its share of the intake's bytes.
struct Arriving {
    publication: Publication,
    _bytes: Arc<OwnedSemaphorePermit>,
}

/// The queue in which publications enter this node, bounded by count and bytes. When it is full, a publisher
/// of the memory engine waits, and the subscription of the Redis engine counts as broken (a gap).
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
    /// Waits for room for all of `data`.
    pub(super) async fn reserve(&self, data: &[Bytes]) -> Result<Slots<'_>, PublishError> {
        let size = data.iter().map(|json| json.len()).sum();
        let bytes = Arc::clone(&self.bytes)
            .acquire_many_owned(self.share(size))
            .await
            .map_err(|_| PublishError::EngineUnavailable)?;
        let permits = self.queue.reserve_many(data.len()).await;
        let permits = permits.map_err(|_| PublishError::EngineUnavailable)?;
        Ok(Slots { permits, bytes: Arc::new(bytes) })
    }

    /// Puts a publication into the queue without waiting.
    pub fn try_put(&self, publication: Publication) -> Result<(), IntakeFull> {
        let bytes = Arc::clone(&self.bytes)
            .try_acquire_many_owned(self.share(publication.delivery.frame.len()))
            .map_err(|_| IntakeFull)?;
        let arriving = Arriving { publication, _bytes: Arc::new(bytes) };
        self.queue.try_send(arriving).map_err(|_| IntakeFull)
    }

    fn share(&self, bytes: usize) -> u32 {
        bytes.min(self.capacity) as u32
    }
}

/// Room in the intake.
pub(super) struct Slots<'a> {
    permits: PermitIterator<'a, Arriving>,
    /// Released when the last of them has been delivered.
    bytes: Arc<OwnedSemaphorePermit>,
}

impl Slots<'_> {
    /// Puts a publication into one of the slots. Nothing happens when all are used.
    pub fn put(&mut self, publication: Publication) {
        if let Some(permit) = self.permits.next() {
            permit.send(Arriving { publication, _bytes: Arc::clone(&self.bytes) });
        }
    }
}

/// The engine thread's state, which is made before any thread starts.
pub struct Core {
    pub(super) channels: Rc<RefCell<Channels>>,
    pub(super) changes: mpsc::UnboundedReceiver<Change>,
    pub(super) threads: Rc<[mpsc::Sender<ToThread>]>,
    arriving: mpsc::Receiver<Arriving>,
    pub(super) intake: Intake,
    pub(super) live: Arc<AtomicBool>,
    layer_up: Arc<AtomicBool>,
    pub(super) max_publication_bytes: usize,
    observer: Observer,
    pub(super) canary: Option<Canary>,
    tails: Tails,
}

impl Core {
    /// A core for `threads` worker threads, and the handle of each.
    pub fn new(threads: usize, max_publication_bytes: usize) -> (Self, Vec<WorkerHandle>) {
        // The channel has no bound of its own: an open connection has at most one join and one leave under
        // way, and is not admitted before the join is confirmed; pins are bounded by their holders.
        let (to_core, changes) = mpsc::unbounded_channel();
        let (queue, arriving) = mpsc::channel(INTAKE_LENGTH);
        let capacity = INTAKE_BYTES.max(max_publication_bytes.saturating_mul(2));
        let capacity = capacity.min(u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        let live = Arc::new(AtomicBool::new(false));
        let (senders, handles) = (0..threads)
            .map(|thread| {
                let (sender, receiver) = mpsc::channel(THREAD_QUEUE);
                let live = Arc::clone(&live);
                (
                    sender,
                    WorkerHandle { thread, from_core: receiver, to_core: to_core.clone(), live },
                )
            })
            .unzip::<_, _, Vec<_>, Vec<_>>();
        let core = Self {
            tails: Tails::new(to_core.downgrade(), max_publication_bytes),
            channels: Rc::default(),
            changes,
            threads: senders.into(),
            arriving,
            intake: Intake { queue, bytes: Arc::new(Semaphore::new(capacity)), capacity },
            live,
            layer_up: Arc::new(AtomicBool::new(true)),
            max_publication_bytes,
            observer: Rc::new(|_, _, _| true),
            canary: None,
        };
        (core, handles)
    }

    /// Sets who gets every publication before it is delivered (see [`Observer`]). To be called before the core
    /// runs.
    pub fn set_observer(
        &mut self,
        observer: impl Fn(&ChannelName, &[u8], Option<Position>) -> bool + 'static,
    ) {
        self.observer = Rc::new(observer);
    }

    /// Sets the canary that is subscribed on Redis. To be called before the core runs.
    pub fn set_canary(&mut self, canary: Canary) {
        self.canary = Some(canary);
    }

    /// The tails of this node, for use on the engine thread.
    pub fn tails(&self) -> Tails {
        self.tails.clone()
    }

    pub fn intake(&self) -> Intake {
        self.intake.clone()
    }

    /// Whether subscriptions are live, for readiness checks.
    pub fn live(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.live)
    }

    /// Whether messages of the channel layer reach this node, where there is one; for readiness checks.
    pub fn layer_up(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.layer_up)
    }

    /// Serves the memory engine, where a channel is confirmed as soon as it is known. Subscriptions are live
    /// from this call on, so that no client can connect too early.
    pub fn run_memory(self, history: History) -> impl Future<Output = ()> {
        self.live.store(true, Ordering::Release);
        self.apply_changes(history)
    }

    async fn apply_changes(self, history: History) {
        let (mut parts, distribution) = self.split(history);
        let distribution = tokio::task::spawn_local(distribution);
        while let Some(change) = parts.changes.recv().await {
            let confirmed = match &change {
                Change::Join { channel, thread, ticket } => {
                    Some((*thread, channel.clone(), *ticket))
                }
                Change::Pin(channel) => {
                    parts.catch_ups.tails.confirm(channel);
                    None
                }
                Change::Leave { .. } | Change::Unpin(_) | Change::Start { .. } => None,
            };
            parts.catch_ups.channels.borrow_mut().apply(change);
            if let Some((thread, channel, ticket)) = confirmed {
                let confirmed = ToThread::Confirmed(vec![(channel, ticket)]);
                // A thread that has ended has no sockets.
                let _ = parts.catch_ups.threads[thread].send(confirmed).await;
            }
        }
        distribution.abort();
    }

    /// Splits off the task that delivers publications.
    pub(super) fn split(self, history: History) -> (Parts, impl Future<Output = ()> + use<>) {
        let catch_ups = CatchUps {
            channels: self.channels,
            threads: self.threads,
            history,
            observer: self.observer,
            tails: self.tails,
        };
        let distribution = distribute(self.arriving, catch_ups.clone());
        let parts = Parts {
            changes: self.changes,
            intake: self.intake,
            live: self.live,
            layer_up: self.layer_up,
            max_publication_bytes: self.max_publication_bytes,
            catch_ups,
        };
        (parts, distribution)
    }
}

/// What is left of a [`Core`] beside the task that delivers.
pub(super) struct Parts {
    pub changes: mpsc::UnboundedReceiver<Change>,
    pub intake: Intake,
    pub live: Arc<AtomicBool>,
    pub layer_up: Arc<AtomicBool>,
    pub max_publication_bytes: usize,
    pub catch_ups: CatchUps,
}

/// Delivers what is ready to the threads that have listeners, in order, one batch for each thread at a time.
async fn distribute(mut arriving: mpsc::Receiver<Arriving>, catch_ups: CatchUps) {
    let CatchUps { channels, threads, .. } = &catch_ups;
    let mut ready = Vec::with_capacity(BATCH_LENGTH);
    let mut batches: Vec<Vec<Publication>> = threads.iter().map(|_| Vec::new()).collect();
    while arriving.recv_many(&mut ready, BATCH_LENGTH).await > 0 {
        telemetry::delivery::publications_received(ready.len());
        let mut bytes = 0;
        for Arriving { publication, _bytes } in ready.drain(..) {
            bytes += publication.delivery.frame.len();
            if sequence(&catch_ups, &publication) && catch_ups.observe(&publication) {
                for listener in channels.borrow().listeners(&publication.channel) {
                    batches[listener.thread].push(publication.clone());
                }
            }
            if bytes >= BATCH_BYTES {
                send_batches(threads, &mut batches).await;
                bytes = 0;
            }
        }
        send_batches(threads, &mut batches).await;
        let waiting = threads.iter().map(|thread| THREAD_QUEUE - thread.capacity()).max();
        telemetry::delivery::queues_measured(arriving.len(), waiting.unwrap_or(0));
    }
}

/// Returns whether `publication` is to be delivered now. One that does not follow what came before is read
/// from the history later, together with what is missing.
fn sequence(catch_ups: &CatchUps, publication: &Publication) -> bool {
    let Some(position) = publication.delivery.position else { return true };
    let channel = &publication.channel;
    let arrival = catch_ups.channels.borrow_mut().record_arrival(channel, position);
    if let Arrival::CatchUp(number) = arrival {
        catch_ups.start(channel.clone(), number);
    }
    arrival == Arrival::Deliver
}

async fn send_batches(threads: &[mpsc::Sender<ToThread>], batches: &mut [Vec<Publication>]) {
    for (thread, batch) in threads.iter().zip(batches) {
        if !batch.is_empty() {
            // A thread that has ended has no listeners.
            let _ = thread.send(ToThread::Batch(std::mem::take(batch))).await;
        }
    }
}

/// Puts a payload of a Redis channel into the intake. One of a channel whose name is not valid is ignored.
pub(super) fn accept(intake: &Intake, channel: &[u8], payload: Bytes) -> Result<(), IntakeFull> {
    let Some(channel) =
        std::str::from_utf8(channel).ok().and_then(|name| ChannelName::new(name).ok())
    else {
        return Ok(());
    };
    let delivery = match Position::split(&payload) {
        Some((position, json)) => history::encode(json, Some(position)),
        None => history::encode(&payload, None),
    };
    intake.try_put(Publication { channel, delivery, received: Instant::now() })
}
