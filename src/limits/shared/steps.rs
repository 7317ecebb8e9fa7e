//! Limits as steps of a chain: they are checked in the round trip in which a message is claimed, for example.

use std::time::Duration;

use redis::FromRedisValue;

use super::{Engine, SharedLimits, USAGE, record, with_min_retry_after};
use crate::config::{FixedWindow, UserRate};
use crate::limits::bucket::Gcra;
use crate::limits::demand::Demand;
use crate::limits::redis::{RedisLimits, verdict};
use crate::limits::{Holder, LeaseKey, LimitName, Verdict};
use crate::protocol::{Params, TemplateContext};
use crate::redis_link::{Commands, EngineUnavailable, Step, StepAnswer};

/// What the answer to a step means.
pub struct LimitCheck<'a> {
    limit: LimitName,
    route: &'a str,
    user: &'a str,
    unit: Unit,
}

/// In what the script answers when more will be allowed.
#[derive(Clone, Copy)]
enum Unit {
    Microseconds,
    Milliseconds,
    /// Milliseconds until a lease expires, of which a client is told at least a second.
    OfLease,
}

impl<'a> LimitCheck<'a> {
    /// The same for a user who was not known when the step was made.
    pub fn of_user(self, user: &'a str) -> Self {
        Self { user, ..self }
    }

    /// Returns what [`SharedLimits::take`], `check_usage` or `acquire` would have returned, and records it like these.
    pub fn read(self, answer: StepAnswer) -> Result<Verdict, EngineUnavailable> {
        let answer = answer.and_then(|answer| <(bool, u64)>::from_redis_value(answer).ok());
        let read = answer.ok_or(EngineUnavailable).map(|(allowed, wait)| match self.unit {
            Unit::Microseconds => verdict(allowed, Duration::from_micros(wait)),
            Unit::Milliseconds => verdict(allowed, Duration::from_millis(wait)),
            Unit::OfLease => with_min_retry_after(verdict(allowed, Duration::from_millis(wait))),
        });
        record(self.limit, self.route, self.user, read)
    }
}

impl SharedLimits {
    /// The connection on which these steps run; `None` on the memory engine.
    pub fn commands(&self) -> Option<&Commands> {
        match &self.0.engine {
            Engine::Memory(_) => None,
            Engine::Redis(redis) => Some(redis.commands()),
        }
    }

    /// [`SharedLimits::take`] as a step.
    pub fn take_step<'a>(
        &self,
        limit: LimitName,
        route: &'a str,
        params: &Params,
        user: &'a str,
        rate: &UserRate,
    ) -> (Step, LimitCheck<'a>) {
        self.demand_step(Demand::ACTION, limit, route, params, user, rate)
    }

    /// [`SharedLimits::check_usage`] as a step.
    pub fn usage_step<'a>(
        &self,
        route: &'a str,
        params: &Params,
        user: &'a str,
        rate: &UserRate,
    ) -> (Step, LimitCheck<'a>) {
        self.demand_step(Demand::CHECK, USAGE, route, params, user, rate)
    }

    /// [`SharedLimits::acquire`] as a step.
    pub fn acquire_step<'a>(
        &self,
        key: LeaseKey<'a>,
        holder: Holder,
        max: u32,
    ) -> (Step, LimitCheck<'a>) {
        let LeaseKey { kind, route, user } = key;
        let step = RedisLimits::acquire_step(&self.lease_key(key), holder, max);
        (step, LimitCheck { limit: kind.limit(), route, user, unit: Unit::OfLease })
    }

    fn demand_step<'a>(
        &self,
        demand: Demand,
        limit: LimitName,
        route: &'a str,
        params: &Params,
        user: &'a str,
        rate: &UserRate,
    ) -> (Step, LimitCheck<'a>) {
        let (step, unit) = match rate {
            UserRate::Bucket(rate) => {
                let key = self.own_key("limit", limit, route, user);
                (RedisLimits::take_step(&key, Gcra::from(*rate), demand), Unit::Microseconds)
            }
            UserRate::Window(window @ FixedWindow { count, per, .. }) => {
                let key = self.window_key(window, limit, route, params, user);
                (RedisLimits::hit_step(&key, *count, *per, demand), Unit::Milliseconds)
            }
        };
        (step, LimitCheck { limit, route, user, unit })
    }

    /// The key of a user's window, which other applications may share.
    pub(super) fn window_key(
        &self,
        window: &FixedWindow,
        limit: LimitName,
        route: &str,
        params: &Params,
        user: &str,
    ) -> String {
        match &window.key {
            Some(key) => key.fill(TemplateContext { params, user_id: &user, channel: None }),
            None => self.own_key("window", limit, route, user),
        }
    }
}
