//! Shutdown as a value that is passed down: first a drain, then a deadline.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// The state of the shutdown. Every part that lives as long as the process holds a clone.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    kill: CancellationToken,
    tasks: TaskTracker,
    ended_early: Arc<AtomicBool>,
    failed: CancellationToken,
    /// The first part that failed.
    failed_part: Arc<OnceLock<&'static str>>,
}

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the drain: no connection is accepted any more, and open ones are closed in good order.
    pub fn begin(&self) {
        self.drain.cancel();
        self.tasks.close();
    }

    /// Ends everything that is left at once.
    pub fn force(&self) {
        self.begin();
        self.kill.cancel();
    }

    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Runs a part without which the process would only look alive. If it panics, the process is to end.
    pub fn essential<F: Future>(
        &self,
        part: &'static str,
        work: F,
    ) -> impl Future<Output = ()> + use<F> {
        let shutdown = self.clone();
        async move {
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                shutdown.fail(part);
            }
        }
    }

    /// Records that `part` has failed, so that the process must end.
    pub fn fail(&self, part: &'static str) {
        // Only the first failure is reported.
        let _ = self.failed_part.set(part);
        self.failed.cancel();
    }

    /// Completes when an essential part has failed, and returns its name.
    pub async fn failed(&self) -> &'static str {
        self.failed.cancelled().await;
        self.failed_part.get().copied().unwrap_or_default()
    }

    /// Completes when draining begins.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Completes when everything left must end now.
    pub async fn killed(&self) {
        self.kill.cancelled().await;
    }

    /// Records that work ended early because the deadline was near; the shutdown then counts as forced.
    pub fn record_early_end(&self) {
        self.ended_early.store(true, Ordering::Release);
    }

    /// A token for work that the drain waits for; dropping it ends the wait.
    pub fn track(&self) -> TaskTrackerToken {
        self.tasks.token()
    }

    /// Waits at most `deadline` for all tracked work; returns whether all of it ended by itself. Must be
    /// called after [`Shutdown::begin`].
    pub async fn wait(&self, deadline: Duration) -> bool {
        let ended = tokio::time::timeout(deadline, self.tasks.wait()).await.is_ok();
        ended && !self.ended_early.load(Ordering::Acquire)
    }
}
