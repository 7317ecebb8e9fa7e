//! The ends of tasks, read from Celery's result backend.
//!
//! A worker writes a task's state to `celery-task-meta-<id>` when the task ends, also if it never started
//! (revoked, expired, unknown). The states of all tasks with a waiter are polled, and nothing is polled
//! without waiters. Polling, unlike a subscription, misses nothing while the connection is lost.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config;
use crate::redis_link::{Commands, Needs};
use crate::shutdown::Shutdown;
use crate::telemetry;
pub use crate::telemetry::upstreams::TaskEnd;

/// The time between two polls.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The maximum number of tasks in one command.
const TASKS_PER_COMMAND: usize = 500;

/// The result backend of one upstream.
pub(in crate::upstream) struct Results {
    inner: Arc<Inner>,
    /// Polling ends with the last reference.
    _polling: DropGuard,
}

struct Inner {
    commands: Commands,
    /// The prefix of keys, before a task's id.
    prefix: String,
    waiting: Mutex<HashMap<Box<str>, oneshot::Sender<TaskEnd>>>,
    /// Notified when a waiter is added.
    wake: Notify,
}

/// Removes the waiter of a task when it is dropped.
struct WaiterGuard<'a> {
    results: &'a Inner,
    task_id: &'a str,
}

impl Drop for WaiterGuard<'_> {
    fn drop(&mut self) {
        self.results.lock().remove(self.task_id);
    }
}

impl Results {
    /// Polls on the current runtime until shutdown.
    pub fn start(
        config: &config::Results,
        label: &str,
        shutdown: &Shutdown,
    ) -> Result<Self, String> {
        let inner = Arc::new(Inner {
            commands: Commands::start(&config.url, label, shutdown)?,
            prefix: key_prefix(&config.keyprefix),
            waiting: Mutex::default(),
            wake: Notify::new(),
        });
        let needs = Needs::default().command("MGET", &format!("{}0", inner.prefix));
        inner.commands.declare("results", needs);
        let wanted = CancellationToken::new();
        let results = Self { inner: Arc::clone(&inner), _polling: wanted.clone().drop_guard() };
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = inner.poll() => {}
                () = wanted.cancelled() => {}
                () = shutdown.killed() => {}
            }
        });
        Ok(results)
    }

    /// Completes when the task has ended, and never if its state is not written. A task has one waiter at a
    /// time.
    pub async fn wait_for_end(&self, task_id: &str) -> TaskEnd {
        let (sender, receiver) = oneshot::channel();
        let _guard = WaiterGuard { results: &self.inner, task_id };
        self.inner.lock().insert(task_id.into(), sender);
        self.inner.wake.notify_one();
        match receiver.await {
            Ok(end) => end,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Inner {
    async fn poll(&self) {
        loop {
            let ids: Vec<Box<str>> = self.lock().keys().cloned().collect();
            if ids.is_empty() {
                self.wake.notified().await;
            }
            for ids in ids.chunks(TASKS_PER_COMMAND) {
                self.poll_states(ids).await;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn poll_states(&self, ids: &[Box<str>]) {
        let mut get = redis::cmd("MGET");
        for id in ids {
            get.arg(format!("{}{id}", self.prefix));
        }
        // After a failure the states are polled again.
        let Ok(states) = self.commands.query::<Vec<Option<Vec<u8>>>>(&get).await else { return };
        for (id, state) in ids.iter().zip(states) {
            let Some(state) = state else { continue };
            match read(&state) {
                Some(State { end: None, .. }) => {}
                Some(State { end: Some(end), exception }) => {
                    if let Some(waiter) = self.lock().remove(id) {
                        telemetry::upstreams::celery_task_ended(end, id, exception.as_deref());
                        // The waiter may have been dropped.
                        let _ = waiter.send(end);
                    }
                }
                None => {
                    self.lock().remove(id);
                    telemetry::upstreams::celery_result_unreadable(id);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, oneshot::Sender<TaskEnd>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the prefix of result keys. Celery separates its global prefix with a `_` unless it ends with a
/// separator.
fn key_prefix(global: &str) -> String {
    let separator = match global.chars().last() {
        None | Some(':' | '_' | '-' | '.') => "",
        Some(_) => "_",
    };
    format!("{global}{separator}celery-task-meta-")
}

/// The parts of a task's state that the gateway uses.
#[derive(Debug, PartialEq, Eq)]
struct State {
    /// `None` = the task has not ended.
    end: Option<TaskEnd>,
    /// The type of the exception, for the log.
    exception: Option<String>,
}

/// Parses a state; `None` = it is not one.
fn read(json: &[u8]) -> Option<State> {
    #[derive(Deserialize)]
    struct Fields<'a> {
        status: &'a str,
        #[serde(borrow)]
        result: Option<&'a RawValue>,
    }
    let (status, result) = match serde_json::from_slice::<Fields<'_>>(json) {
        Ok(fields) => (fields.status, fields.result),
        // Python also writes invalid JSON, such as NaN. The status comes before the task's result.
        Err(_) => (leading_status(json)?, None),
    };
    let result: Option<serde_json::Value> =
        result.and_then(|result| serde_json::from_str(result.get()).ok());
    let expired = |result: &serde_json::Value| {
        let message = &result["exc_message"];
        message == "expired" || message[0] == "expired"
    };
    let end = match status {
        "SUCCESS" => Some(TaskEnd::Succeeded),
        "FAILURE" => Some(TaskEnd::Failed),
        "REVOKED" if result.as_ref().is_some_and(expired) => Some(TaskEnd::Expired),
        "REVOKED" => Some(TaskEnd::Revoked),
        _ => None,
    };
    let exception = result.as_ref().and_then(|result| result["exc_type"].as_str());
    Some(State { end, exception: exception.map(str::to_owned) })
}

fn leading_status(json: &[u8]) -> Option<&str> {
    let rest = json.strip_prefix(b"{\"status\": \"")?;
    let end = rest.iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(&rest[..end]).ok()
}

#[cfg(test)]
mod tests;
