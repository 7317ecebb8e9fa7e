//! The replies that workers publish by themselves: when each had its last event, and when it ended.
//!
//! Every publication of this node is passed to [`Tracker::observe`] before it is delivered. An event with a
//! task id belongs to that task. An event without one may belong to any reply in progress on its channel; if
//! it is terminal, it ends the oldest, since workers that name no tasks work in turn. A terminal event of a
//! task that has ended already is a duplicate, which by default is not delivered. No event of a cancelled task is
//! delivered; one without a task id counts for it if it was the only one on its channel.
//!
//! Where replies run side by side and their upstream reports the ends of tasks, these reports correct the guess: the
//! event goes to the reply whose task is over.

mod cancelled;
mod channel;
mod registration;
#[cfg(test)]
mod tests;

pub use registration::{EndWatch, PendingReply, TrackOutcome, TrackedActivity, TrackedReply};

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Task;
use super::event::Event;
use super::recent_ends::RecentEnds;
use crate::config::{Config, DuplicateTerminal, SharedConfig};
use crate::protocol::{ChannelName, EventName, INTERNAL_PREFIX, Position, ReplyEnd, TaskNotice};
use cancelled::CancelledChannels;
use channel::Channel;

/// The most replies that are tracked at once on this node. Messages beyond are relayed all the same.
const MAX_TRACKED: usize = 16 * 1024;

/// How long the end of a task is remembered.
const TASK_MEMORY: Duration = Duration::from_secs(10 * 60);
/// How long the end of a reply without a task id is remembered, by its channel.
const CHANNEL_MEMORY: Duration = Duration::from_secs(60);

/// What is to be done with a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    Deliver,
    /// It is a second terminal event of a reply that has ended.
    Drop,
    /// It belongs to a task that was cancelled.
    DropCancelled,
    /// It is a message for the nodes.
    Internal,
}

/// What a publication means for the replies of its channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    pub disposition: Disposition,
    /// The reply that it ends.
    pub end: Option<ReplyEnd>,
}

impl Observed {
    const OTHER: Self = Self { disposition: Disposition::Deliver, end: None };
}

/// Shared by all threads of the node. Cheap to clone.
#[derive(Clone)]
pub struct Tracker(Arc<Inner>);

struct Inner {
    config: SharedConfig,
    /// No other node queues messages on the same channels.
    is_only_node: bool,
    hasher: RandomState,
    /// The number of channels in `state` whose every event must be read, not only those that begin or end a
    /// reply by their name.
    active_channels: AtomicUsize,
    cancelled: CancelledChannels,
    state: Mutex<State>,
}

struct State {
    channels: HashMap<ChannelName, Channel>,
    /// The number of replies that are tracked.
    tracked: usize,
    /// The ends of tasks.
    task_ends: RecentEnds,
    /// The tasks whose worker has published a `complete` that does not end a reply on its route.
    task_completes: RecentEnds,
    /// The ends of replies without a task id, by channel.
    channel_ends: RecentEnds,
}

impl Tracker {
    /// `is_only_node` means that no other node queues messages on the same channels.
    pub fn new(config: SharedConfig, is_only_node: bool) -> Self {
        let state = State {
            channels: HashMap::new(),
            tracked: 0,
            task_ends: RecentEnds::new(TASK_MEMORY),
            task_completes: RecentEnds::new(TASK_MEMORY),
            channel_ends: RecentEnds::new(CHANNEL_MEMORY),
        };
        Self(Arc::new(Inner {
            config,
            is_only_node,
            hasher: RandomState::new(),
            active_channels: AtomicUsize::new(0),
            cancelled: CancelledChannels::new(),
            state: Mutex::new(state),
        }))
    }

