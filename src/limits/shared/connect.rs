//! The two limits of users that a connect meets, decided in one step.

use std::time::Duration;

use super::{Engine, SharedLimits, record, with_min_retry_after};
use crate::config::UserRate;
use crate::limits::{Holder, LeaseKey, LimitName, Verdict};
use crate::protocol::Params;
use crate::redis_link::EngineUnavailable;

/// The decision about a connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectVerdict {
    /// It is counted, and has its lease.
    Allowed,
    /// `connects_per_user` refuses it.
    TooOften { retry_after: Duration },
    /// It is counted, but `connections_per_user` refuses it.
    TooMany { retry_after: Duration },
}

impl SharedLimits {
    /// Counts a connect against `rate` like [`SharedLimits::take`], and if that allows it, grants `holder` one of `max`
    /// leases like [`SharedLimits::acquire`]. On Redis both take one round trip.
    pub async fn connect(
        &self,
        params: &Params,
        rate: &UserRate,
        key: LeaseKey<'_>,
        holder: Holder,
        max: u32,
    ) -> Result<ConnectVerdict, EngineUnavailable> {
        let limit = LimitName::Connects;
        let LeaseKey { kind, route, user } = key;
        let (connect, lease) = match &self.0.engine {
            Engine::Memory(_) => {
                if let Verdict::Refused { retry_after } =
                    self.take(limit, route, params, user, rate).await?
                {
                    return Ok(ConnectVerdict::TooOften { retry_after });
                }
                (Verdict::Allowed, self.acquire(key, holder, max).await?)
            }
            Engine::Redis(limits) => {
                let counter = self.counter_key(limit, route, params, user, rate);
                let lease = self.lease_key(key);
                let decided = limits.connect(&counter, rate, &lease, holder, max).await;
                let connect = decided.map(|(connect, _)| connect);
                let connect = record(limit, route, user, connect)?;
                let lease = decided.map(|(_, lease)| with_min_retry_after(lease));
                (connect, record(kind.limit(), route, user, lease)?)
            }
        };
        Ok(match (connect, lease) {
            (Verdict::Refused { retry_after }, _) => ConnectVerdict::TooOften { retry_after },
            (_, Verdict::Refused { retry_after }) => ConnectVerdict::TooMany { retry_after },
            (Verdict::Allowed, Verdict::Allowed) => ConnectVerdict::Allowed,
        })
    }
}
