//! The part of the broker on the engine thread: it takes publications from the intake and delivers them to the
//! worker threads that listen to their channels.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc::PermitIterator;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::canary::{Canary, ShardCanaries};
use super::catch_up::{CatchUps, EndReader, Observer};
use super::channels::{Arrival, Change, Channels, SharedChannels};
use super::history::{self, History};
use super::layer_reads::LayerReads;
use super::tails::Tails;
use super::thread::{ToThread, WorkerHandle};
use super::{Publication, PublishError};
use crate::protocol::{ChannelName, Position, ReplyEnd};
use crate::socket::Delivery;
use crate::telemetry;

/// The most publications in the intake.
const INTAKE_LENGTH: usize = 16 * 1024;

/// The most bytes of publications in the intake, but at least two publications of the maximum size.
const INTAKE_BYTES: usize = 64 << 20;

/// The most batches that wait for a worker thread. When its queue is full, the engine thread waits.
const THREAD_QUEUE: usize = 64;

/// A batch ends at this many publications or bytes.
const BATCH_LENGTH: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

/// A publication in the intake, with its permit for the intake's bytes.
struct QueuedPublication {
    publication: Publication,
    _bytes: OwnedSemaphorePermit,
}

/// The queue in which publications enter this node, bounded by count and bytes. When it is full, a publisher
/// of the memory engine waits, and the subscription of the Redis engine counts as broken (a gap).
#[derive(Clone)]
pub struct Intake {
    queue: mpsc::Sender<QueuedPublication>,
    bytes: Arc<Semaphore>,
    capacity: usize,
    /// See [`WorkerHandle::undistributed`].
    undistributed: Arc<AtomicUsize>,
}

/// The intake has no room for a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntakeFull;

impl Intake {
    /// Returns what tells how many bytes wait, without being a sender of the queue.
    pub fn queued_bytes(&self) -> impl Fn() -> usize + use<> {
        let (bytes, capacity) = (Arc::clone(&self.bytes), self.capacity);
        move || capacity.saturating_sub(bytes.available_permits())
    }

    /// Takes room for `count` publications of `size` bytes together, if there is some and nobody waits for it.
    pub(super) fn try_reserve(&self, count: usize, size: usize) -> Option<IntakePermits<'_>> {
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(self.share(size)).ok()?;
        let permits = self.queue.try_reserve_many(count).ok()?;
        Some(IntakePermits { permits, bytes, undistributed: &self.undistributed })
    }

    /// Waits for room for `count` publications of `size` bytes together.
    pub(super) async fn reserve(
        &self,
        count: usize,
        size: usize,
    ) -> Result<IntakePermits<'_>, PublishError> {
        let bytes = Arc::clone(&self.bytes)
            .acquire_many_owned(self.share(size))
            .await
            .map_err(|_| PublishError::EngineUnavailable)?;
        let permits = self.queue.reserve_many(count).await;
        let permits = permits.map_err(|_| PublishError::EngineUnavailable)?;
        Ok(IntakePermits { permits, bytes, undistributed: &self.undistributed })
    }

    /// Puts a publication into the queue without waiting.
    pub fn try_put(&self, publication: Publication) -> Result<(), IntakeFull> {
        let bytes = Arc::clone(&self.bytes)
            .try_acquire_many_owned(self.share(publication.delivery.frame.len()))
            .map_err(|_| IntakeFull)?;
        let queued = QueuedPublication { publication, _bytes: bytes };
        self.undistributed.fetch_add(1, Ordering::Relaxed);
        self.queue.try_send(queued).map_err(|_| {
            self.undistributed.fetch_sub(1, Ordering::Relaxed);
            IntakeFull
        })
    }

    fn share(&self, bytes: usize) -> u32 {
        bytes.min(self.capacity) as u32
    }
}

/// Permits to put publications into the intake.
pub(super) struct IntakePermits<'a> {
    permits: PermitIterator<'a, QueuedPublication>,
    /// Each publication takes its part of it.
    bytes: OwnedSemaphorePermit,
    undistributed: &'a AtomicUsize,
}

impl IntakePermits<'_> {
    /// Puts a publication into the intake. Does nothing when all permits are used.
    pub fn send(&mut self, publication: Publication) {
        let Some(permit) = self.permits.next() else { return };
        let size = publication.delivery.frame.len().min(self.bytes.num_permits());
        if let Some(bytes) = self.bytes.split(size) {
            self.undistributed.fetch_add(1, Ordering::Relaxed);
            permit.send(QueuedPublication { publication, _bytes: bytes });
        }
    }
}

/// The state of the broker on the engine thread. It is created before any worker thread starts.
pub struct Core {
    pub(super) channels: SharedChannels,
    pub(super) changes: mpsc::UnboundedReceiver<Change>,
    changes_sender: mpsc::WeakUnboundedSender<Change>,
    pub(super) threads: Rc<[mpsc::Sender<ToThread>]>,
    queued: mpsc::Receiver<QueuedPublication>,
    pub(super) intake: Intake,
    pub(super) live: Arc<AtomicBool>,
    /// See [`WorkerHandle::is_direct`].
    is_direct: Arc<AtomicBool>,
    layer_up: Arc<AtomicBool>,
    layer_reads: Arc<LayerReads>,
    pub(super) max_publication_bytes: usize,
    /// `None` = everything is delivered.
    observer: Arc<OnceLock<Observer>>,
    end_reader: EndReader,
    pub(super) canary: Option<Canary>,
    pub(super) shard_canaries: Option<ShardCanaries>,
    tails: Tails,
}

