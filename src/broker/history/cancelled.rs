//! The cancelled tasks of the channels of this process, for histories in memory.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::protocol::{CancelledTasks, ChannelName, EventNames};

/// The most channels whose cancelled tasks are remembered. Beyond this those of further channels are not.
const MAX_CHANNELS: usize = 16 * 1024;

/// Bounded by count and time.
pub(super) struct CancelledChannels {
    /// What the times of the tasks count from.
    began: Instant,
    channels: HashMap<ChannelName, CancelledTasks>,
}

impl CancelledChannels {
    pub fn new() -> Self {
        Self { began: Instant::now(), channels: HashMap::new() }
    }

    /// Whether tasks of the channel were cancelled lately.
    pub fn has_any(&self, channel: &ChannelName) -> bool {
        !self.channels.is_empty() && self.channels.contains_key(channel)
    }

    /// Whether a new publication belongs to a cancelled task of its channel.
    pub fn covers(&mut self, channel: &ChannelName, json: &[u8], now: Instant) -> bool {
        let now = now - self.began;
        self.channels.get_mut(channel).is_some_and(|tasks| tasks.covers(json, None, now))
    }

    /// A task was cancelled; `unnamed` are the names of the events without a task id that belong to it.
    pub fn cancel(
        &mut self,
        channel: &ChannelName,
        task_id: &str,
        unnamed: Option<EventNames>,
        now: Instant,
    ) {
        let now = now - self.began;
        if self.channels.len() >= MAX_CHANNELS && !self.channels.contains_key(channel) {
            self.channels.retain(|_, tasks| !tasks.is_expired(now));
            if self.channels.len() >= MAX_CHANNELS {
                return;
            }
        }
        let tasks = self.channels.entry(channel.clone()).or_default();
        tasks.cancel(task_id, None, now);
        if let Some(names) = unnamed {
            tasks.cancel_unnamed(names, now);
        }
    }

    /// A task starts on the channel. It may have been cancelled before.
    pub fn start(&mut self, channel: &ChannelName, task_id: &str) {
        if let Some(tasks) = self.channels.get_mut(channel) {
            tasks.start();
            tasks.restart(task_id, Duration::MAX);
        }
    }
}
