//! The results of tasks, read from Celery's result backend.
//!
//! A worker writes a task's state to `celery-task-meta-<id>` when it ends, also when it never began:
//! revoked, expired, unknown. The states of all tasks that are waited for are read with one command at a time,
//! and nothing is read while no task is. Because they are polled, a lost connection leaves no gap.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config;
use crate::redis_link::Commands;
use crate::shutdown::Shutdown;
use crate::telemetry;
pub use crate::telemetry::upstreams::TaskEnd;

/// From one poll of the states to the next.
const INTERVAL: Duration = Duration::from_millis(500);

/// The most tasks of one command.
const TASKS_PER_COMMAND: usize = 500;

/// The result backend of one upstream.
pub(in crate::upstream) struct Results {
    inner: Arc<Inner>,
    /// Ends the polling when it is dropped.
    _polling: DropGuard,
}

struct Inner {
    commands: Commands,
    /// The part of a key before a task's id.
    prefix: String,
    waiting: Mutex<HashMap<Box<str>, oneshot::Sender<TaskEnd>>>,
    /// Notified when a task is waited for.
    wake: Notify,
}

/// A task that is waited for until this is dropped.
struct Waiting<'a> {
    results: &'a Inner,
    task_id: &'a str,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.results.lock().remove(self.task_id);
    }
}

impl Results {
    /// Polls on the current runtime until the process is killed.
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
        let wanted = CancellationToken::new();
        let results = Self { inner: Arc::clone(&inner), _polling: wanted.clone().drop_guard() };
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = inner.poll_forever() => {}
                () = wanted.cancelled() => {}
                () = shutdown.killed() => {}
            }
        });
        Ok(results)
    }

    /// Completes when the task has ended; never if its end is not written. Only one caller at a time may wait
    /// for a task.
    pub async fn end(&self, task_id: &str) -> TaskEnd {
        let (sender, receiver) = oneshot::channel();
        let _guard = Waiting { results: &self.inner, task_id };
        self.inner.lock().insert(task_id.into(), sender);
        self.inner.wake.notify_one();
        match receiver.await {
            Ok(end) => end,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Inner {
    async fn poll_forever(&self) {
        loop {
            let ids: Vec<Box<str>> = self.lock().keys().cloned().collect();
            if ids.is_empty() {
                self.wake.notified().await;
            }
            for ids in ids.chunks(TASKS_PER_COMMAND) {
                self.poll(ids).await;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn poll(&self, ids: &[Box<str>]) {
        let mut get = redis::cmd("MGET");
        for id in ids {
            get.arg(format!("{}{id}", self.prefix));
        }
        // Without an answer they are polled again.
        let Ok(states) = self.commands.query::<Vec<Option<Vec<u8>>>>(&get).await else { return };
        for (id, state) in ids.iter().zip(states) {
            let Some(state) = state else { continue };
            match read(&state) {
                Some(State { end: None, .. }) => {}
                Some(State { end: Some(end), exception }) => {
                    if let Some(waiter) = self.lock().remove(id) {
                        telemetry::upstreams::celery_task_ended(end, id, exception.as_deref());
                        // The caller may have stopped waiting.
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

/// Celery separates its global prefix from the rest by a `_`, unless the prefix ends in a separator itself.
fn key_prefix(global: &str) -> String {
    let mark = match global.chars().last() {
        None | Some(':' | '_' | '-' | '.') => "",
        Some(_) => "_",
    };
    format!("{global}{mark}celery-task-meta-")
}

/// The part of a task's state that is used here.
#[derive(Debug, PartialEq, Eq)]
struct State {
    /// `None` = the task has not ended.
    end: Option<TaskEnd>,
    /// What was raised, for the log.
    exception: Option<String>,
}

/// Reads a state; `None` = it is not one of Celery's.
fn read(json: &[u8]) -> Option<State> {
    #[derive(Deserialize)]
    struct Fields<'a> {
        status: &'a str,
        #[serde(borrow)]
        result: Option<&'a RawValue>,
    }
    let (status, result) = match serde_json::from_slice::<Fields<'_>>(json) {
        Ok(fields) => (fields.status, fields.result),
        // Python writes values that are not valid JSON, such as NaN. The state precedes what a task returned.
        Err(_) => (status_in_front(json)?, None),
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

fn status_in_front(json: &[u8]) -> Option<&str> {
    let rest = json.strip_prefix(b"{\"status\": \"")?;
    let end = rest.iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(&rest[..end]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read() {
        let ended = |end, exception: Option<&str>| {
            Some(State { end, exception: exception.map(str::to_owned) })
        };
        let deep = "[".repeat(500) + &"]".repeat(500);
        for (state, read_as) in [
            (
                r#"{"status":"SUCCESS","result":null,"children":[]}"#,
                ended(Some(TaskEnd::Succeeded), None),
            ),
            (r#"{"status":"SUCCESS","result":"\ud800"}"#, ended(Some(TaskEnd::Succeeded), None)),
            (
                &format!(r#"{{"status":"SUCCESS","result":{deep}}}"#),
                ended(Some(TaskEnd::Succeeded), None),
            ),
            (r#"{"status": "SUCCESS", "result": NaN}"#, ended(Some(TaskEnd::Succeeded), None)),
            (
                r#"{"status":"FAILURE","result":{"exc_type":"ValueError","exc_message":["x"]}}"#,
                ended(Some(TaskEnd::Failed), Some("ValueError")),
            ),
            (
                r#"{"status":"REVOKED","result":{"exc_type":"TaskRevokedError","exc_message":["expired"]}}"#,
                ended(Some(TaskEnd::Expired), Some("TaskRevokedError")),
            ),
            (
                r#"{"status":"REVOKED","result":{"exc_type":"TaskRevokedError","exc_message":["terminated"]}}"#,
                ended(Some(TaskEnd::Revoked), Some("TaskRevokedError")),
            ),
            (r#"{"status":"REVOKED"}"#, ended(Some(TaskEnd::Revoked), None)),
            (r#"{"status":"RETRY","result":{}}"#, ended(None, None)),
            (r#"{"status":"STARTED","result":{"pid":1}}"#, ended(None, None)),
            (r#"{"result":1}"#, None),
            ("\u{80}", None),
            ("", None),
        ] {
            assert_eq!(read(state.as_bytes()), read_as, "{state}");
        }
    }

    #[test]
    fn keys_are_named_as_celery_names_them() {
        assert_eq!(key_prefix(""), "celery-task-meta-");
        assert_eq!(key_prefix("app"), "app_celery-task-meta-");
        assert_eq!(key_prefix("app:"), "app:celery-task-meta-");
    }
}
