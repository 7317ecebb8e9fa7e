//! `[upstream.NAME] kind = "celery"`.

use std::time::Duration;

use super::{ObjectTemplate, RedisUrl};
use crate::protocol::{ChannelPattern, Template};

/// A Celery application, whose tasks go to its Redis broker.
#[derive(Debug, Clone, PartialEq)]
pub struct CeleryUpstream {
    pub broker_url: RedisUrl,
    /// The prefix of every key and channel of the broker.
    pub global_keyprefix: String,
    /// The task for messages whose channel matches none of `tasks`.
    pub default_task: CeleryTask,
    /// Tasks by channel pattern. The first pattern that matches a message's channel is used.
    pub tasks: Vec<(ChannelPattern, CeleryTask)>,
    /// Messages are refused while the queue is this long; 0 = no limit.
    pub max_len: u64,
    /// The most tasks of one user, or of the anonymous clients of one address, that wait or are in progress; 0 = a
    /// quarter of `max_len`, at least 64.
    pub max_len_per_user: u64,
    /// The signal that stops a running task; `None` = running tasks are not stopped.
    pub revoke_signal: Option<&'static str>,
    /// Where the outcomes of tasks are read; `None` = they are not.
    pub results: Option<Results>,
    /// Where task ids are stored for the backend; `None` = they are not.
    pub track: Option<CeleryTrack>,
}

impl CeleryUpstream {
    /// The task for a message of `channel`.
    pub fn task(&self, channel: &str) -> &CeleryTask {
        let matches = |(pattern, _): &&(ChannelPattern, CeleryTask)| pattern.matches(channel);
        self.tasks.iter().find(matches).map_or(&self.default_task, |(_, task)| task)
    }
}

/// The task that a message becomes.
#[derive(Debug, Clone, PartialEq)]
pub struct CeleryTask {
    pub name: String,
    pub queue: String,
    /// From 0 to 9; 0 is the highest.
    pub priority: u8,
    /// Its keyword arguments, whose names are valid in Python.
    pub kwargs: ObjectTemplate,
    /// A task that has waited this long is not run; `None` = no limit.
    pub expires: Option<Duration>,
    /// The name of the event that the client gets in place of `task_queued`.
    pub queued_event: String,
}

/// Celery's result backend on Redis.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    pub url: RedisUrl,
    pub keyprefix: String,
}

/// A key in Django's cache with the ids of a conversation's tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct CeleryTrack {
    pub key: Template,
    /// How long the key is kept after the last task.
    pub ttl: Duration,
    /// `None` = the Redis of the broker.
    pub redis_url: Option<RedisUrl>,
    pub format: TrackFormat,
}

/// How the ids of tasks are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackFormat {
    /// A pickled set.
    Pickle,
    /// A JSON list.
    Json,
}
