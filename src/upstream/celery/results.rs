//! What became of tasks, read from Celery's result backend.
//!
//! A worker writes a task's state to `celery-task-meta-<id>` when it ends, also when it never began:
//! revoked, expired, unknown. The states of all tasks that somebody here waits for are asked for in one
//! command at a time, and nothing is asked while nobody waits. Asking again, rather than subscribing, makes
//! a lost connection no gap.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{Notify, oneshot};

use crate::config;
use crate::redis_link::Commands;
use crate::shutdown::Shutdown;
use crate::telemetry::upstream as facts;

/// Between two looks at the states.
const INTERVAL: Duration = Duration::from_millis(500);

/// Tasks of one command.
const TASKS_PER_COMMAND: usize = 500;

/// How a task ended, by the word of its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskEnd {
    /// `SUCCESS`.
    Succeeded,
    /// `FAILURE`: it raised, its process died, or no worker knows it.
    Failed,
    /// `REVOKED`, by whomever.
    Revoked,
    /// `REVOKED`, since it had waited too long.
    Expired,
}

impl TaskEnd {
    /// A stable word for logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

/// The result backend of one upstream. Cheap to clone.
#[derive(Clone)]
pub(super) struct Results(Arc<Inner>);

struct Inner {
    commands: Commands,
    /// Before a task's id.
    prefix: String,
    waiting: Mutex<HashMap<Box<str>, oneshot::Sender<TaskEnd>>>,
    /// The first one waits.
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
    /// Asks on the current runtime until killed.
    pub fn start(
        config: &config::Results,
        label: &'static str,
        shutdown: &Shutdown,
    ) -> Result<Self, String> {
        let results = Self(Arc::new(Inner {
            commands: Commands::start(&config.url, label, shutdown)?,
            prefix: key_prefix(&config.keyprefix),
            waiting: Mutex::default(),
            wake: Notify::new(),
        }));
        let (asking, shutdown) = (results.clone(), shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = asking.0.ask() => {}
                () = shutdown.killed() => {}
            }
        });
        Ok(results)
    }

    pub fn is_up(&self) -> bool {
        self.0.commands.is_up()
    }

    /// Completes when the task has ended; never where that is not written. A task is waited for by one at
    /// a time.
    pub async fn end(&self, task_id: &str) -> TaskEnd {
        let (sender, receiver) = oneshot::channel();
        let _until_dropped = Waiting { results: &self.0, task_id };
        self.0.lock().insert(task_id.into(), sender);
        self.0.wake.notify_one();
        match receiver.await {
            Ok(end) => end,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Inner {
    async fn ask(&self) {
        loop {
            let ids: Vec<Box<str>> = self.lock().keys().cloned().collect();
            if ids.is_empty() {
                self.wake.notified().await;
            }
            for ids in ids.chunks(TASKS_PER_COMMAND) {
                self.look_at(ids).await;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn look_at(&self, ids: &[Box<str>]) {
        let mut get = redis::cmd("MGET");
        for id in ids {
            get.arg(format!("{}{id}", self.prefix));
        }
        // Without an answer they are asked for again.
        let Ok(states) = self.commands.query::<Vec<Option<Vec<u8>>>>(&get).await else { return };
        for (id, state) in ids.iter().zip(states) {
            let Some(state) = state else { continue };
            match read(&state) {
                Ok(None) => {}
                Ok(Some(end)) => {
                    if let Some(waiter) = self.lock().remove(id) {
                        facts::task_ended(end.label());
                        let _gave_up = waiter.send(end);
                    }
                }
                Err(()) => {
                    self.lock().remove(id);
                    facts::result_unreadable(id);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, oneshot::Sender<TaskEnd>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Celery parts its global prefix from the rest by a `_`, unless it ends in a mark of its own.
fn key_prefix(global: &str) -> String {
    let mark = match global.chars().last() {
        None | Some(':' | '_' | '-' | '.') => "",
        Some(_) => "_",
    };
    format!("{global}{mark}celery-task-meta-")
}

/// `None` = the task has not ended.
fn read(state: &[u8]) -> Result<Option<TaskEnd>, ()> {
    #[derive(Deserialize)]
    struct State<'a> {
        status: &'a str,
        result: Option<serde_json::Value>,
    }
    let state: State<'_> = serde_json::from_slice(state).map_err(|_| ())?;
    let expired = |result: &serde_json::Value| {
        let message = &result["exc_message"];
        message == "expired" || message[0] == "expired"
    };
    Ok(match state.status {
        "SUCCESS" => Some(TaskEnd::Succeeded),
        "FAILURE" => Some(TaskEnd::Failed),
        "REVOKED" if state.result.as_ref().is_some_and(expired) => Some(TaskEnd::Expired),
        "REVOKED" => Some(TaskEnd::Revoked),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read() {
        for (state, end) in [
            (r#"{"status":"SUCCESS","result":null,"children":[]}"#, Ok(Some(TaskEnd::Succeeded))),
            (
                r#"{"status":"FAILURE","result":{"exc_type":"ValueError","exc_message":["x"]}}"#,
                Ok(Some(TaskEnd::Failed)),
            ),
            (
                r#"{"status":"REVOKED","result":{"exc_type":"TaskRevokedError","exc_message":["expired"]}}"#,
                Ok(Some(TaskEnd::Expired)),
            ),
            (
                r#"{"status":"REVOKED","result":{"exc_type":"TaskRevokedError","exc_message":["terminated"]}}"#,
                Ok(Some(TaskEnd::Revoked)),
            ),
            (r#"{"status":"REVOKED"}"#, Ok(Some(TaskEnd::Revoked))),
            (r#"{"status":"RETRY","result":{}}"#, Ok(None)),
            (r#"{"status":"STARTED","result":{"pid":1}}"#, Ok(None)),
            (r#"{"result":1}"#, Err(())),
            ("\u{80}", Err(())),
            ("", Err(())),
        ] {
            assert_eq!(read(state.as_bytes()), end, "{state}");
        }
    }

    #[test]
    fn keys_are_named_as_celery_names_them() {
        assert_eq!(key_prefix(""), "celery-task-meta-");
        assert_eq!(key_prefix("app"), "app_celery-task-meta-");
        assert_eq!(key_prefix("app:"), "app:celery-task-meta-");
    }
}
