//! The generations that workers publish by themselves: when each was heard of last, and when it ended.
//!
//! Every publication of this node passes by here before it is delivered ([`Tracker::hear`]). An event
//! with a task id is its task's; one without is of whatever runs on its channel, and where it is
//! terminal, of the oldest, since workers that name no tasks work in turn. A terminal event of a task
//! that has ended is no news, and by default not delivered.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Task;
use super::ended::Ended;
use super::event::Event;
use crate::config::{Config, DuplicateTerminal, SharedConfig};
use crate::protocol::{ChannelName, EventName, Position};
use crate::telemetry::replies::ReplyTiming;

/// Generations that are tracked at once on this node; those beyond are relayed all the same.
const MAX_TRACKED: usize = 16 * 1024;

/// For how long a task is remembered to have ended.
const TASK_MEMORY: Duration = Duration::from_secs(10 * 60);
/// The same of a channel whose worker names no tasks.
const CHANNEL_MEMORY: Duration = Duration::from_secs(60);

/// Whether a publication is to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    Deliver,
    /// A second end of what has ended.
    Drop,
}

/// Shared by all threads of the node. Cheap to clone.
#[derive(Clone)]
pub struct Tracker(Arc<Inner>);

struct Inner {
    config: SharedConfig,
    /// No other node queues messages on the same channels.
    alone: bool,
    hasher: RandomState,
    /// Channels with something in `state` that any event of theirs may concern.
    attentive: AtomicUsize,
    state: Mutex<State>,
}

struct State {
    channels: HashMap<ChannelName, Channel>,
    tracked: usize,
    tasks: Ended,
    /// Channels whose last end named no task.
    nameless: Ended,
}

/// A channel with something to track.
#[derive(Default)]
struct Channel {
    /// Messages on their way to the upstream.
    expecting: usize,
    /// Ends without a task that came while a message was on its way, and nothing else ran.
    early_ends: usize,
    /// First chunks that came while a message was on its way: of which task, and when. Bounded.
    early_chunks: Vec<(Option<u64>, Instant)>,
    /// Oldest first.
    running: Vec<Arc<Watched>>,
}

/// Messages of one channel whose reply begins before its upstream's answer is here.
const MAX_EARLY_CHUNKS: usize = 16;

impl Channel {
    /// Of a worker that names no tasks it is the oldest generation's, since it works in turn. `hash` is
    /// that of the task.
    fn chunk(&mut self, task_id: Option<&str>, hash: Option<u64>, now: Instant) {
        let whose = self.running.iter().find(|watched| match task_id {
            Some(task_id) => *watched.task_id == *task_id,
            None => !watched.ended.is_cancelled(),
        });
        if let Some(watched) = whose {
            watched.hearing().timing.record_chunk(now);
        } else if self.expecting > 0
            && self.early_chunks.len() < MAX_EARLY_CHUNKS
            && !self.early_chunks.iter().any(|(task, _)| *task == hash)
        {
            self.early_chunks.push((hash, now));
        }
    }

    /// When the first chunk of a task came that only now begins to be tracked.
    fn take_early_chunk(&mut self, hash: u64) -> Option<Instant> {
        let of_task = |named: Option<u64>| move |(task, _): &(Option<u64>, Instant)| *task == named;
        let place = self.early_chunks.iter().position(of_task(Some(hash)));
        let place = place.or_else(|| self.early_chunks.iter().position(of_task(None)))?;
        Some(self.early_chunks.remove(place).1)
    }
}

/// A tracked generation, as the tracker sees it.
struct Watched {
    task_id: Box<str>,
    hearing: Mutex<Hearing>,
    ended: CancellationToken,
}

struct Hearing {
    /// When it was heard of last.
    last: Instant,
    timing: ReplyTiming,
}

impl Tracker {
    /// `alone` = no other node queues messages on the same channels.
    pub fn new(config: SharedConfig, alone: bool) -> Self {
        let state = State {
            channels: HashMap::new(),
            tracked: 0,
            tasks: Ended::new(TASK_MEMORY),
            nameless: Ended::new(CHANNEL_MEMORY),
        };
        let (hasher, attentive) = (RandomState::new(), AtomicUsize::new(0));
        Self(Arc::new(Inner { config, alone, hasher, attentive, state: Mutex::new(state) }))
    }