impl Core {
    /// Creates a core for `threads` worker threads, and one handle for each of them.
    pub fn new(threads: usize, max_publication_bytes: usize) -> (Self, Vec<WorkerHandle>) {
        // The channel is unbounded, but an open connection has at most one pending join and one pending leave,
        // and is not admitted before the join is confirmed. Pins are bounded by their owners.
        let (to_core, changes) = mpsc::unbounded_channel();
        let (queue, queued) = mpsc::channel(INTAKE_LENGTH);
        let capacity = INTAKE_BYTES.max(max_publication_bytes.saturating_mul(2));
        let capacity = capacity.min(u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        let live = Arc::new(AtomicBool::new(false));
        let is_direct = Arc::new(AtomicBool::new(false));
        let channels = SharedChannels::default();
        let undistributed = Arc::<AtomicUsize>::default();
        let observer = Arc::<OnceLock<Observer>>::default();
        let layer_up = Arc::new(AtomicBool::new(true));
        let layer_reads = Arc::<LayerReads>::default();
        let (senders, handles) = (0..threads)
            .map(|thread| {
                let (sender, receiver) = mpsc::channel(THREAD_QUEUE);
                let (live, layer_up) = (Arc::clone(&live), Arc::clone(&layer_up));
                (
                    sender,
                    WorkerHandle {
                        thread,
                        from_core: receiver,
                        to_core: to_core.clone(),
                        channels: channels.clone(),
                        is_direct: Arc::clone(&is_direct),
                        undistributed: Arc::clone(&undistributed),
                        observer: Arc::clone(&observer),
                        live,
                        layer_up,
                        layer_reads: Arc::clone(&layer_reads),
                    },
                )
            })
            .unzip::<_, _, Vec<_>, Vec<_>>();
        let core = Self {
            tails: Tails::new(to_core.downgrade(), max_publication_bytes),
            changes_sender: to_core.downgrade(),
            channels,
            changes,
            threads: senders.into(),
            queued,
            intake: Intake {
                queue,
                bytes: Arc::new(Semaphore::new(capacity)),
                capacity,
                undistributed,
            },
            live,
            is_direct,
            layer_up,
            layer_reads,
            max_publication_bytes,
            observer,
            end_reader: Rc::new(|_, _| None),
            canary: None,
            shard_canaries: None,
        };
        (core, handles)
    }

    /// Sets the [`Observer`] that gets every publication before it is delivered, on whichever thread that is. Must be
    /// called once, before the core runs.
    pub fn set_observer(
        &mut self,
        observer: impl Fn(&ChannelName, &[u8], Option<Position>) -> bool + Send + Sync + 'static,
    ) {
        // The first one stays.
        let _ = self.observer.set(Arc::new(observer));
    }

    /// Sets the [`EndReader`] for messages of a channel layer. Must be called before the core runs.
    pub fn set_end_reader(
        &mut self,
        reader: impl Fn(&ChannelName, &[u8]) -> Option<ReplyEnd> + 'static,
    ) {
        self.end_reader = Rc::new(reader);
    }

    /// Sets the canary whose channel is subscribed on Redis. Must be called before the core runs.
    pub fn set_canary(&mut self, canary: Canary) {
        self.canary = Some(canary);
    }

    /// The same for a cluster.
    pub fn set_shard_canaries(&mut self, canaries: ShardCanaries) {
        self.shard_canaries = Some(canaries);
    }

    /// The tails of this node. They can only be used on the engine thread.
    pub fn tails(&self) -> Tails {
        self.tails.clone()
    }

    pub fn intake(&self) -> Intake {
        self.intake.clone()
    }

    /// A flag for readiness checks: whether subscriptions are live.
    pub fn live(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.live)
    }

