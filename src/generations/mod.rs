//! Messages that are relayed dedup, and replies that always end.
//!
//! This module knows which of a sender's messages have been relayed, which generations this node runs
//! or tracks, and which have ended. It relays and publishes nothing and writes to no socket; the session
//! asks before it relays, and tells how it went. Invariants: of any number of sends of one message, on
//! all nodes, one is relayed at a time and none after one was taken, within the route's `dedup_ttl`; of
//! a generation's terminal events this node delivers the first; nothing here outlives its time, so a
//! node that dies blocks nothing for long.

mod dedup;
mod ended;
mod event;
mod ledger;
mod running;
mod tracker;

pub use dedup::{Claim, DedupError, DedupOutcome, Deduplicator, IdScope, MessageKey};
pub use ledger::{CLAIM_INTERVAL, Claimed, Entry, Facts, Ledger};
pub use running::{Run, Running, Task};
pub use tracker::{Begun, Expected, Heard, Tracked, Tracker};

use crate::config::SharedConfig;
use crate::redis_link::Commands;

/// What all threads of a node share of it. Cheap to clone.
#[derive(Clone)]
pub struct Generations {
    pub dedup: Deduplicator,
    pub running: Running,
    pub tracker: Tracker,
    pub ledger: Ledger,
}

impl Generations {
    /// Alone on the memory engine.
    pub fn memory(running: Running, config: SharedConfig) -> Self {
        let tracker = Tracker::new(config, true);
        Self { dedup: Deduplicator::memory(), running, tracker, ledger: Ledger::memory() }
    }

    /// With other nodes on Redis. `key_prefix` is `[engine.redis] key_prefix`.
    pub fn redis(
        running: Running,
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
