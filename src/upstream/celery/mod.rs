//! A message as a Celery task, which an unchanged `celery worker` runs.
//!
//! Owns the connections of one Celery application: its broker, its result backend, and the cache where
//! its tasks are tracked. What a task consists of is in `kwargs` and `client_json`, how it is written in
//! `envelope`, how it ended in `results`. Who is told is left to others. Invariant: nothing is pushed that a
//! worker cannot decode.

use std::sync::atomic::{AtomicU64, Ordering};

use redis::Script;

use super::queue::PUSH;
use super::{Message, RelayError};
use crate::clock;
use crate::config::{CeleryTask, CeleryUpstream};
use crate::redis_link::{Commands, RedisFailure};
use crate::shutdown::Shutdown;

mod client_json;
mod envelope;
mod kwargs;
mod results;
mod tracking;

use results::Results;
pub use results::TaskEnd;
use tracking::{Entry, Tracking};

/// Celery's exchange for commands to all workers, with the default name of its `control_exchange`.
const PIDBOX: &str = "celery.pidbox";

/// The connections of one Celery application; shared by all threads.
pub(super) struct Celery {
    broker: Commands,
    push: Script,
    /// The channel on which all workers receive commands.
    pidbox: String,
    /// `None` = results are not read.
    results: Option<Results>,
    tracking: Option<Tracking>,
    /// The number of commands so far: Celery's logical clock.
    clock: AtomicU64,
}

/// A task that is ready to be pushed.
pub(super) struct Element {
    key: String,
    json: Vec<u8>,
    tracked: Option<Entry>,
}

impl Celery {
    /// `Err` says what is wrong with a URL. Starts the connections on the current runtime.
    pub fn start(
        config: &CeleryUpstream,
        upstream: &str,
        shutdown: &Shutdown,
    ) -> Result<Self, String> {
        let broker =
            Commands::start(&config.broker_url, &format!("upstream.{upstream}"), shutdown)?;
        let database = config.broker_url.info().redis_settings().db();
        let pidbox = format!("{}/{database}.{PIDBOX}", config.global_keyprefix);
        let results = config.results.as_ref();
        let results = results
            .map(|results| {
                Results::start(results, &format!("upstream.{upstream}.results"), shutdown)
            })
            .transpose()?;
        let tracking = config.track.as_ref().map(|track| {
            let commands = match &track.redis_url {
                Some(url) => Commands::start(url, &format!("upstream.{upstream}.track"), shutdown)?,
                None => broker.clone(),
            };
            Ok::<_, String>(Tracking::new(commands, track.ttl))
        });
        let (push, clock) = (Script::new(PUSH), AtomicU64::new(0));
        Ok(Self { broker, push, pidbox, results, tracking: tracking.transpose()?, clock })
    }

    /// Whether the broker is connected. Messages are accepted without results and tracking as well.
    pub fn is_up(&self) -> bool {
        self.broker.is_up()
    }

    /// `None` = results are not read.
    pub fn results(&self) -> Option<&Results> {
        self.results.as_ref()
    }

    /// The task for `message`. `Err` = it is rejected; the reason is for its client.
    pub fn compose(config: &CeleryUpstream, message: &Message) -> Result<Element, RelayError> {
        let task = config.task(message.channel.as_str());
        let kwargs = kwargs::fill(&task.kwargs, message).map_err(RelayError::Rejected)?;
        let traceparent = message.trace.of_own_span();
        let now = clock::since_unix_epoch();
        let json = envelope::task(task, &message.task_id, &kwargs, traceparent, now)
            .map_err(RelayError::Rejected)?;
        let tracked = config.track.as_ref().map(|track| Entry::new(track, message));
        Ok(Element { key: list(config, task), json, tracked })
    }

    /// `LPUSH`. A list that is as long as it may be is busy.
    pub async fn push(
        &self,
        config: &CeleryUpstream,
        element: Element,
    ) -> Result<(), (RelayError, String)> {
        let mut push = self.push.prepare_invoke();
        push.key(&element.key).arg(&element.json).arg(config.max_len);
        let failed = |failure: RedisFailure| (RelayError::Unavailable, failure.to_string());
        match self.broker.invoke::<u64>(&push).await.map_err(failed)? {
            0 => Err((RelayError::Busy, "the list is full".to_owned())),
            _ => {
                if let (Some(tracking), Some(entry)) = (&self.tracking, element.tracked) {
                    tracking.add(entry);
                }
                Ok(())
            }
        }
    }

    /// Tells all workers to drop the task, and to stop it where it runs. Returns whether any worker received it.
    pub async fn revoke(&self, config: &CeleryUpstream, task_id: &str) -> bool {
        let clock = self.clock.fetch_add(1, Ordering::Relaxed) + 1;
        let now = clock::since_unix_epoch();
        let Ok(command) = envelope::revoke(PIDBOX, task_id, config.revoke_signal, clock, now)
        else {
            return false;
        };
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&self.pidbox).arg(command);
        self.broker.query::<u64>(&publish).await.is_ok_and(|receivers| receivers > 0)
    }
}

/// Kombu keeps a list for each of four steps of priority; workers read the first one first.
fn list(config: &CeleryUpstream, task: &CeleryTask) -> String {
    let CeleryUpstream { global_keyprefix, .. } = config;
    let queue = &task.queue;
    match task.priority / 3 * 3 {
        0 => format!("{global_keyprefix}{queue}"),
        step => format!("{global_keyprefix}{queue}\u{6}\u{16}{step}"),
    }
}
