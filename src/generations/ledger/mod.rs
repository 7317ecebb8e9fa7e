//! Which node is responsible for which generation, so that another one can continue it when that node dies.
//!
//! A node enters its generations and renews them all the time; what is not renewed is claimed by another
//! node, in one step. A node that finds one of its own claimed gives it up. On the memory engine there is no
//! other node, and the ledger keeps nothing.

mod lessor;
mod redis;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{RunningTasks, Task};
use crate::leases::HeldLeases;
use crate::protocol::{ConnectionId, Params, UserId};
use crate::redis_link::{Commands, EngineUnavailable};
use crate::telemetry;
use lessor::GenerationLessor;
use redis::RedisLedger;

/// How long a generation belongs to its node without renewal: how soon a node's death is noticed.
const LEASE: Duration = Duration::from_secs(10);
/// How often it is worth looking for generations that no node is responsible for.
pub const CLAIM_INTERVAL: Duration = Duration::from_secs(2);

/// Shared by all threads of the node. Cheap to clone. `None` on the memory engine.
#[derive(Clone)]
pub struct Ledger(Option<Arc<HeldLeases<GenerationLessor>>>);

/// What another node needs to know to continue a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationRecord {
    /// The path pattern of its route.
    pub route: String,
    /// Whether the node that relayed it streams its reply: no other node can continue it then.
    pub streams: bool,
    /// When it no longer counts as running, in milliseconds since 1970.
    pub ends_ms: u64,
    /// The user whose limit of running generations it counts against, and the lease by which it does.
    #[serde(rename = "place", default, skip_serializing_if = "Option::is_none")]
    pub user_lease: Option<(String, String)>,
    /// The holder of the channel's turn, if the reply has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<String>,
    /// What is posted of the reply when it has ended, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post: Option<Box<PostRecord>>,
}

/// Which message a reply belongs to, for the one that gets all of the reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostRecord {
    pub upstream: String,
    pub message_id: String,
    pub user_id: Option<UserId>,
    pub username: Option<Box<str>>,
    pub params: Params,
    pub connection_id: ConnectionId,
    pub request_id: String,
    /// In milliseconds since 1970.
    pub received_ms: u64,
}

impl GenerationRecord {
    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers serialize")
    }

    fn from_json(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }
}

/// A generation that this node has claimed.
#[derive(Debug)]
pub struct Claimed {
    pub task: Task,
    pub record: GenerationRecord,
    /// Whether its cancellation was requested.
    pub cancelled: bool,
}

/// What the engine is to know when a node's responsibility ends.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Release {
    /// The generation has ended.
    Ended,
    /// It was claimed and reported as lost, which the node that lost it can learn.
    Lost,
    /// Any other node may claim it at once.
    Free(GenerationRecord),
}

/// A generation of this node.
struct Held {
    record: GenerationRecord,
    /// Cancelled when another node has claimed it.
    taken: CancellationToken,
    /// Whether the engine knows the generation.
    is_entered: AtomicBool,
}

impl From<Arc<Held>> for Release {
    fn from(_: Arc<Held>) -> Self {
        Self::Ended
    }
}

impl Ledger {
    /// A ledger that keeps nothing.
    pub fn memory() -> Self {
        Self(None)
    }

    /// [`Ledger::run`] does the work. Generations whose cancellation is requested are cancelled in `running`.
    pub fn redis(commands: Commands, key_prefix: &str, running: &RunningTasks) -> Self {
        let redis = RedisLedger::new(commands, key_prefix);
        let lessor = GenerationLessor::new(redis, running.clone());
        Self(Some(Arc::new(HeldLeases::new(lessor))))
    }

    /// Enters a generation that begins on this node. Its record is not made on the memory engine, where nobody reads it.
    pub fn enter(&self, task: &Task, record: impl FnOnce() -> GenerationRecord) -> Entry {
        let taken = CancellationToken::new();
        if let Some(held) = &self.0 {
            let record = record();
            let lease = Held { record, taken: taken.clone(), is_entered: AtomicBool::new(false) };
            held.take(task.clone(), Arc::new(lease));
        }
        Entry { ledger: self.clone(), task: task.clone(), taken }
    }