    /// Notes a publication that is about to be delivered on this node.
    pub fn observe(
        &self,
        channel: &ChannelName,
        json: &[u8],
        position: Option<Position>,
    ) -> Observed {
        let inner = &*self.0;
        let config = inner.config.load();
        let leading_name = Event::leading_name(json);
        if leading_name.is_some_and(|name| name.starts_with(INTERNAL_PREFIX))
            && let Some(notice) = TaskNotice::read(json)
        {
            inner.cancelled.apply(channel, notice);
            return Observed { disposition: Disposition::Internal, end: None };
        }
        if inner.cancelled.covers(channel, json, position) {
            return Observed { disposition: Disposition::DropCancelled, end: None };
        }
        if inner.active_channels.load(Ordering::Relaxed) == 0 {
            let concerns_a_reply = |name: &[u8]| concerns_a_reply(&config, name);
            let is_other = match leading_name {
                Some(name) => !concerns_a_reply(name),
                None => Event::is_certainly_not(json, concerns_a_reply),
            };
            if is_other {
                return Observed::OTHER;
            }
        }
        let Some(event) = Event::read(json) else {
            inner.record_other(channel);
            return Observed::OTHER;
        };
        let Some(rule) = config.generations_of(channel) else { return Observed::OTHER };
        let is_terminal = event.ends_reply(rule);
        let is_repeat = match event.task_id.as_deref() {
            Some(task_id) if is_terminal => inner.end_task(channel, task_id, position, &event),
            None if is_terminal => inner.end_unnamed(channel, position, &event),
            task_id => {
                inner.record_event(channel, task_id, &event);
                false
            }
        };
        if is_repeat && rule.duplicate_terminal == DuplicateTerminal::Drop {
            return Observed { disposition: Disposition::Drop, end: None };
        }
        let end = is_terminal.then(|| reply_end(event));
        Observed { disposition: Disposition::Deliver, end }
    }

    /// The reply that a publication ends; `None` if it is not a terminal event, nor a `complete` if these count too.
    pub fn reply_end(
        &self,
        channel: &ChannelName,
        json: &[u8],
        with_complete: bool,
    ) -> Option<ReplyEnd> {
        let config = self.0.config.load();
        let event = Event::read(json)?;
        let is_end = event.ends_reply(config.generations_of(channel)?)
            || with_complete && event.name == EventName::Complete.label();
        is_end.then(|| reply_end(event))
    }

    /// Whether this node has seen the task's terminal event lately.
    pub fn has_ended(&self, task: &Task) -> bool {
        let inner = &*self.0;
        let key = inner.key(&task.channel, &task.id);
        inner.lock().task_ends.contains(key, Instant::now())
    }

    /// Notes that a task was cancelled before `position`, although this node may not have seen it.
    pub fn record_cancelled(&self, channel: &ChannelName, task_id: &str, position: Position) {
        self.0.cancelled.learn(channel, task_id, position);
    }

    /// Watches for the ends of replies on a channel, until the watch is dropped.
    pub fn watch_ends(&self, channel: &ChannelName) -> EndWatch {
        let inner = &*self.0;
        let mut state = inner.lock();
        let entry = state.channels.entry(channel.clone()).or_default();
        entry.watches += 1;
        let ends = Arc::clone(&entry.ends);
        inner.count_active(&state);
        EndWatch::new(self.clone(), channel.clone(), ends)
    }

    /// Registers a message that is about to be relayed: from now on a reply that ends on its channel may be
    /// its own.
    pub fn register_pending(&self, channel: &ChannelName) -> PendingReply {
        let inner = &*self.0;
        inner.cancelled.start(channel);
        let began = inner.cancelled.now();
        let mut state = inner.lock();
        state.channel_ends.forget(inner.channel_key(channel));
        let entry = state.channels.entry(channel.clone()).or_default();
        entry.pending += 1;
        let heard = entry.heard;
        inner.count_active(&state);
        PendingReply::new(self.clone(), channel.clone(), began, heard)
    }
}

/// The reply that `event`, which is terminal, ends.
fn reply_end(event: Event<'_>) -> ReplyEnd {
    event.task_id.map_or(ReplyEnd::Unnamed, |task_id| ReplyEnd::Named(task_id.into_owned()))
}

/// Whether events of this name can begin or end a reply, on some channel.
fn concerns_a_reply(config: &Config, name: &[u8]) -> bool {
    let is_named = |other: &str| other.as_bytes() == name;
    [EventName::Cancelled, EventName::Error, EventName::ProcessingStarted]
        .into_iter()
        .any(|event| is_named(event.label()))
        || config
            .routes
            .iter()
            .any(|route| route.generations.terminal_events.iter().any(|event| is_named(event)))
}

