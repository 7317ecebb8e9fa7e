//! What a relayed message holds in the tracker: a pending reply, then a tracked one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::channel::{Ending, ReplyState};
use super::{MAX_TRACKED, Tracker};
use crate::protocol::{ChannelName, EventNames};
use crate::telemetry::replies::ReplyTiming;

/// A message on its way to the upstream, until this is dropped.
pub struct PendingReply {
    tracker: Tracker,
    channel: ChannelName,
    /// When the message was registered. A task that was cancelled before has started again.
    began: Duration,
    /// [`Channel::heard`](super::channel::Channel::heard) when the message was sent.
    heard_before: u64,
}

/// What became of a reply that was to be tracked.
pub enum TrackOutcome {
    Tracked(TrackedReply),
    /// The reply has ended already: its worker was faster than its upstream's answer.
    Ended,
    /// This node tracks as many replies as it can.
    Full,
}

impl PendingReply {
    pub(super) fn new(
        tracker: Tracker,
        channel: ChannelName,
        began: Duration,
        heard_before: u64,
    ) -> Self {
        Self { tracker, channel, began, heard_before }
    }

    /// The reply began on another node: a task that was cancelled meanwhile has ended.
    pub fn adopted(mut self) -> Self {
        self.began = Duration::ZERO;
        self
    }

    /// The upstream has taken the message as `task_id`, and a worker publishes the reply. Its chunks are
    /// recorded in `timing`.
    pub fn track(self, task_id: &str, mut timing: ReplyTiming) -> TrackOutcome {
        let inner = &*self.tracker.0;
        let restarts = inner.cancelled.restart(&self.channel, task_id, self.began);
        let mut state = inner.lock();
        let key = inner.key(&self.channel, task_id);
        if restarts {
            state.task_ends.forget(key);
        }
        let early_chunk =
            state.channels.get_mut(&self.channel).and_then(|channel| channel.take_early_chunk(key));
        if let Some(received_at) = early_chunk {
            timing.record_chunk(received_at);
        }
        if state.task_ends.contains(key, Instant::now()) {
            return TrackOutcome::Ended;
        }
        let is_full = state.tracked >= MAX_TRACKED;
        let Some(channel) = state.channels.get_mut(&self.channel) else {
            return TrackOutcome::Full;
        };
        if channel.early_ends > 0 {
            channel.early_ends -= 1;
            return TrackOutcome::Ended;
        }
        if is_full {
            return TrackOutcome::Full;
        }
        let reply = ReplyState::new(task_id, timing);
        channel.add(Arc::clone(&reply));
        state.tracked += 1;
        drop(state);
        let (tracker, channel) = (self.tracker.clone(), self.channel.clone());
        let heard_before = self.heard_before;
        TrackOutcome::Tracked(TrackedReply { tracker, channel, reply, heard_before })
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        let inner = &*self.tracker.0;
        let mut state = inner.lock();
        if let Some(channel) = state.channels.get_mut(&self.channel) {
            channel.remove_pending();
        }
        state.remove_idle(&self.channel);
        inner.count_active(&state);
    }
}

/// Watches for the ends of replies on one channel, until this is dropped.
pub struct EndWatch {
    tracker: Tracker,
    channel: ChannelName,
    ends: Arc<Notify>,
}

impl EndWatch {
    pub(super) fn new(tracker: Tracker, channel: ChannelName, ends: Arc<Notify>) -> Self {
        Self { tracker, channel, ends }
    }

    /// Completes at the next end of a reply that this node sees. An end between two calls is not noticed.
    pub async fn next_end(&self) {
        self.ends.notified().await;
    }
}

impl Drop for EndWatch {
    fn drop(&mut self) {
        let inner = &*self.tracker.0;
        let mut state = inner.lock();
        if let Some(channel) = state.channels.get_mut(&self.channel) {
            channel.watches -= 1;
        }
        state.remove_idle(&self.channel);
        inner.count_active(&state);
    }
}

/// When the last event of a tracked reply came. Does not keep it tracked.
pub struct TrackedActivity {
    reply: Arc<ReplyState>,
    began: Instant,
}

impl TrackedActivity {
    /// `None` if no event came since this was made.
    pub fn last_event_at(&self) -> Option<Instant> {
        Some(self.reply.activity().last_event_at).filter(|at| *at > self.began)
    }
}

