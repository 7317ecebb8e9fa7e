//! The status of a user's limits. Reading it does not count as an action.

use std::time::Duration;

use super::{LeaseKind, LimitName};
use crate::config::{FixedWindow, RouteLimits, UserRate};
use crate::protocol::{Params, label_enum};

/// The status of one limit of one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitStatus {
    pub max: u64,
    pub used: u64,
    /// The time until one more action is allowed; zero if it is allowed now.
    pub retry_after: Duration,
    /// The time until `used` is 0 if there are no further actions. For leases, the time until all have expired if
    /// they are not renewed.
    pub reset_after: Duration,
}

impl LimitStatus {
    pub(super) fn of_count(
        max: u64,
        used: u64,
        retry_after: Duration,
        reset_after: Duration,
    ) -> Self {
        let retry_after = if used < max { Duration::ZERO } else { retry_after };
        Self { max, used, retry_after, reset_after }
    }
}

label_enum! {
    /// How a limit counts.
    pub enum LimitKind {
        Bucket => "bucket",
        Window => "window",
        Leases => "leases",
    }
}

/// One limit of a route that counts by user.
#[derive(Debug, Clone, Copy)]
pub enum UserLimit<'a> {
    Rate(LimitName, &'a UserRate),
    Leases(LeaseKind, u32),
}

impl<'a> UserLimit<'a> {
    /// All limits that are set.
    pub fn of(limits: &'a RouteLimits) -> Vec<Self> {
        let rate = |name, rate: &'a Option<UserRate>| {
            rate.as_ref().map(|rate| UserLimit::Rate(name, rate))
        };
        let leases = |kind, max: Option<u32>| max.map(|max| UserLimit::Leases(kind, max));
        [
            rate(LimitName::Messages, &limits.messages_per_user),
            rate(LimitName::Usage, &limits.usage_per_user),
            rate(LimitName::Connects, &limits.connects_per_user),
            leases(LeaseKind::Connection, limits.connections_per_user),
            leases(LeaseKind::Generation, limits.generations_per_user),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    pub fn name(&self) -> LimitName {
        match self {
            Self::Rate(name, _) => *name,
            Self::Leases(kind, _) => kind.limit(),
        }
    }

    /// The names of the path parameters by which it is counted.
    pub fn params(&self) -> impl Iterator<Item = &'a str> {
        let key = match self {
            Self::Rate(_, UserRate::Window(FixedWindow { key, .. })) => key.as_ref(),
            _ => None,
        };
        key.into_iter().flat_map(|key| key.names()).filter(|name| *name != "user_id")
    }

    /// The path parameters by which the limits of a route are counted.
    pub fn params_of(limits: &RouteLimits, params: &Params) -> Params {
        let names: Vec<_> = UserLimit::of(limits).iter().flat_map(UserLimit::params).collect();
        params.only(|name| names.contains(&name))
    }

    pub fn kind(&self) -> LimitKind {
        match self {
            Self::Rate(_, UserRate::Bucket(_)) => LimitKind::Bucket,
            Self::Rate(_, UserRate::Window(_)) => LimitKind::Window,
            Self::Leases(..) => LimitKind::Leases,
        }
    }
}
