//! Stopping as a value that is passed down: first drain, then a deadline.

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

    /// Held by work that a drain waits for.
    pub fn track(&self) -> TaskTrackerToken {
        self.tasks.token()
    }

    /// Whether all tracked work ended within `deadline`, counted from now. Only after [`Shutdown::begin`].
    pub async fn wait(&self, deadline: Duration) -> bool {
        tokio::time::timeout(deadline, self.tasks.wait()).await.is_ok()
    }
}
