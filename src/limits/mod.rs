//! Rates and counts: token buckets, fixed windows and leases of connections and generations, shared by all nodes where the engine is
//! Redis, and local buckets for one connection.
//!
//! This module answers "may one more?" and says when. What a refusal means (an error event, a close
//! code) is for those who ask. Invariants: both engines decide alike; a count of open connections
//! or running generations is made of leases that expire, so that a node that dies takes its own with it.

mod bucket;
mod claim;
mod connections;
mod lease_key;
mod leases;
mod memory;
mod redis;
mod shared;
mod status;
mod window;

pub use bucket::LocalBucket;
pub use claim::Claim;
pub use connections::{ConnectionCounts, ConnectionPermit, IpPermit};
pub use lease_key::{Holder, LeaseKey, Leased};
pub use leases::{Lease, LeaseSet};
pub use shared::SharedLimits;
pub use status::{LimitStatus, UserLimit};

pub use crate::telemetry::messages::LimitName;

use std::time::Duration;

/// The answer of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// Not now; `retry_after` says when one more would be allowed.
    Refused {
        retry_after: Duration,
    },
}

/// Who has no place is not told to come back sooner.
const LEAST_WAIT: Duration = Duration::from_secs(1);