    /// A flag for readiness checks: whether messages of the channel layer, if there is one, reach this node.
    pub fn layer_up(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.layer_up)
    }

    /// Runs the memory engine. Worker threads join and leave channels by themselves: a publication that is distributed
    /// after a join is distributed to its thread. Subscriptions are live from this call on, even before the future is
    /// polled, so that no client can connect too early.
    pub fn run_memory(self, history: History) -> impl Future<Output = ()> {
        self.is_direct.store(true, Ordering::Relaxed);
        self.live.store(true, Ordering::Release);
        self.apply_changes(history)
    }

    async fn apply_changes(self, history: History) {
        let (mut parts, distribution) = self.split(history);
        let mut distribution = tokio::task::spawn_local(distribution);
        loop {
            let change = tokio::select! {
                change = parts.changes.recv() => change,
                ended = &mut distribution => match ended {
                    // Without it nothing is delivered: who runs the engine must know.
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    _ => return,
                },
            };
            let Some(change) = change else { break };
            let pinned = match &change {
                Change::Pin(channel) => Some(channel.clone()),
                _ => None,
            };
            parts.catch_ups.channels.lock().apply(change);
            if let Some(channel) = pinned {
                parts.catch_ups.tails.confirm(&channel);
            }
        }
        distribution.abort();
    }

    /// Splits the core into the task that delivers publications and the other parts.
    pub(super) fn split(self, history: History) -> (Parts, impl Future<Output = ()> + use<>) {
        let catch_ups = CatchUps {
            channels: self.channels,
            threads: self.threads,
            history,
            observer: Arc::clone(self.observer.get_or_init(|| Arc::new(|_, _, _| true))),
            tails: self.tails,
        };
        let undistributed = Arc::clone(&self.intake.undistributed);
        let distribution = distribute(self.queued, undistributed, catch_ups.clone());
        let parts = Parts {
            changes: self.changes,
            changes_sender: self.changes_sender,
            intake: self.intake,
            live: self.live,
            layer_up: self.layer_up,
            layer_reads: self.layer_reads,
            max_publication_bytes: self.max_publication_bytes,
            end_reader: self.end_reader,
            catch_ups,
        };
        (parts, distribution)
    }
}

/// The parts of a [`Core`] that the task that delivers publications does not own.
pub(super) struct Parts {
    pub changes: mpsc::UnboundedReceiver<Change>,
    /// Sends to `changes`, as long as a worker thread does.
    pub changes_sender: mpsc::WeakUnboundedSender<Change>,
    pub intake: Intake,
    pub live: Arc<AtomicBool>,
    pub layer_up: Arc<AtomicBool>,
    pub layer_reads: Arc<LayerReads>,
    pub max_publication_bytes: usize,
    pub end_reader: EndReader,
    pub catch_ups: CatchUps,
}

/// Delivers publications from the intake, in order and in batches, to the threads that have listeners.
async fn distribute(
    mut queued: mpsc::Receiver<QueuedPublication>,
    undistributed: Arc<AtomicUsize>,
    catch_ups: CatchUps,
) {
    let CatchUps { channels, threads, .. } = &catch_ups;
    let mut ready = Vec::with_capacity(BATCH_LENGTH);
    let mut batches: Vec<Vec<Publication>> = threads.iter().map(|_| Vec::new()).collect();
    while queued.recv_many(&mut ready, BATCH_LENGTH).await > 0 {
        let taken = ready.len();
        telemetry::delivery::publications_received(taken);
        let mut bytes = 0;
        for QueuedPublication { publication, _bytes } in ready.drain(..) {
            bytes += publication.delivery.frame.len();
            if !sequence(&catch_ups, &publication) {
                continue;
            }
            let is_notice = publication.delivery.frame.is_empty();
            if is_notice {
                catch_ups.tails.report_gap(&publication.channel);
            }
            if is_notice || catch_ups.observe(&publication) {
                hand_out(publication, &channels.lock(), &mut batches);
            }
            if bytes >= BATCH_BYTES {
                send_batches(threads, &mut batches).await;
                bytes = 0;
            }
        }
        send_batches(threads, &mut batches).await;
        // A thread that finds nothing undistributed finds in its queue what was.
        undistributed.fetch_sub(taken, Ordering::Release);
        let waiting = threads.iter().map(|thread| THREAD_QUEUE - thread.capacity()).max();
        telemetry::delivery::queues_measured(queued.len(), waiting.unwrap_or(0));
    }
}

/// Puts a publication into the batch of each thread that listens to its channel.
fn hand_out(mut publication: Publication, channels: &Channels, batches: &mut [Vec<Publication>]) {
    let listeners = channels.listeners(&publication.channel);
    let Some((last, others)) = listeners.split_last() else { return };
    if !others.is_empty() {
        publication.delivery.share_compressed();
    }
    for listener in others {
        batches[listener.thread].push(publication.clone());
    }
    // With one thread, as mostly, nothing is shared.
    batches[last.thread].push(publication);
}

/// Returns whether to deliver `publication` now. If it does not follow the previous one, a catch-up is started,
/// which reads it from the history together with the missing ones.
fn sequence(catch_ups: &CatchUps, publication: &Publication) -> bool {
    let Some(position) = publication.delivery.position else { return true };
    let channel = &publication.channel;
    let arrival = catch_ups.channels.lock().record_arrival(channel, position);
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

/// Puts a payload of a Redis channel into the intake, or ignores it if the channel's name is not valid.
pub(super) fn accept(intake: &Intake, channel: &[u8], payload: &[u8]) -> Result<(), IntakeFull> {
    let Some(channel) =
        std::str::from_utf8(channel).ok().and_then(|name| ChannelName::new(name).ok())
    else {
        return Ok(());
    };
    let delivery = match Position::split(payload) {
        // The history continues under a new epoch. Sockets of the old one are closed; nothing is written.
        Some((position, [])) => Delivery::new(Bytes::new(), Some(position)),
        Some((position, json)) => history::encode_received(&channel, json, Some(position)),
        None => history::encode_received(&channel, payload, None),
    };
    intake.try_put(Publication { channel, delivery, received: Instant::now() })
}
