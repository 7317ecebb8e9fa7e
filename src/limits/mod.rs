//! Rates and counts: token buckets, fixed windows, leases of connections and generations, and the turns of channels,
//! shared by all nodes where the engine is Redis, and local ones of a connection and of a client address.
//!
//! This module decides whether one more action is allowed, and if not, when it will be. Its users decide what a
//! refusal means (an error event, a close code). Invariants: both engines decide in the same way; open connections
//! and running generations are counted by leases that expire, so that those of a dead node do not remain.

mod address_limits;
mod bucket;
mod claim;
mod client_memory;
mod connections;
mod demand;
mod late_charges;
mod lease_key;
mod leases;
mod memory;
mod memory_budget;
mod network_rates;
mod new_channels;
mod redis;
mod refusals;
mod shared;
mod status;
mod turns;
mod window;

pub use address_limits::AddressLimits;
pub use bucket::LocalBucket;
pub use claim::Claim;
pub use client_memory::HeldByClient;
pub use connections::{ConnectionCounts, ConnectionPermit, IpPermit};
pub use lease_key::{Holder, LeaseKey, LeaseKind};
pub use leases::{Lease, LeaseSet};
pub use memory_budget::{HeldMemory, MemoryBudget, SMALLEST_CLOSED, ThreadBudget};
pub use network_rates::NetworkRates;
pub use new_channels::NewChannels;
pub use refusals::{RefusalDelay, RefusalDelays};
pub use shared::{ConnectVerdict, LimitCheck, SharedLimits};
pub use status::{LimitKind, LimitStatus, UserLimit};
pub use turns::{Turn, TurnRequest};

pub use crate::telemetry::messages::{LimitName, LocalLimit};

use std::time::Duration;

/// The decision of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// One more would be allowed after `retry_after`.
    Refused {
        retry_after: Duration,
    },
}

/// The shortest `retry_after` of a refused lease.
const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);