    /// Continues a generation that this node has claimed.
    pub fn resume(&self, claimed: &Claimed) -> Entry {
        let taken = CancellationToken::new();
        if let Some(held) = &self.0 {
            let record = claimed.record.clone();
            let lease = Held { record, taken: taken.clone(), is_entered: AtomicBool::new(true) };
            held.keep(claimed.task.clone(), Arc::new(lease));
        }
        Entry { ledger: self.clone(), task: claimed.task.clone(), taken }
    }

    /// Claims generations that no node is responsible for any more. None where the engine is unavailable, and only
    /// those that were handed over where it has only just come back.
    pub async fn claim(&self) -> Vec<Claimed> {
        let Some(held) = &self.0 else { return Vec::new() };
        let claimed = held.lessor().claim().await;
        telemetry::replies::generations_taken_over(claimed.len());
        claimed
    }

    /// Reports a claimed generation as lost; its node learns that, should it live.
    pub fn mark_lost(&self, task: &Task) {
        self.release_as(task, Release::Lost);
    }

    /// Ends this node's responsibility for a claimed generation.
    pub fn release(&self, task: &Task) {
        self.release_as(task, Release::Ended);
    }

    fn release_as(&self, task: &Task, release: Release) {
        if let Some(held) = &self.0 {
            held.release(task, release);
        }
    }

    /// Requests the cancellation of a generation by whichever node is responsible for it, at its next
    /// renewal at the latest. Returns false if no node is. `ttl` is how long its worker may continue.
    pub async fn request_cancel(
        &self,
        task: &Task,
        ttl: Duration,
    ) -> Result<bool, EngineUnavailable> {
        match &self.0 {
            None => Ok(false),
            Some(held) => held.lessor().redis().request_cancel(task, ttl).await,
        }
    }

    /// Tells the worker of a cancelled generation.
    pub async fn notify_worker(&self, task: &Task, ttl: Duration) -> Result<(), EngineUnavailable> {
        match &self.0 {
            None => Ok(()),
            Some(held) => held.lessor().redis().notify_worker(task, ttl).await,
        }
    }

    /// Keeps the engine informed, for as long as the process lives.
    pub async fn run(self) {
        if let Some(held) = self.0 {
            held.run().await;
        }
    }

    /// Tells the engine about all beginnings and ends so far, if it is available.
    pub async fn flush(&self) {
        if let Some(held) = &self.0 {
            // In a box, so that it takes no room in a message on the memory engine. What failed is tried again by `run`.
            let _ = Box::pin(held.flush()).await;
        }
    }
}

/// A generation that this node is responsible for. Dropped = it has ended.
pub struct Entry {
    ledger: Ledger,
    task: Task,
    taken: CancellationToken,
}

impl Entry {
    /// Completes when another node has claimed the generation, believing that this one is dead.
    pub async fn taken(&self) {
        self.taken.cancelled().await;
    }

    /// Whether another node has claimed the generation.
    pub fn is_taken(&self) -> bool {
        self.taken.is_cancelled()
    }

    /// Ends the generation. Returns when no other node can claim it any more, unless the engine is not available.
    pub async fn end(self) {
        let ledger = self.ledger.clone();
        drop(self);
        ledger.flush().await;
    }

    /// Lets any other node claim the generation at once.
    pub fn hand_over(self) {
        if let Some(held) = &self.ledger.0 {
            held.give_back_as(&self.task, |lease| Release::Free(lease.record.clone()));
        }
        self.defuse();
    }

    /// Stops renewing the generation, so that whichever node can claims it when its lease expires.
    pub fn abandon(self) {
        if let Some(held) = &self.ledger.0 {
            held.forget(&self.task);
        }
        self.defuse();
    }

    /// Keeps the drop from ending the generation.
    fn defuse(mut self) {
        self.ledger = Ledger::memory();
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.taken.is_cancelled() {
            self.ledger.release(&self.task);
        }
    }
}
