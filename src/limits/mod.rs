//! Rates and counts: token buckets, fixed windows and leases of connections and generations, shared by all
//! nodes where the engine is Redis, and local buckets for one connection.
//!
//! This module decides whether one more is allowed, and when it will be. What a refusal means (an error event,
//! a close code) is left to its users. Invariants: both engines decide alike; open connections and running
//! generations are counted by leases that expire, so that those of a node that dies do not stay.

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
pub use status::{LimitKind, LimitStatus, UserLimit};

pub use crate::telemetry::messages::LimitName;

use std::time::Duration;

/// The decision of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// Not now; `retry_after` says when one more would be allowed.
    Refused {
        retry_after: Duration,
    },
}

/// The least time after which a client without a lease is told to retry.
const LEAST_WAIT: Duration = Duration::from_secs(1);
