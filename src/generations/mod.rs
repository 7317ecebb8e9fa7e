//! Messages that are relayed once, and replies that always end.
//!
//! This module knows which messages of a sender have been relayed, which generations this node runs or
//! monitors, and which have ended. It relays and publishes nothing and writes to no socket; `replies` asks it
//! before a message is relayed, and reports what became of it. Invariants: however often and on however many
//! nodes one message is sent, it is relayed by one at a time, and no more once an upstream has taken it, within
//! the route's `dedup_ttl`; of a generation's terminal events this node delivers the first; every entry
//! expires, so a node that dies blocks nothing for long.

mod dedup;
mod event;
mod ledger;
mod recent_ends;
mod running_tasks;
mod tracker;

pub use dedup::{Claim, ClaimRequest, DedupError, DedupOutcome, Deduplicator, IdScope, MessageKey};
pub use ledger::{CLAIM_INTERVAL, Claimed, Entry, GenerationRecord, Ledger, PostRecord};
pub use running_tasks::{GenerationOrigin, RunningTasks, Task, TaskGuard};
pub use tracker::{Disposition, Observed, PendingReply, TrackOutcome, TrackedReply, Tracker};

use crate::config::SharedConfig;
use crate::redis_link::Commands;

/// Shared by all threads of a node. Cheap to clone.
#[derive(Clone)]
pub struct Generations {
    pub dedup: Deduplicator,
    pub running: RunningTasks,
    pub tracker: Tracker,
    pub ledger: Ledger,
}

impl Generations {
    /// For the memory engine, with one node.
    pub fn memory(running: RunningTasks, config: SharedConfig) -> Self {
        let tracker = Tracker::new(config, true);
        Self { dedup: Deduplicator::memory(), running, tracker, ledger: Ledger::memory() }
    }

    /// For the Redis engine, with any number of nodes. `key_prefix` is `[engine.redis] key_prefix`.
    pub fn redis(
        running: RunningTasks,
        commands: &Commands,
        key_prefix: &str,
        config: SharedConfig,
    ) -> Self {
        let tracker = Tracker::new(config, false);
        let dedup = Deduplicator::redis(commands.clone(), key_prefix);
        let ledger = Ledger::redis(commands.clone(), key_prefix, &running);
        Self { dedup, running, tracker, ledger }
    }
}