    /// A publication is about to be delivered on this node.
    pub fn hear(&self, channel: &ChannelName, json: &[u8], position: Option<Position>) -> Heard {
        let inner = &*self.0;
        let config = inner.config.load();
        if let Some(name) = Event::quick_name(json)
            && inner.attentive.load(Ordering::Relaxed) == 0
            && !concerns_a_reply(&config, name)
        {
            return Heard::Deliver;
        }
        let Some(event) = Event::read(json) else { return Heard::Deliver };
        let Some(rule) = config.generations_of(channel) else { return Heard::Deliver };
        let ends = event.ends_reply(rule);
        let repeated = match event.task_id.as_deref() {
            Some(task_id) if ends => inner.task_ends(channel, task_id, position, event.ends_well()),
            None if ends => inner.nameless_end(channel, position, event.ends_well()),
            task_id => {
                inner.observe(channel, task_id, &event);
                false
            }
        };
        if repeated && rule.duplicate_terminal == DuplicateTerminal::Drop {
            Heard::Drop
        } else {
            Heard::Deliver
        }
    }

    /// Whether this node has heard its terminal event lately.
    pub fn has_ended(&self, task: &Task) -> bool {
        let inner = &*self.0;
        let hash = inner.hash(&task.channel, &task.id);
        inner.lock().tasks.contains(hash, Instant::now())
    }

    /// A message is about to be relayed: what ends on its channel from now on may be its reply.
    pub fn register_pending(&self, channel: &ChannelName) -> Expected {
        let inner = &*self.0;
        let mut state = inner.lock();
        let of_channel = inner.hash(channel, "");
        state.nameless.forget(of_channel);
        state.channels.entry(channel.clone()).or_default().expecting += 1;
        inner.attend(&state);
        Expected { tracker: self.clone(), channel: channel.clone() }
    }
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
    fn task_ends(
        &self,
        channel: &ChannelName,
        task_id: &str,
        position: Option<Position>,
        well: bool,
    ) -> bool {
        let (now, task) = (Instant::now(), self.hash(channel, task_id));
        let mut state = self.lock();
        if state.tasks.ended_before(task, position, now) {
            return true;
        }
        state.tasks.insert(task, position, now);
        if let Some(channel) = state.channels.get(channel)
            && let Some(watched) = channel.running.iter().find(|one| *one.task_id == *task_id)
        {
            watched.ends(now, well);
        }
        false
    }

    fn nameless_end(&self, channel: &ChannelName, position: Option<Position>, well: bool) -> bool {
        let (now, of_channel) = (Instant::now(), self.hash(channel, ""));
        let mut state = self.lock();
        let again = position.is_some()
            && state.nameless.contains(of_channel, now)
            && !state.nameless.ended_before(of_channel, position, now);
        if again {
            return false;
        }
        let Some(entry) = state.channels.get_mut(channel) else {
            return self.alone && state.nameless.ended_before(of_channel, position, now);
        };
        let oldest = entry.running.iter().find(|watched| !watched.ended.is_cancelled());
        match oldest {
            Some(watched) => {
                watched.ends(now, well);
                state.nameless.insert(of_channel, position, now);
                self.attend(&state);
                false
            }
            None if entry.expecting > entry.early_ends => {
                entry.early_ends += 1;
                false
            }
            None => self.alone && state.nameless.ended_before(of_channel, position, now),
        }
    }

    fn observe(&self, channel: &ChannelName, task_id: Option<&str>, event: &Event<'_>) {
        let now = Instant::now();
        let mut state = self.lock();
        if let Some(task_id) = task_id.filter(|_| event.begins()) {
            // A task that is tried again may end again.
            let task = self.hash(channel, task_id);
            state.tasks.forget(task);
        }
        let of_channel = self.hash(channel, "");
        state.nameless.forget(of_channel);
        state.nameless.sweep(now);
        if let Some(entry) = state.channels.get_mut(channel) {
            let of_task = |watched: &&Arc<Watched>| {
                task_id.is_none_or(|task_id| *watched.task_id == *task_id)
            };
            entry.running.iter().filter(of_task).for_each(|watched| watched.heard_at(now));
            if event.is_content() {
                entry.chunk(task_id, task_id.map(|task_id| self.hash(channel, task_id)), now);
            }
        }
        self.attend(&state);
    }

