//! The ids of a conversation's tasks in a key of Django's cache, where a backend finds the tasks to revoke.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use redis::Script;
use tokio::sync::Semaphore;

use crate::config::CeleryTrack;
use crate::pickle;
use crate::protocol::TemplateContext;
use crate::redis_link::{Commands, RedisFailure};
use crate::telemetry;
use crate::upstream::{Message, user_in_template};

/// Replaces the value, unless it has changed since it was read.
const REPLACE: &str = "\
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1";

/// How often an update is tried that others overtake, since they write the key as well.
const ATTEMPTS: usize = 5;

/// The most ids that are being added at once.
const MAX_IN_FLIGHT: usize = 256;

/// The most ids of one key; the smallest beyond it are left out.
const MAX_IDS: usize = 500;

/// The tracking of one upstream's tasks. Cheap to clone.
#[derive(Clone)]
pub(super) struct Tracking {
    commands: Commands,
    ttl: Duration,
    /// A permit for each id that is being added.
    permits: Arc<Semaphore>,
}

/// An id that is to be added to a key.
pub(super) struct Entry {
    key: String,
    task_id: String,
}

impl Entry {
    pub fn new(track: &CeleryTrack, message: &Message) -> Self {
        let key = track.key.fill(TemplateContext {
            params: &message.params,
            user_id: user_in_template(message.user_id.as_ref()),
            channel: Some(message.channel.as_str()),
        });
        Self { key, task_id: message.task_id.clone() }
    }
}

impl Tracking {
    pub fn new(commands: Commands, ttl: Duration) -> Self {
        Self { commands, ttl, permits: Arc::new(Semaphore::new(MAX_IN_FLIGHT)) }
    }

    /// Adds the id on a task of its own: a slow cache must not make a queued message look refused. A failure is
    /// logged and counted.
    pub fn add(&self, entry: Entry) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return telemetry::upstreams::celery_task_not_tracked("too many ids are being added");
        };
        let tracking = self.clone();
        tokio::spawn(async move {
            match tracking.try_add(&entry).await {
                Ok(true) => {}
                Ok(false) => {
                    telemetry::upstreams::celery_task_not_tracked("others kept changing the key")
                }
                Err(failure) => telemetry::upstreams::celery_task_not_tracked(&failure.to_string()),
            }
            drop(permit);
        });
    }

    async fn try_add(&self, entry: &Entry) -> Result<bool, RedisFailure> {
        let script = Script::new(REPLACE);
        let millis = u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX);
        for _ in 0..ATTEMPTS {
            let old: Option<Vec<u8>> =
                self.commands.query(redis::cmd("GET").arg(&entry.key)).await?;
            let old = old.unwrap_or_default();
            let mut call = script.key(&entry.key);
            call.arg(&old).arg(with_id(&old, &entry.task_id)).arg(millis);
            if self.commands.invoke::<bool>(&call).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The set in `old`, if it is one, with `task_id` added.
fn with_id(old: &[u8], task_id: &str) -> Vec<u8> {
    let value = pickle::read(old);
    let mut ids: BTreeSet<&str> =
        value.as_ref().ok().and_then(pickle::Value::as_text_set).unwrap_or_default();
    while ids.len() >= MAX_IDS {
        ids.pop_first();
    }
    ids.insert(task_id);
    pickle::write_text_set(ids.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(bytes: &[u8]) -> Vec<String> {
        let value = pickle::read(bytes).expect("a pickle");
        value.as_text_set().expect("a set").into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn an_id_joins_those_that_are_there() {
        let one = with_id(b"", "b");
        assert_eq!(ids(&one), ["b"]);
        assert_eq!(ids(&with_id(&one, "a")), ["a", "b"]);
        assert_eq!(ids(&with_id(&one, "b")), ["b"]);
        assert_eq!(ids(&with_id(b"no pickle", "a")), ["a"]);
        let many = pickle::write_text_set((0..MAX_IDS).map(|n| ["x", "y"][n % 2]).chain(["z"]));
        assert_eq!(ids(&with_id(&many, "a")), ["a", "x", "y", "z"]);
    }
}
