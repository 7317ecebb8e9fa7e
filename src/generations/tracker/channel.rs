//! The replies of one channel.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use crate::telemetry::replies::ReplyTiming;

/// The most messages of one channel whose first chunk is remembered when it comes before the upstream's
/// answer.
const MAX_EARLY_CHUNKS: usize = 16;

/// The most names of events that are remembered for one reply, and their length in bytes.
const MAX_NAMES: usize = 16;
const MAX_NAME_BYTES: usize = 64;

/// A channel on which replies are pending or in progress.
#[derive(Default)]
pub(super) struct Channel {
    /// The number of messages on their way to the upstream.
    pub pending: usize,
    /// The number of terminal events without a task id that came while a message was on its way and no reply
    /// was in progress. At most `pending`.
    pub early_ends: usize,
    /// When first chunks came while a message was on its way, by the key of their task.
    early_chunks: Vec<(Option<u64>, Instant)>,
    /// How many events were heard while the channel had replies. Announcements of members do not count.
    pub heard: u64,
    /// The events `complete` without a task id that do not end a reply on this route, and that no reply has taken
    /// as its own.
    pub unnamed_completes: u32,
    /// The replies in progress, the oldest first.
    replies: Vec<Arc<ReplyState>>,
    /// The number of [`EndWatch`](super::EndWatch)es.
    pub watches: usize,
    /// Notified of each end of a reply.
    pub ends: Arc<Notify>,
}

impl Channel {
    pub fn is_idle(&self) -> bool {
        self.pending == 0 && self.replies.is_empty() && self.watches == 0
    }

    pub fn find(&self, task_id: &str) -> Option<&ReplyState> {
        self.replies.iter().find(|reply| *reply.task_id == *task_id).map(|reply| &**reply)
    }

    /// The oldest reply that has not ended.
    pub fn oldest(&self) -> Option<&ReplyState> {
        self.running().next()
    }

    fn running(&self) -> impl Iterator<Item = &ReplyState> {
        self.replies.iter().map(|reply| &**reply).filter(|reply| !reply.has_ended())
    }

    pub fn count_running(&self) -> usize {
        self.running().count()
    }

    /// The reply that a terminal event without a task id ends, and whether that is certain: one whose task is over,
    /// or else the oldest, which is certain if no other reply is running.
    pub fn next_to_end(&self) -> Option<(&ReplyState, bool)> {
        if let Some(over) = self.running().find(|reply| reply.is_task_over()) {
            return Some((over, true));
        }
        let mut running = self.running();
        let oldest = running.next()?;
        Some((oldest, running.next().is_none()))
    }

    /// Notes that the task of `reply` is over. If the terminal event of this task has been taken for that of a task
    /// that still runs, the event is given back to `reply`.
    pub fn record_task_end(&self, reply: &ReplyState) {
        reply.task_over.store(true, Ordering::Relaxed);
        let other = self.replies.iter().find(|other| other.ending() == Ending::Unconfirmed);
        match reply.ending() {
            Ending::Ended => {}
            Ending::Unconfirmed => reply.set_ending(Ending::Ended),
            Ending::Running => {
                if let Some(other) = other {
                    reply.set_ending(Ending::Ended);
                    other.set_ending(Ending::Running);
                }
            }
        }
    }

    pub fn add(&mut self, reply: Arc<ReplyState>) {
        self.replies.push(reply);
    }

    pub fn remove(&mut self, reply: &Arc<ReplyState>) {
        self.replies.retain(|other| !Arc::ptr_eq(other, reply));
    }

    /// A message is no longer on its way. Which message an early event belonged to is not known, so there are
    /// never more of them than messages.
    pub fn remove_pending(&mut self) {
        self.pending -= 1;
        self.early_ends = self.early_ends.min(self.pending);
        if self.pending == 0 {
            self.early_chunks.clear();
        }
    }

    /// Whether no reply except `reply` is in progress.
    pub fn has_no_other(&self, reply: &Arc<ReplyState>) -> bool {
        self.replies.iter().all(|other| Arc::ptr_eq(other, reply) || other.has_ended())
    }

