//! The cancelled tasks of the channels of this node.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::expiring_map::{Expiring, ExpiringMap};
use crate::protocol::{
    CANCELLED_MEMORY, CancelledTasks, ChannelName, EventNames, Position, TaskNotice,
};

/// The most channels whose cancelled tasks are remembered, with at most 64 tasks each. Beyond it, those of further
/// channels are not remembered here; where channels keep a history, the engine refuses their events all the same.
const MAX_CHANNELS: usize = 16 * 1024;

/// Bounded by count and time.
pub(super) struct CancelledChannels {
    channels: ExpiringMap<Box<str>, CancelledTasks>,
    /// The milliseconds of the map's clock until which anything is remembered, so that most publications need no look.
    until_ms: AtomicU64,
}

impl Expiring for CancelledTasks {
    fn is_expired(&self, now: Duration) -> bool {
        CancelledTasks::is_expired(self, now)
    }
}

impl CancelledChannels {
    pub fn new() -> Self {
        Self { channels: ExpiringMap::new(MAX_CHANNELS), until_ms: AtomicU64::new(0) }
    }

    pub fn now(&self) -> Duration {
        self.channels.now()
    }

    /// The time, if anything is remembered at it.
    fn now_if_any(&self) -> Option<Duration> {
        let until_ms = self.until_ms.load(Ordering::Relaxed);
        if until_ms == 0 {
            return None;
        }
        Some(self.now()).filter(|now| *now < Duration::from_millis(until_ms))
    }

    /// Whether a publication belongs to a cancelled task of its channel.
    pub fn covers(&self, channel: &ChannelName, json: &[u8], position: Option<Position>) -> bool {
        let Some(now) = self.now_if_any() else { return false };
        let mut shard = self.channels.lock(channel.as_str());
        shard.get_mut(channel.as_str()).is_some_and(|tasks| tasks.covers(json, position, now))
    }

    pub fn cancel(&self, channel: &ChannelName, id: &str, end: Option<Position>) {
        self.remember(channel, |tasks, now| tasks.cancel(id, end, now));
    }

    /// A task was cancelled before `position`. Does nothing if that is known.
    pub fn learn(&self, channel: &ChannelName, id: &str, position: Position) {
        self.remember(channel, |tasks, now| tasks.learn(id, position, now));
    }

    /// Applies what a script says about the channel.
    pub fn apply(&self, channel: &ChannelName, notice: TaskNotice) {
        match notice {
            TaskNotice::Cancelled { names } => self.cancel_unnamed(channel, names),
            TaskNotice::Started { task_id } => {
                self.start(channel);
                if let Some(id) = task_id {
                    self.restart(channel, &id, Duration::MAX);
                }
            }
        }
    }

    fn cancel_unnamed(&self, channel: &ChannelName, names: EventNames) {
        self.remember(channel, |tasks, now| tasks.cancel_unnamed(names, now));
    }

    fn remember(&self, channel: &ChannelName, record: impl FnOnce(&mut CancelledTasks, Duration)) {
        let now = self.now();
        let until = (now + CANCELLED_MEMORY).as_millis();
        let mut shard = self.channels.lock(channel.as_str());
        // Without room the events of the task are delivered.
        if let Ok(tasks) = shard.get_or_default(channel.as_str(), now) {
            record(tasks, now);
            self.until_ms.fetch_max(u64::try_from(until).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// A task starts on the channel.
    pub fn start(&self, channel: &ChannelName) {
        if self.now_if_any().is_none() {
            return;
        }
        if let Some(tasks) = self.channels.lock(channel.as_str()).get_mut(channel.as_str()) {
            tasks.start();
        }
    }

    /// Forgets a task that starts again, if it was cancelled before `before`. Returns whether it was.
    pub fn restart(&self, channel: &ChannelName, id: &str, before: Duration) -> bool {
        if self.until_ms.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let mut shard = self.channels.lock(channel.as_str());
        shard.get_mut(channel.as_str()).is_some_and(|tasks| tasks.restart(id, before))
    }
}
