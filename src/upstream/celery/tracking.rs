//! The ids of a conversation's tasks in a key of Django's cache, where a backend looks for tasks to revoke.

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

/// Puts the new value, unless the old one is not what was read.
const REPLACE: &str = "\
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1";

/// Others write the key as well; whoever is faster this often in a row has it.
const ATTEMPTS: usize = 5;

/// Ids that may be on their way at once.
const PLACES: usize = 256;

/// Ids of one key; with more the smallest are left out.
const MOST_IDS: usize = 500;

/// One upstream's. Cheap to clone.
#[derive(Clone)]
pub(super) struct Tracking {
    commands: Commands,
    ttl: Duration,
    /// Of ids on their way.
    places: Arc<Semaphore>,
}

/// An id on its way to its key.
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
        Self { commands, ttl, places: Arc::new(Semaphore::new(PLACES)) }
    }

    /// Adds the id, on a task of its own: a cache that is slow must not make a queued message look refused.
    /// That it cannot be added is told in the log and in a metric.
    pub fn add(&self, entry: Entry) {
        let Ok(in_flight) = Arc::clone(&self.places).try_acquire_owned() else {
            return telemetry::upstreams::celery_task_not_tracked("too many ids are on their way");
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
            drop(in_flight);
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

/// The set that `old` holds, where it is one, and `task_id`.
fn with_id(old: &[u8], task_id: &str) -> Vec<u8> {
    let value = pickle::read(old);
    let mut ids: BTreeSet<&str> =
        value.as_ref().ok().and_then(pickle::Value::as_text_set).unwrap_or_default();
    while ids.len() >= MOST_IDS {
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
        let many = pickle::write_text_set((0..MOST_IDS).map(|n| ["x", "y"][n % 2]).chain(["z"]));
        assert_eq!(ids(&with_id(&many, "a")), ["a", "x", "y", "z"]);
    }
}