    fn attend(&self, state: &State) {
        let nameless = usize::from(self.alone && !state.nameless.is_empty());
        self.attentive.store(state.channels.len() + nameless, Ordering::Relaxed);
    }

    fn hash(&self, channel: &ChannelName, task_id: &str) -> u64 {
        self.hasher.hash_one((channel.as_str(), task_id))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn hearing(&self) -> MutexGuard<'_, Hearing> {
        self.hearing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard_at(&self, now: Instant) {
        self.hearing().last = now;
    }

    /// Its terminal event has come, if it is the first.
    fn ends(&self, now: Instant, well: bool) {
        if well && !self.ended.is_cancelled() {
            self.hearing().timing.record_completion(now);
        }
        self.ended.cancel();
    }
}

/// A message on its way to the upstream.
pub struct Expected {
    tracker: Tracker,
    channel: ChannelName,
}

/// What became of a generation that was to be tracked.
pub enum Begun {
    Running(Tracked),
    /// It has ended already: its worker was faster than its upstream's answer.
    Over,
    /// This node tracks as many as it can.
    Full,
}

impl Expected {
    /// The upstream has taken the message as `task_id`, whose worker publishes by itself. `timing` is told
    /// of each chunk.
    pub fn begin(self, task_id: &str, mut timing: ReplyTiming) -> Begun {
        let inner = &*self.tracker.0;
        let mut state = inner.lock();
        let task = inner.hash(&self.channel, task_id);
        let early = state.channels.get_mut(&self.channel);
        if let Some(came) = early.and_then(|channel| channel.take_early_chunk(task)) {
            timing.record_chunk(came);
        }
        if state.tasks.contains(task, Instant::now()) {
            return Begun::Over;
        }
        let full = state.tracked >= MAX_TRACKED;
        let Some(channel) = state.channels.get_mut(&self.channel) else { return Begun::Full };
        if channel.early_ends > 0 {
            channel.early_ends -= 1;
            return Begun::Over;
        }
        if full {
            return Begun::Full;
        }
        let watched = Arc::new(Watched {
            task_id: task_id.into(),
            hearing: Mutex::new(Hearing { last: Instant::now(), timing }),
            ended: CancellationToken::new(),
        });
        channel.running.push(Arc::clone(&watched));
        state.tracked += 1;
        drop(state);
        let (tracker, channel) = (self.tracker.clone(), self.channel.clone());
        Begun::Running(Tracked { tracker, channel, watched })
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let inner = &*self.tracker.0;
        let mut state = inner.lock();
        if let Some(channel) = state.channels.get_mut(&self.channel) {
            channel.expecting -= 1;
            // Whose end it was is not known any more.
            channel.early_ends = channel.early_ends.min(channel.expecting);
            if channel.expecting == 0 {
                channel.early_chunks.clear();
            }
        }
        state.tidy(&self.channel);
        inner.attend(&state);
    }
}

impl State {
    fn tidy(&mut self, channel: &ChannelName) {
        let idle = |channel: &Channel| channel.expecting == 0 && channel.running.is_empty();
        if self.channels.get(channel).is_some_and(idle) {
            self.channels.remove(channel);
        }
    }
}

/// A generation that is tracked until this is dropped.
pub struct Tracked {
    tracker: Tracker,
    channel: ChannelName,
    watched: Arc<Watched>,
}

impl Tracked {
    /// Completes when its terminal event has been heard.
    pub async fn ended(&self) {
        self.watched.ended.cancelled().await;
    }

    /// When its last event was published, or it began.
    pub fn last_event_at(&self) -> Instant {
        self.watched.hearing().last
    }

    /// The gateway ends it itself. False = its terminal event has been heard already.
    pub fn end(&self) -> bool {
        let _in_one_step = self.tracker.0.lock();
        let ended = self.watched.ended.is_cancelled();
        self.watched.ended.cancel();
        !ended
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let inner = &*self.tracker.0;
        let mut state = inner.lock();
        if let Some(channel) = state.channels.get_mut(&self.channel) {
            channel.running.retain(|watched| !Arc::ptr_eq(watched, &self.watched));
            state.tracked -= 1;
        }
        state.tidy(&self.channel);
        inner.attend(&state);
    }
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
