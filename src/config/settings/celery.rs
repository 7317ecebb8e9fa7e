//! `[upstream.NAME] kind = "celery"`.

use std::time::Duration;

use super::RedisUrl;
use crate::protocol::{ChannelPattern, Template};

/// A Celery application: tasks on its Redis broker.
#[derive(Debug, Clone, PartialEq)]
pub struct CeleryUpstream {
    pub broker_url: RedisUrl,
    /// Begins every key and channel of the broker.
    pub global_keyprefix: String,
    /// For messages that none of `tasks` is for.
    pub own: CeleryTask,
    /// The first whose pattern fits a message's channel takes it.
    pub tasks: Vec<(ChannelPattern, CeleryTask)>,
    /// A list that is this long refuses; 0 = no bound.
    pub max_len: u64,
    /// `None` = a task that runs is not stopped.
    pub revoke_signal: Option<&'static str>,
    /// `None` = what becomes of a task is not watched.
    pub results: Option<Results>,
    pub track: Option<CeleryTrack>,
}

impl CeleryUpstream {
    /// The task of the messages of `channel`.
    pub fn task(&self, channel: &str) -> &CeleryTask {
        let fits = |(pattern, _): &&(ChannelPattern, CeleryTask)| pattern.matches(channel);
        self.tasks.iter().find(fits).map_or(&self.own, |(_, task)| task)
    }
}

/// The arguments of a task in the order of their names, which Python functions can have.
pub type Kwargs = Vec<(String, Kwarg)>;

/// What a message becomes.
#[derive(Debug, Clone, PartialEq)]
pub struct CeleryTask {
    pub name: String,
    pub queue: String,
    /// 0 to 9; 0 is taken first.
    pub priority: u8,
    pub kwargs: Kwargs,
    /// A task that has waited this long is not run; `None` = it waits for ever.
    pub expires: Option<Duration>,
    /// What the client is told instead of `task_queued`.
    pub queued_event: String,
}

/// Where a keyword argument comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Kwarg {
    /// A text.
    Text(Template),
    /// A text that must be an integer.
    Integer(Template),
    Constant(serde_json::Value),
    /// A field of the client's own object.
    Field(ClientField),
}

#[derive(Debug, Clone, PartialEq)]
pub struct ClientField {
    pub name: Box<str>,
    pub kind: FieldType,
    pub missing: Missing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    Any,
    Text,
    Int,
    Number,
    Bool,
    Object,
    List,
}

/// What a field that is not there, or null, comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Missing {
    /// The message is refused.
    Refuse,
    /// The task does not get the argument.
    Omit,
    Default(serde_json::Value),
}

/// Celery's result backend, where it is a Redis.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    pub url: RedisUrl,
    pub keyprefix: String,
}

/// The ids of a conversation's tasks, in a key of Django's cache.
#[derive(Debug, Clone, PartialEq)]
pub struct CeleryTrack {
    pub key: Template,
    /// From the last task on.
    pub ttl: Duration,
    /// `None` = the broker's.
    pub redis_url: Option<RedisUrl>,
}
