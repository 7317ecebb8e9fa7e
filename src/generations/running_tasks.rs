//! The generations that this node runs or monitors, by their channel and task.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::protocol::ChannelName;

/// Names one generation. A task id is unique only within its channel, since an upstream may choose it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Task {
    pub channel: ChannelName,
    /// The task id, of at most a few hundred bytes.
    pub id: Box<str>,
}

/// Shared by all threads of the node, so that a client can cancel a generation of another thread. Cheap to
/// clone. Holds one entry for each generation in progress.
#[derive(Clone, Default)]
pub struct RunningTasks(Arc<Mutex<HashMap<Task, CancellationToken>>>);

/// A generation is registered until this is dropped.
pub struct TaskGuard {
    running: RunningTasks,
    task: Task,
    cancelled: CancellationToken,
}

impl RunningTasks {
    /// Registers a generation. `None` if one of the same channel and task is registered already.
    pub fn register(&self, task: Task) -> Option<TaskGuard> {
        let mut tasks = self.lock();
        if tasks.contains_key(&task) {
            return None;
        }
        let cancelled = CancellationToken::new();
        tasks.insert(task.clone(), cancelled.clone());
        drop(tasks);
        Some(TaskGuard { running: self.clone(), task, cancelled })
    }

    /// Asks a generation to end. Returns false if it is not registered on this node.
    pub fn cancel(&self, task: &Task) -> bool {
        let found = self.lock().get(task).cloned();
        found.inspect(CancellationToken::cancel).is_some()
    }

    /// Does nothing if the generation was removed before, even if another with the same task is registered since.
    fn remove(&self, guard: &TaskGuard) {
        let mut tasks = self.lock();
        if tasks.get(&guard.task).is_some_and(|token| *token == guard.cancelled) {
            tasks.remove(&guard.task);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Task, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TaskGuard {
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// Completes when the generation is to end: by [`RunningTasks::cancel`] or its [`TaskGuard::canceller`].
    pub async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// Removes the generation, when its terminal event is decided. May be called again.
    pub fn remove(&self) {
        self.running.remove(self);
    }

    /// A handle by which the generation can be cancelled.
    pub fn canceller(&self) -> CancellationToken {
        self.cancelled.clone()
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests;
