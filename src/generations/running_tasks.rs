//! The generations that this node runs or monitors, by their channel and task.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::tracker::TrackedActivity;
use crate::protocol::{ChannelName, ConnectionId, UserId};

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
pub struct RunningTasks(Arc<Mutex<HashMap<Task, Running>>>);

/// One generation in progress.
#[derive(Clone)]
struct Running {
    canceller: CancellationToken,
    activity: Arc<GenerationActivity>,
}

/// What a generation is a reply to.
#[derive(Debug, Clone)]
pub struct GenerationOrigin {
    /// The path pattern of the route, and its upstream.
    pub route: Box<str>,
    pub upstream: Box<str>,
    /// The connection that asked; `None` if another node relayed its message.
    pub connection: Option<ConnectionId>,
    /// `None` for an anonymous client, or if another node relayed its message.
    pub user: Option<UserId>,
    /// Whether the upstream streams the reply in its answer. Otherwise a worker publishes it.
    pub streams: bool,
    pub began: Instant,
}

/// A generation as it is explained: its origin, and when its last event came.
pub struct GenerationActivity {
    pub origin: GenerationOrigin,
    /// Milliseconds from `began` to the last event of a streamed reply, plus one; 0 = there was none.
    last_event_ms: AtomicU64,
    /// The reply of a worker, which the tracker follows.
    tracked: OnceLock<TrackedActivity>,
}

/// A generation is registered until this is dropped.
pub struct TaskGuard {
    running: RunningTasks,
    task: Task,
    cancelled: CancellationToken,
    activity: Arc<GenerationActivity>,
}

impl GenerationActivity {
    fn new(origin: GenerationOrigin) -> Self {
        Self { origin, last_event_ms: AtomicU64::new(0), tracked: OnceLock::new() }
    }

    /// When the last event of its content came; `None` if there was none.
    pub fn last_event_at(&self) -> Option<Instant> {
        if let Some(tracked) = self.tracked.get() {
            return tracked.last_event_at();
        }
        match self.last_event_ms.load(Ordering::Relaxed) {
            0 => None,
            ms => Some(self.origin.began + Duration::from_millis(ms - 1)),
        }
    }
}

impl RunningTasks {
    /// Registers a generation. `None` if one of the same channel and task is registered already.
    pub fn register(&self, task: Task, origin: GenerationOrigin) -> Option<TaskGuard> {
        let mut tasks = self.lock();
        if tasks.contains_key(&task) {
            return None;
        }
        let cancelled = CancellationToken::new();
        let activity = Arc::new(GenerationActivity::new(origin));
        let (canceller, shared) = (cancelled.clone(), Arc::clone(&activity));
        tasks.insert(task.clone(), Running { canceller, activity: shared });
        drop(tasks);
        Some(TaskGuard { running: self.clone(), task, cancelled, activity })
    }

    /// Asks a generation to end. Returns false if it is not registered on this node.
    pub fn cancel(&self, task: &Task) -> bool {
        let found = self.lock().get(task).cloned();
        found.inspect(|running| running.canceller.cancel()).is_some()
    }

    /// The generations for which `is_wanted` returns true.
    pub fn find(
        &self,
        is_wanted: impl Fn(&Task, &GenerationOrigin) -> bool,
    ) -> Vec<(Task, Arc<GenerationActivity>)> {
        let tasks = self.lock();
        let found =
            tasks.iter().filter(|(task, running)| is_wanted(task, &running.activity.origin));
        found.map(|(task, running)| (task.clone(), Arc::clone(&running.activity))).collect()
    }

    /// Does nothing if the generation was removed before, even if another with the same task is registered since.
    fn remove(&self, guard: &TaskGuard) {
        let mut tasks = self.lock();
        if tasks.get(&guard.task).is_some_and(|one| one.canceller == guard.cancelled) {
            tasks.remove(&guard.task);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Task, Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TaskGuard {
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// Notes an event of a streamed reply's content.
    pub fn record_event(&self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.activity.origin.began).as_millis();
        let ms = u64::try_from(elapsed).unwrap_or(u64::MAX).saturating_add(1);
        self.activity.last_event_ms.store(ms, Ordering::Relaxed);
    }

    /// The reply is a worker's, whose events are noted there.
    pub fn follow(&self, reply: TrackedActivity) {
        // Only the first call has an effect: a generation has one reply.
        let _ = self.activity.tracked.set(reply);
    }

    /// Completes when the generation is to end: by [`RunningTasks::cancel`] or its [`TaskGuard::canceller`].
    pub async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.is_cancelled()
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