/// A reply that is tracked until this is dropped.
pub struct TrackedReply {
    tracker: Tracker,
    channel: ChannelName,
    reply: Arc<ReplyState>,
    heard_before: u64,
}

impl TrackedReply {
    /// Completes when the terminal event was published. One that may be that of another reply counts after
    /// `confirmation`, unless that reply has taken it by then.
    pub async fn ended(&self, confirmation: Duration) {
        let mut endings = self.reply.subscribe();
        loop {
            let ending = *endings.borrow_and_update();
            match ending {
                Ending::Ended => return,
                Ending::Unconfirmed => {
                    let changed = tokio::time::timeout(confirmation, endings.changed()).await;
                    if changed.is_err() && self.confirm_end() {
                        return;
                    }
                }
                Ending::Running => {
                    // The sender lives as long as this reply.
                    let _ = endings.changed().await;
                }
            }
        }
    }

    /// Returns whether the reply has ended.
    fn confirm_end(&self) -> bool {
        let _lock = self.tracker.0.lock();
        let has_ended = self.reply.has_ended();
        if has_ended {
            self.reply.end();
        }
        has_ended
    }

    /// Notes that the reply's task is over. Its terminal event may still come, or may have been taken for that of
    /// another reply, which then continues.
    pub fn record_task_end(&self) {
        let state = self.tracker.0.lock();
        if let Some(channel) = state.channels.get(&self.channel) {
            channel.record_task_end(&self.reply);
        }
    }

    /// Whether no other reply is running on the channel, as far as this node knows.
    pub fn is_only_one(&self) -> bool {
        let state = self.tracker.0.lock();
        state.channels.get(&self.channel).is_none_or(|channel| channel.count_running() <= 1)
    }

    /// Whether no event at all came on the channel since the message was sent.
    pub fn has_heard_nothing(&self) -> bool {
        let state = self.tracker.0.lock();
        state.channels.get(&self.channel).is_none_or(|channel| channel.heard == self.heard_before)
    }

    /// Whether the worker has published a `complete` that does not end a reply on this route. One without a task id
    /// counts for one reply only.
    pub fn take_complete(&self) -> bool {
        let inner = &*self.tracker.0;
        let key = inner.key(&self.channel, self.reply.task_id());
        let mut state = inner.lock();
        if state.task_completes.contains(key, Instant::now()) {
            return true;
        }
        let Some(channel) = state.channels.get_mut(&self.channel) else { return false };
        let left = channel.unnamed_completes.checked_sub(1);
        channel.unnamed_completes = left.unwrap_or(0);
        left.is_some()
    }

    /// Tells when events come from now on.
    pub fn activity(&self) -> TrackedActivity {
        TrackedActivity { reply: Arc::clone(&self.reply), began: Instant::now() }
    }

    /// When the last event of the reply was published, or it began.
    pub fn last_event_at(&self) -> Instant {
        self.reply.activity().last_event_at
    }

    /// The names of the events without a task id that belong to this reply, if it is the only one on its channel that
    /// this node knows. `ends` are the names of terminal events.
    pub fn unnamed_events(&self, ends: &[String]) -> Option<EventNames> {
        let state = self.tracker.0.lock();
        let is_alone = state
            .channels
            .get(&self.channel)
            .is_none_or(|channel| channel.pending == 0 && channel.has_no_other(&self.reply));
        let activity = self.reply.activity();
        let parts = activity.names.iter().map(|name| &**name);
        is_alone.then(|| EventNames::new(parts, ends.iter().map(String::as_str)))
    }

    /// Marks the reply as ended by the gateway. Returns false if its terminal event was published before.
    pub fn end(&self) -> bool {
        // Either this call or a terminal event that comes at the same time ends the reply.
        let _lock = self.tracker.0.lock();
        self.reply.end()
    }

    #[cfg(test)]
    pub(super) fn has_ended(&self) -> bool {
        self.reply.has_ended()
    }
}

impl Drop for TrackedReply {
    fn drop(&mut self) {
        let inner = &*self.tracker.0;
        let mut state = inner.lock();
        if let Some(channel) = state.channels.get_mut(&self.channel) {
            channel.remove(&self.reply);
            state.tracked -= 1;
        }
        state.remove_idle(&self.channel);
        inner.count_active(&state);
    }
}
