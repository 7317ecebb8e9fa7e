//! Tracking of a conversation's task ids in a key of Django's cache, from which a backend revokes tasks.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use redis::Script;
use tokio::sync::Semaphore;

use crate::config::{CeleryTrack, TrackFormat};
use crate::pickle;
use crate::protocol::TemplateContext;
use crate::redis_link::{Commands, Needs, RedisFailure};
use crate::telemetry;
use crate::upstream::Message;
use crate::upstream::message::user_in_template;

/// Sets the new value unless the old one has changed since it was read.
const REPLACE: &str = "\
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1";

/// The number of attempts to update a key that other processes write as well.
const MAX_ATTEMPTS: usize = 5;

/// The maximum number of updates in flight.
const MAX_IN_FLIGHT: usize = 256;

/// The maximum number of ids in one key; beyond it the smallest are dropped.
const MAX_IDS: usize = 500;

/// The tracker of one upstream's tasks. Cheap to clone.
#[derive(Clone)]
pub(super) struct Tracker {
    commands: Commands,
    ttl: Duration,
    /// The format of a key that does not exist yet.
    format: TrackFormat,
    /// The permits of updates in flight.
    permits: Arc<Semaphore>,
}

/// A task id and the key that it is added to.
pub(super) struct TrackedTask {
    key: String,
    task_id: String,
}

impl TrackedTask {
    pub fn new(track: &CeleryTrack, message: &Message) -> Self {
        let key = track.key.fill(TemplateContext {
            params: &message.params,
            user_id: user_in_template(message.user_id.as_ref()),
            channel: Some(message.channel.as_str()),
        });
        Self { key, task_id: message.task_id.clone() }
    }
}

impl Tracker {
    pub fn new(commands: Commands, track: &CeleryTrack) -> Self {
        let key = track.key.example();
        commands.declare("track", Needs::default().script(REPLACE, &key, "").command("GET", &key));
        let CeleryTrack { ttl, format, .. } = *track;
        Self { commands, ttl, format, permits: Arc::new(Semaphore::new(MAX_IN_FLIGHT)) }
    }

    /// Adds the id in a separate task, because a slow cache must not make a queued message look refused.
    /// Failures are logged and counted.
    pub fn add(&self, task: TrackedTask) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return telemetry::celery::task_not_tracked("too many ids are on their way");
        };
        let tracker = self.clone();
        tokio::spawn(async move {
            match tracker.try_add(&task).await {
                Ok(true) => {}
                Ok(false) => telemetry::celery::task_not_tracked("others kept changing the key"),
                Err(failure) => telemetry::celery::task_not_tracked(&failure.to_string()),
            }
            drop(permit);
        });
    }

    async fn try_add(&self, task: &TrackedTask) -> Result<bool, RedisFailure> {
        let script = Script::new(REPLACE);
        let millis = u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX);
        for _ in 0..MAX_ATTEMPTS {
            let old: Option<Vec<u8>> =
                self.commands.query(redis::cmd("GET").arg(&task.key)).await?;
            let old = old.unwrap_or_default();
            let mut call = script.key(&task.key);
            call.arg(&old).arg(with_id(&old, &task.task_id, self.format)).arg(millis);
            if self.commands.invoke::<bool>(&call).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Returns the ids in `old` with `task_id` added, in the format of `old` if it has one.
fn with_id(old: &[u8], task_id: &str, format: TrackFormat) -> Vec<u8> {
    let value = pickle::read(old);
    let set = value.as_ref().ok().and_then(pickle::Pickle::as_text_set);
    let list: Option<Vec<Cow<'_, str>>> = serde_json::from_slice(old).ok();
    let format = match (&set, &list) {
        (Some(_), _) => TrackFormat::Pickle,
        (None, Some(_)) => TrackFormat::Json,
        (None, None) => format,
    };
    let mut ids: BTreeSet<&str> = set.unwrap_or_default();
    ids.extend(list.iter().flatten().map(AsRef::as_ref));
    ids.remove(task_id);
    while ids.len() >= MAX_IDS {
        ids.pop_first();
    }
    ids.insert(task_id);
    match format {
        TrackFormat::Pickle => pickle::write_text_set(ids.into_iter()),
        TrackFormat::Json => serde_json::to_vec(&ids).expect("texts serialize"),
    }
}

#[cfg(test)]
mod tests;
