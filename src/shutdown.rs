//! Stopping as a value that is passed down: first drain, then a deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Cloned into everything that lives as long as the process.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    kill: CancellationToken,
    tasks: TaskTracker,
    cut: Arc<AtomicBool>,
}

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }

    /// Stop accepting, close what is open in good order.
    pub fn begin(&self) {
        self.drain.cancel();
        self.tasks.close();
    }

    /// Cut what is left.
    pub fn force(&self) {
        self.begin();
        self.kill.cancel();
    }

    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Completes when draining begins.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Completes when everything left must end now.
    pub async fn killed(&self) {
        self.kill.cancelled().await;
    }

    /// Work that the deadline was too short for ended itself before it; the drain counts as cut.
    pub fn cut_short(&self) {
        self.cut.store(true, Ordering::Release);
    }

    /// Held by work that a drain waits for.
    pub fn track(&self) -> TaskTrackerToken {
        self.tasks.token()
    }

    /// Whether all tracked work ended by itself within `deadline`, counted from now. Only after [`Shutdown::begin`].
    pub async fn wait(&self, deadline: Duration) -> bool {
        let ended = tokio::time::timeout(deadline, self.tasks.wait()).await.is_ok();
        ended && !self.cut.load(Ordering::Acquire)
    }
}
