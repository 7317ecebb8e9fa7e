//! Relays messages as Celery tasks, which an unmodified `celery worker` runs.
//!
//! This module owns the connections of one Celery application: to its broker, to its result backend, and
//! to the cache where its tasks are tracked. `envelope` writes a task, `results` waits for its end. Invariant: a worker can decode everything that is
//! pushed.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use super::outgoing::{Outgoing, Written};
use super::queue::{QueueKind, QueueWriter};
use super::{Message, QueueState, RelayError, template};
use crate::clock;
use crate::config::{CeleryTask, CeleryUpstream};
use crate::protocol::ChannelName;
use crate::redis_link::{Commands, Needs};
use crate::shutdown::Shutdown;

mod envelope;
mod results;
mod tracking;

use results::Results;
pub use results::TaskEnd;
use tracking::{TrackedTask, Tracker};

/// Celery's exchange for commands to all workers, with the default name of `control_exchange`.
const PIDBOX: &str = "celery.pidbox";

/// The connections of one Celery application; shared by all threads.
pub(super) struct Celery {
    broker: Commands,
    writer: QueueWriter,
    /// The Redis channel of commands to all workers.
    pidbox: String,
    /// `None` = results are not configured.
    results: Option<Results>,
    tracker: Option<Tracker>,
    /// Celery's logical clock: the number of commands sent so far.
    command_clock: AtomicU64,
}

/// A task that is ready to be pushed.
pub(super) struct Element {
    key: String,
    json: Vec<u8>,
    tracked: Option<TrackedTask>,
}

impl Celery {
    /// Starts the connections on the current runtime. `Err` says what is wrong with a URL.
    pub fn start(
        config: &CeleryUpstream,
        upstream: &str,
        shutdown: &Shutdown,
    ) -> Result<Self, String> {
        let broker =
            Commands::start(&config.broker_url, &format!("upstream.{upstream}"), shutdown)?;
        let database = config.broker_url.info().redis_settings().db();
        let pidbox = format!("{}/{database}.{PIDBOX}", config.global_keyprefix);
        let tasks =
            std::iter::once(&config.default_task).chain(config.tasks.iter().map(|(_, task)| task));
        let needs = tasks.fold(Needs::default().command("PUBLISH", &pidbox), |needs, task| {
            QueueWriter::needs(QueueKind::List, needs, &list_key(config, task))
        });
        broker.declare("celery", needs);
        let results = config.results.as_ref();
        let results = results
            .map(|results| {
                Results::start(results, &format!("upstream.{upstream}.results"), shutdown)
            })
            .transpose()?;
        let tracker = config.track.as_ref().map(|track| {
            let commands = match &track.redis_url {
                Some(url) => Commands::start(url, &format!("upstream.{upstream}.track"), shutdown)?,
                None => broker.clone(),
            };
            Ok::<_, String>(Tracker::new(commands, track))
        });
        let tracker = tracker.transpose()?;
        let writer = QueueWriter::new(broker.clone(), QueueKind::List, config.max_len, shutdown);
        let command_clock = AtomicU64::new(0);
        Ok(Self { broker, writer, pidbox, results, tracker, command_clock })
    }

    /// Whether the broker can be reached and accepts tasks; `Err` says why not. Results, and a cache of its own for
    /// tracking, are not needed to accept messages.
    pub fn check(&self) -> Result<(), String> {
        self.broker.check()
    }

    /// What writes the tasks.
    pub fn writer(&self) -> &QueueWriter {
        &self.writer
    }

    /// Returns the result backend; `None` = it is not configured.
    pub fn results(&self) -> Option<&Results> {
        self.results.as_ref()
    }

    /// Writes `message` as a task. `Err` tells the client why that is not possible.
    pub fn compose(config: &CeleryUpstream, message: &Message) -> Result<Element, RelayError> {
        let task = config.task(message.channel.as_str());
        let kwargs = template::fill_object(&task.kwargs, message).map_err(RelayError::rejected)?;
        let traceparent = message.trace.of_own_span();
        let now = clock::since_unix_epoch();
        let json = envelope::task(task, &message.task_id, &kwargs, traceparent, now)
            .map_err(RelayError::rejected)?;
        let tracked = config.track.as_ref().map(|track| TrackedTask::new(track, message));
        Ok(Element { key: list_key(config, task), json, tracked })
    }

    /// Pushes a task with `LPUSH`, together with others of the thread. A full list is `Busy`.
    pub async fn push(&self, outgoing: &Outgoing, element: Element, deadline: Instant) -> Written {
        let Element { key, json, tracked } = element;
        let write = |all: &mut Vec<u8>| {
            all.extend_from_slice(&json);
            Ok(())
        };
        outgoing.send(&self.writer, key.into(), deadline, write).finish().await?;
        if let (Some(tracker), Some(task)) = (&self.tracker, tracked) {
            tracker.add(task);
        }
        Ok(())
    }

    /// Returns the length of the list that the channel's tasks go to, and how often the queue is declared at the broker:
    /// a worker declares its queues when it starts, each bound to an exchange of its own name.
    pub async fn queue_state(
        &self,
        config: &CeleryUpstream,
        channel: &ChannelName,
    ) -> Option<QueueState> {
        let task = config.task(channel.as_str());
        let mut length = redis::cmd("LLEN");
        let waiting = self.broker.query(length.arg(list_key(config, task))).await.ok()?;
        let mut bindings = redis::cmd("SCARD");
        bindings.arg(format!("{}_kombu.binding.{}", config.global_keyprefix, task.queue));
        let consumers = self.broker.query(&bindings).await.ok();
        Some(QueueState { queue: task.queue.clone(), waiting, consumers })
    }

    /// Tells all workers to drop the task, and to stop it if it is running. False = no worker received it.
    pub async fn revoke(&self, config: &CeleryUpstream, task_id: &str) -> bool {
        let count = self.command_clock.fetch_add(1, Ordering::Relaxed) + 1;
        let now = clock::since_unix_epoch();
        let Ok(command) = envelope::revoke(PIDBOX, task_id, config.revoke_signal, count, now)
        else {
            return false;
        };
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&self.pidbox).arg(command);
        self.broker.query::<u64>(&publish).await.is_ok_and(|receivers| receivers > 0)
    }
}

/// Returns the key of a task's list. Kombu keeps a list for each of four priority steps.
fn list_key(config: &CeleryUpstream, task: &CeleryTask) -> String {
    let CeleryUpstream { global_keyprefix, .. } = config;
    let queue = &task.queue;
    match task.priority / 3 * 3 {
        0 => format!("{global_keyprefix}{queue}"),
        step => format!("{global_keyprefix}{queue}\u{6}\u{16}{step}"),
    }
}