impl Inner {
    /// Notes a terminal event with a task id. Returns whether the task had ended before.
    fn end_task(
        &self,
        channel: &ChannelName,
        task_id: &str,
        position: Option<Position>,
        event: &Event<'_>,
    ) -> bool {
        let (now, key) = (Instant::now(), self.key(channel, task_id));
        let mut state = self.lock();
        if state.task_ends.is_repeat(key, position, now) {
            return true;
        }
        state.task_ends.record(key, position, now);
        if event.is_cancellation() {
            self.cancelled.cancel(channel, task_id, position);
        }
        if let Some(entry) = state.channels.get_mut(channel) {
            entry.heard += 1;
            if let Some(reply) = entry.find(task_id) {
                reply.record_end(now, event.is_success(), true);
            }
            entry.ends.notify_waiters();
        }
        false
    }

    /// Notes a terminal event without a task id. Returns whether it repeats the end before.
    fn end_unnamed(
        &self,
        channel: &ChannelName,
        position: Option<Position>,
        event: &Event<'_>,
    ) -> bool {
        let (now, key) = (Instant::now(), self.channel_key(channel));
        let mut state = self.lock();
        let is_same_publication = position.is_some()
            && state.channel_ends.contains(key, now)
            && !state.channel_ends.is_repeat(key, position, now);
        if is_same_publication {
            return false;
        }
        let is_repeat = self.is_only_node && state.channel_ends.is_repeat(key, position, now);
        let Some(entry) = state.channels.get_mut(channel) else { return is_repeat };
        entry.heard += 1;
        entry.ends.notify_waiters();
        if let Some((reply, is_certain)) = entry.next_to_end() {
            reply.record_end(now, event.is_success(), is_certain);
            state.channel_ends.record(key, position, now);
            self.count_active(&state);
            false
        } else if entry.pending > entry.early_ends {
            entry.early_ends += 1;
            false
        } else {
            is_repeat
        }
    }

    /// Notes an event that ends nothing.
    fn record_event(&self, channel: &ChannelName, task_id: Option<&str>, event: &Event<'_>) {
        let now = Instant::now();
        let mut state = self.lock();
        let key = task_id.map(|task_id| self.key(channel, task_id));
        if let Some(key) = key.filter(|_| event.is_begin()) {
            // A task that is tried again may end again.
            state.task_ends.forget(key);
            state.task_completes.forget(key);
        }
        state.channel_ends.forget(self.channel_key(channel));
        state.channel_ends.sweep(now);
        if let Some(key) = key.filter(|_| event.is_complete()) {
            state.task_completes.record(key, None, now);
        }
        if let Some(entry) = state.channels.get_mut(channel) {
            if event.is_begin() || event.is_content() {
                entry.heard += 1;
            }
            if key.is_none() && event.is_complete() {
                entry.unnamed_completes = entry.unnamed_completes.saturating_add(1);
            }
            entry.record_event(task_id, &event.name, now);
            if event.is_content() {
                entry.record_chunk(task_id, key, now);
            }
        }
        self.count_active(&state);
    }

    /// Notes a publication that is not an event.
    fn record_other(&self, channel: &ChannelName) {
        if let Some(entry) = self.lock().channels.get_mut(channel) {
            entry.heard += 1;
        }
    }

    fn count_active(&self, state: &State) {
        let ended = usize::from(self.is_only_node && !state.channel_ends.is_empty());
        self.active_channels.store(state.channels.len() + ended, Ordering::Relaxed);
    }

    /// Stands for a task in [`RecentEnds`].
    fn key(&self, channel: &ChannelName, task_id: &str) -> u64 {
        self.hasher.hash_one((channel.as_str(), task_id))
    }

    /// Stands for a channel in [`RecentEnds`].
    fn channel_key(&self, channel: &ChannelName) -> u64 {
        self.key(channel, "")
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets a channel on which nothing is pending or in progress.
    fn remove_idle(&mut self, channel: &ChannelName) {
        if self.channels.get(channel).is_some_and(Channel::is_idle) {
            self.channels.remove(channel);
        }
    }
}
