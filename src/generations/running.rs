//! The generations that this node answers for, by their channel and task.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::protocol::ChannelName;

/// One generation: task ids are told apart only within a channel, since an upstream may choose its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Task {
    pub channel: ChannelName,
    /// At most a few hundred bytes.
    pub id: Box<str>,
}

/// Shared by all threads of the node, so that a client can stop what another thread runs. Cheap to
/// clone; holds as many entries as generations run.
#[derive(Clone, Default)]
pub struct Running(Arc<Mutex<HashMap<Task, CancellationToken>>>);

/// A generation that runs; its entry goes with it.
pub struct Run {
    running: Running,
    task: Task,
    cancelled: CancellationToken,
}

impl Running {
    /// `None` = a generation of the same channel and task runs already.
    pub fn begin(&self, task: Task) -> Option<Run> {
        let mut tasks = self.lock();
        if tasks.contains_key(&task) {
            return None;
        }
        let cancelled = CancellationToken::new();
        tasks.insert(task.clone(), cancelled.clone());
        drop(tasks);
        Some(Run { running: self.clone(), task, cancelled })
    }

    /// Asks a generation to end; false = none such runs here.
    pub fn cancel(&self, task: &Task) -> bool {
        let found = self.lock().get(task).cloned();
        found.inspect(CancellationToken::cancel).is_some()
    }

    /// Nothing happens where it was removed before, even if another took its place.
    fn remove(&self, run: &Run) {
        let mut tasks = self.lock();
        if tasks.get(&run.task).is_some_and(|token| *token == run.cancelled) {
            tasks.remove(&run.task);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Task, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// Completes when it is to end: [`Running::cancel`] was called, or its [`Run::canceller`].
    pub async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// Its terminal event is decided: from now on no such generation runs. May be called again.
    pub fn end(&self) {
        self.running.remove(self);
    }

    /// Cancels it when told to.
    pub fn canceller(&self) -> CancellationToken {
        self.cancelled.clone()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(channel: &str, id: &str) -> Task {
        Task { channel: ChannelName::new(channel).unwrap(), id: id.into() }
    }

    #[tokio::test]
    async fn a_generation_is_cancelled_by_channel_and_task() {
        let running = Running::default();
        let one = running.begin(task("a", "1")).unwrap();
        assert!(running.begin(task("a", "1")).is_none());
        let _other = running.begin(task("b", "1")).unwrap();
        assert!(!running.cancel(&task("a", "2")) && !running.cancel(&task("c", "1")));
        assert!(running.cancel(&task("a", "1")));
        one.cancelled().await;
        drop(one);
        assert!(!running.cancel(&task("a", "1")), "it has ended");
        let early = running.begin(task("a", "1")).unwrap();
        early.end();
        let next = running.begin(task("a", "1")).unwrap();
        drop(early);
        assert!(running.cancel(&task("a", "1")), "its successor stays");
        drop(next);
        assert!(running.cancel(&task("b", "1")));
    }
}
