//! Keeps the generations of this node in the engine, and learns what other nodes did with them.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::redis::{RedisLedger, Renewed};
use super::{Claimed, Held, LEASE, Release};
use crate::generations::{RunningTasks, Task};
use crate::leases::{Lessor, Renewal};
use crate::redis_link::EngineUnavailable;
use crate::telemetry;

/// The engine's side of the ledger.
pub(super) struct GenerationLessor {
    redis: RedisLedger,
    running: RunningTasks,
    /// Since when the engine has answered every call; `None` after one that it did not.
    answering_since: Mutex<Option<Instant>>,
}

impl GenerationLessor {
    pub fn new(redis: RedisLedger, running: RunningTasks) -> Self {
        Self { redis, running, answering_since: Mutex::default() }
    }

    pub fn redis(&self) -> &RedisLedger {
        &self.redis
    }

    /// Until the engine has answered for longer than a lease, only what was handed over is claimed: after an outage
    /// all nodes need time to renew their own.
    pub async fn claim(&self) -> Vec<Claimed> {
        let is_trusted = self.answering_since().is_some_and(|since| since.elapsed() > LEASE);
        let claimed = self.redis.claim(!is_trusted).await;
        self.note(claimed).unwrap_or_default()
    }

    fn note<T>(&self, answer: Result<T, EngineUnavailable>) -> Result<T, EngineUnavailable> {
        let mut since = self.answering_since();
        *since = match answer {
            Ok(_) => since.or_else(|| Some(Instant::now())),
            Err(EngineUnavailable) => None,
        };
        answer
    }

    pub(super) fn answering_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.answering_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lessor for GenerationLessor {
    type Holder = Task;
    type Lease = Arc<Held>;
    type Release = Release;

    /// Two renewals may fail before the lease expires.
    const RENEWAL: Duration = Duration::from_secs(3);
    const RETRY: Duration = Duration::from_millis(500);
    const BATCH: usize = 250;

    async fn renew(
        &self,
        leases: &[(Task, Arc<Held>)],
    ) -> Result<Renewal<Task>, EngineUnavailable> {
        let Renewed { taken, cancelled, failed } = self.note(self.redis.enter(leases).await)?;
        for (task, lease) in leases {
            if failed.is_empty() || !failed.contains(task) {
                lease.is_entered.store(true, Ordering::Relaxed);
            }
        }
        for task in cancelled {
            self.running.cancel(&task);
        }
        for (task, lease) in leases.iter().filter(|(task, _)| taken.contains(task)) {
            telemetry::replies::generation_lost_to_another_node(&task.channel, &task.id);
            lease.taken.cancel();
        }
        Ok(Renewal { lost: taken, failed })
    }

    async fn release(&self, releases: &[(Task, Release)]) -> Result<Vec<Task>, EngineUnavailable> {
        self.note(self.redis.release(releases).await)
    }
}
