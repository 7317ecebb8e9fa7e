//! The ends of tasks, read from Celery's result backend.
//!
//! A worker writes a task's state to `celery-task-meta-<id>` when the task ends, also if it never started
//! (revoked, expired, unknown). The states of all tasks with a waiter are polled, and nothing is polled
//! without waiters. Polling, unlike a subscription, misses nothing while the connection is lost.
//!
//! A task that returns the promise of other tasks has ended, but its reply goes on: their results are awaited.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::state::{MAX_PROMISED, State};
use crate::config;
use crate::redis_link::{Commands, Needs};
use crate::shutdown::Shutdown;
use crate::telemetry;
pub use crate::telemetry::celery::TaskEnd;

mod state;

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
    waiting: Mutex<HashMap<Box<str>, Waiter>>,
    /// Notified when a waiter is added.
    wake: Notify,
}

/// The waiter for the end of a task.
struct Waiter {
    sender: oneshot::Sender<TaskEnd>,
    /// The tasks that have to end: itself, or those that it promised.
    tasks: Vec<Box<str>>,
    /// How many promised tasks may still be added.
    promises_left: usize,
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
        let waiter = Waiter { sender, tasks: vec![task_id.into()], promises_left: MAX_PROMISED };
        self.inner.lock().insert(task_id.into(), waiter);
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
            let asked: Vec<Asked> =
                self.lock().iter().flat_map(|(id, waiter)| Asked::of(id, waiter)).collect();
            if asked.is_empty() {
                self.wake.notified().await;
            }
            for asked in asked.chunks(TASKS_PER_COMMAND) {
                self.poll_states(asked).await;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn poll_states(&self, asked: &[Asked]) {
        let mut get = redis::cmd("MGET");
        for Asked { task, .. } in asked {
            get.arg(format!("{}{task}", self.prefix));
        }
        // After a failure the states are polled again.
        let Ok(states) = self.commands.query::<Vec<Option<Vec<u8>>>>(&get).await else { return };
        for (asked, state) in asked.iter().zip(states) {
            let Some(state) = state else { continue };
            match state::read(&state) {
                Ok(State { end: None, .. }) => {}
                Ok(State { end: Some(end), exception, promised }) => {
                    self.task_ended(asked, end, exception.as_deref(), &promised);
                }
                Err(why) => {
                    if self.lock().remove(&asked.waiter).is_some() {
                        telemetry::celery::result_unreadable(&asked.task, why);
                    }
                }
            }
        }
    }

    /// Completes the waiter if nothing else is awaited for it.
    fn task_ended(
        &self,
        asked: &Asked,
        end: TaskEnd,
        exception: Option<&str>,
        promised: &[String],
    ) {
        let mut waiting = self.lock();
        let Some(waiter) = waiting.get_mut(&asked.waiter) else { return };
        if !promised.is_empty() {
            let is_awaited = promised.len() <= waiter.promises_left;
            telemetry::celery::task_promised(&asked.task, promised.len(), is_awaited);
            if is_awaited {
                waiter.promises_left -= promised.len();
                waiter.tasks.extend(promised.iter().map(|task| task.as_str().into()));
            }
        }
        waiter.tasks.retain(|task| *task != asked.task);
        if end == TaskEnd::Succeeded && !waiter.tasks.is_empty() {
            return;
        }
        if let Some(waiter) = waiting.remove(&asked.waiter) {
            telemetry::celery::task_ended(end, &asked.waiter, exception);
            // The waiter may have been dropped.
            let _ = waiter.sender.send(end);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Waiter>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task whose state is polled, and the task whose waiter it is polled for.
struct Asked {
    waiter: Box<str>,
    task: Box<str>,
}

impl Asked {
    fn of(id: &str, waiter: &Waiter) -> Vec<Self> {
        waiter.tasks.iter().map(|task| Self { waiter: id.into(), task: task.clone() }).collect()
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

#[cfg(test)]
mod tests;