    /// Notes an event of a task, or of any reply if it names no task. If there is only one, the event is one of its
    /// own.
    pub fn record_event(&self, task_id: Option<&str>, name: &str, now: Instant) {
        if task_id.is_none()
            && let [reply] = &self.replies[..]
        {
            reply.activity().record_name(name);
        }
        let is_meant = |reply: &&Arc<ReplyState>| task_id.is_none_or(|id| *reply.task_id == *id);
        self.replies.iter().filter(is_meant).for_each(|reply| reply.activity().last_event_at = now);
    }

    /// Notes a chunk of a task, or of the oldest reply if it names no task. `key` is that of the task.
    pub fn record_chunk(&mut self, task_id: Option<&str>, key: Option<u64>, now: Instant) {
        let reply = match task_id {
            Some(task_id) => self.find(task_id),
            None => self.oldest(),
        };
        if let Some(reply) = reply {
            reply.activity().timing.record_chunk(now);
        } else if self.pending > 0
            && self.early_chunks.len() < MAX_EARLY_CHUNKS
            && !self.early_chunks.iter().any(|(task, _)| *task == key)
        {
            self.early_chunks.push((key, now));
        }
    }

    /// Returns when the first chunk came of a task that only now begins to be tracked, if it has come.
    pub fn take_early_chunk(&mut self, key: u64) -> Option<Instant> {
        let index_of = |key| self.early_chunks.iter().position(|(task, _)| *task == key);
        let index = index_of(Some(key)).or_else(|| index_of(None))?;
        Some(self.early_chunks.remove(index).1)
    }
}

/// A reply in progress.
pub(super) struct ReplyState {
    task_id: Box<str>,
    activity: Mutex<Activity>,
    /// Its upstream has reported that its task is over.
    task_over: AtomicBool,
    ending: watch::Sender<Ending>,
}

/// Whether a reply has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Running,
    /// A terminal event without a task id came, which may be that of another reply of the channel.
    Unconfirmed,
    Ended,
}

pub(super) struct Activity {
    pub last_event_at: Instant,
    /// The names of the reply's events without a task id, at most [`MAX_NAMES`].
    pub names: Vec<Box<str>>,
    timing: ReplyTiming,
}

impl Activity {
    fn record_name(&mut self, name: &str) {
        let is_new = !self.names.iter().any(|known| **known == *name);
        if is_new && self.names.len() < MAX_NAMES && name.len() <= MAX_NAME_BYTES {
            self.names.push(name.into());
        }
    }
}

impl ReplyState {
    pub fn new(task_id: &str, timing: ReplyTiming) -> Arc<Self> {
        Arc::new(Self {
            task_id: task_id.into(),
            activity: Mutex::new(Activity {
                last_event_at: Instant::now(),
                names: Vec::new(),
                timing,
            }),
            task_over: AtomicBool::new(false),
            ending: watch::Sender::new(Ending::Running),
        })
    }

    pub fn task_id(&self) -> &str {
        &self.task_id
    }

    pub fn activity(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn has_ended(&self) -> bool {
        self.ending() != Ending::Running
    }

    pub fn ending(&self) -> Ending {
        *self.ending.borrow()
    }

    pub fn subscribe(&self) -> watch::Receiver<Ending> {
        self.ending.subscribe()
    }

    fn set_ending(&self, ending: Ending) {
        self.ending.send_replace(ending);
    }

    fn is_task_over(&self) -> bool {
        self.task_over.load(Ordering::Relaxed)
    }

    /// Marks the reply as ended. Returns whether it was not ended before.
    pub fn end(&self) -> bool {
        let had_ended = self.has_ended();
        self.set_ending(Ending::Ended);
        !had_ended
    }

    /// Notes a terminal event.
    pub fn record_end(&self, now: Instant, is_success: bool, is_certain: bool) {
        if is_success && !self.has_ended() {
            self.activity().timing.record_completion(now);
        }
        // Whoever waits for the end finds the completion recorded.
        self.set_ending(if is_certain { Ending::Ended } else { Ending::Unconfirmed });
    }
}
