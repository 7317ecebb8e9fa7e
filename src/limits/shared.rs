//! The limits that connections share, on either engine.

mod connect;
mod steps;
mod turns;

pub use connect::ConnectVerdict;
pub use steps::LimitCheck;

use std::sync::Arc;
use std::time::Duration;

use super::bucket::Gcra;
use super::demand::Demand;
use super::late_charges::{Charge, LateCharges};
use super::memory::MemoryLimits;
use super::redis::{HeldLease, RedisLimits, UsedLimit};
use super::{Holder, LeaseKey, LimitName, LimitStatus, MIN_RETRY_AFTER, UserLimit, Verdict};
use crate::config::{Concurrent, FixedWindow, Rate, Route, Tokens, UserRate};
use crate::protocol::{Params, TemplateContext};
use crate::redis_link::{Commands, EngineUnavailable};
use crate::telemetry;

const USAGE: LimitName = LimitName::Usage;

/// The most tokens that one reply counts as. It keeps sums exact in Lua's numbers.
const MOST_TOKENS: u64 = 1_000_000_000_000;

/// Shared limits. Cheap to clone, from any thread.
#[derive(Clone)]
pub struct SharedLimits(Arc<Inner>);

struct Inner {
    prefix: Box<str>,
    engine: Engine,
    late: LateCharges,
}

enum Engine {
    Memory(MemoryLimits),
    Redis(RedisLimits),
}

impl SharedLimits {
    pub fn memory() -> Self {
        let engine = Engine::Memory(MemoryLimits::new());
        Self(Arc::new(Inner { prefix: "".into(), engine, late: LateCharges::default() }))
    }

    /// `key_prefix` is `[engine.redis] key_prefix`.
    pub fn redis(commands: Commands, key_prefix: &str) -> Self {
        let engine = Engine::Redis(RedisLimits::new(commands));
        let late = LateCharges::default();
        Self(Arc::new(Inner { prefix: key_prefix.into(), engine, late }))
    }

    /// Counts one action of `user` against `rate`, which is the `limit` of the route with the path pattern `route`.
    /// `params` are the parameters of the connection's path. A refusal is recorded in the metrics here.
    pub async fn take(
        &self,
        limit: LimitName,
        route: &str,
        params: &Params,
        user: &str,
        rate: &UserRate,
    ) -> Result<Verdict, EngineUnavailable> {
        let verdict = self.demand(Demand::ACTION, limit, route, params, user, rate).await;
        record(limit, route, user, verdict)
    }

    /// Whether `user` has some of `rate` left, which is `usage_per_user` of the route with the path pattern `route`.
    /// Nothing is counted. A refusal is recorded in the metrics here.
    pub async fn check_usage(
        &self,
        route: &str,
        params: &Params,
        user: &str,
        rate: &UserRate,
    ) -> Result<Verdict, EngineUnavailable> {
        let verdict = self.demand(Demand::CHECK, USAGE, route, params, user, rate).await;
        record(USAGE, route, user, verdict)
    }

    /// Counts what a reply to `user` took, even if less is left. If the engine is unavailable, it is tried again later.
    pub async fn charge_usage(
        &self,
        tokens: u64,
        route: &str,
        params: &Params,
        user: &str,
        rate: &UserRate,
    ) {
        let (route, user) = (route.into(), user.into());
        let charge = Charge { tokens, route, params: params.clone(), user, rate: rate.clone() };
        let charged = self.try_charge(&charge).await;
        // A charge is never refused.
        if record(USAGE, &charge.route, &charge.user, charged).is_err() {
            self.0.late.add(self, charge);
        }
    }

    pub(super) async fn try_charge(&self, charge: &Charge) -> Result<Verdict, EngineUnavailable> {
        let Charge { tokens, route, params, user, rate } = charge;
        let demand = Demand::charge((*tokens).min(MOST_TOKENS));
        self.demand(demand, USAGE, route, params, user, rate).await
    }

    async fn demand(
        &self,
        demand: Demand,
        limit: LimitName,
        route: &str,
        params: &Params,
        user: &str,
        rate: &UserRate,
    ) -> Result<Verdict, EngineUnavailable> {
        match rate {
            UserRate::Bucket(rate) => {
                let key = self.own_key("limit", limit, route, user);
                self.take_of_bucket(&key, *rate, demand).await
            }
            UserRate::Window(window @ FixedWindow { count, per, .. }) => {
                let key = self.window_key(window, limit, route, params, user);
                self.hit_window(&key, *count, *per, demand).await
            }
        }
    }

    /// The key of the bucket or the window that counts against `rate`.
    fn counter_key(
        &self,
        limit: LimitName,
        route: &str,
        params: &Params,
        user: &str,
        rate: &UserRate,
    ) -> String {
        match rate {
            UserRate::Bucket(_) => self.own_key("limit", limit, route, user),
            UserRate::Window(window) => self.window_key(window, limit, route, params, user),
        }
    }

    /// Takes one token from the bucket of `client`, a user or an address, for something that belongs to no route.
    pub async fn take_anywhere(
        &self,
        limit: LimitName,
        client: &str,
        rate: Option<Rate>,
    ) -> Result<Verdict, EngineUnavailable> {
        let Some(rate) = rate else { return Ok(Verdict::Allowed) };
        let key = self.own_key("limit", limit, "", client);
        record(limit, "", client, self.take_of_bucket(&key, rate, Demand::ACTION).await)
    }

    /// Declares the limits that `routes` and the token endpoint, if there is one, have. `is_administered` if the server
    /// API reads and resets them.
    pub fn declare_needs(
        &self,
        routes: &[Arc<Route>],
        tokens: Option<&Tokens>,
        is_administered: bool,
    ) {
        let Engine::Redis(redis) = &self.0.engine else { return };
        let (mut used, mut of_tokens) = (Vec::new(), Vec::new());
        if let Some(Tokens { requests_per_user, requests_per_ip, .. }) = tokens {
            let of_user = requests_per_user.map(|_| LimitName::TokenRequests);
            let of_ip = requests_per_ip.map(|_| LimitName::TokenRequestsOfIp);
            let limits = [of_user, of_ip].into_iter().flatten();
            of_tokens.extend(limits.map(|limit| self.own_key("limit", limit, "", "0")));
        }
        if routes.iter().any(|route| route.generations.concurrent != Concurrent::Parallel) {
            used.push((UsedLimit::Turn, format!("{}turn:{{0}}", self.0.prefix)));
        }
        for limit in routes.iter().flat_map(|route| UserLimit::of(&route.limits)) {
            let one = match limit {
                UserLimit::Rate(name, UserRate::Bucket(_)) => {
                    (UsedLimit::Bucket, self.own_key("limit", name, "0", "0"))
                }
                UserLimit::Rate(_, UserRate::Window(FixedWindow { key: Some(key), .. })) => {
                    (UsedLimit::Window, key.example())
                }
                UserLimit::Rate(name, UserRate::Window(FixedWindow { key: None, .. })) => {
                    (UsedLimit::Window, self.own_key("window", name, "0", "0"))
                }
                UserLimit::Leases(kind, _) => {
                    (UsedLimit::Leases, self.lease_key(LeaseKey { kind, route: "0", user: "0" }))
                }
            };
            if !used.contains(&one) {
                used.push(one);
            }
        }
        redis.declare_needs(&used, is_administered, &of_tokens);
    }

    /// In a cluster, all limits of a user are in one slot, and those of many users in all: the braces of a path pattern
    /// would put all users of a route into one.
    fn own_key(&self, kind: &str, limit: LimitName, route: &str, user: &str) -> String {
        let (prefix, limit) = (&self.0.prefix, limit.label());
        match self.is_cluster() {
            false => format!("{prefix}{kind}:{limit}:{route}:{user}"),
            true => format!("{prefix}{{{user}}}:{kind}:{limit}:{route}"),
        }
    }

    fn is_cluster(&self) -> bool {
        self.commands().is_some_and(Commands::is_cluster)
    }

    /// The key of `limit` of `user` on `route`; `None` if it contains parameters of a connection's path that `params`
    /// does not have.
    fn key_of(
        &self,
        limit: UserLimit<'_>,
        route: &str,
        params: &Params,
        user: &str,
    ) -> Option<String> {
        match limit {
            UserLimit::Rate(name, UserRate::Bucket(_)) => {
                Some(self.own_key("limit", name, route, user))
            }
            UserLimit::Rate(name, UserRate::Window(FixedWindow { key: None, .. })) => {
                Some(self.own_key("window", name, route, user))
            }
            UserLimit::Rate(_, UserRate::Window(FixedWindow { key: Some(key), .. })) => {
                let is_known = limit.params().all(|name| params.get(name).is_some());
                let context = TemplateContext { params, user_id: &user, channel: None };
                is_known.then(|| key.fill(context))
            }
            UserLimit::Leases(kind, _) => Some(self.lease_key(LeaseKey { kind, route, user })),
        }
    }

    /// The status of `limit` of `user` on the route with the path pattern `route`; `None` if its key contains
    /// parameters of a connection's path that `params` does not have.
    pub async fn status(
        &self,
        limit: UserLimit<'_>,
        route: &str,
        params: &Params,
        user: &str,
    ) -> Result<Option<LimitStatus>, EngineUnavailable> {
        let Some(key) = self.key_of(limit, route, params, user) else { return Ok(None) };
        Ok(Some(match limit {
            UserLimit::Rate(name, UserRate::Bucket(rate)) => {
                let reset_after = match &self.0.engine {
                    Engine::Memory(limits) => limits.bucket_status(&key),
                    Engine::Redis(limits) => limits.bucket_status(&key).await?,
                };
                Gcra::from(*rate).status(reset_after, name == USAGE)
            }
            UserLimit::Rate(_, UserRate::Window(FixedWindow { count, .. })) => {
                let (used, left) = match &self.0.engine {
                    Engine::Memory(limits) => limits.window_status(&key),
                    Engine::Redis(limits) => limits.window_status(&key).await?,
                };
                LimitStatus::of_count((*count).into(), used, left, left)
            }
            UserLimit::Leases(_, max) => {
                let (used, first, last) = match &self.0.engine {
                    Engine::Memory(limits) => limits.leases_status(&key),
                    Engine::Redis(limits) => limits.leases_status(&key).await?,
                };
                LimitStatus::of_count(max.into(), used, first, last)
            }
        }))
    }

    /// Resets `limit` of `user`. Returns whether anything was used; `None` as in [`SharedLimits::status`].
    pub async fn reset(
        &self,
        limit: UserLimit<'_>,
        route: &str,
        user: &str,
    ) -> Result<Option<bool>, EngineUnavailable> {
        let Some(key) = self.key_of(limit, route, &Params::default(), user) else {
            return Ok(None);
        };
        match &self.0.engine {
            Engine::Memory(limits) => Ok(Some(limits.reset(&key))),
            Engine::Redis(limits) => limits.reset(&key).await.map(Some),
        }
    }

    async fn take_of_bucket(
        &self,
        key: &str,
        rate: Rate,
        demand: Demand,
    ) -> Result<Verdict, EngineUnavailable> {
        match &self.0.engine {
            Engine::Memory(limits) => limits.take(key, Gcra::from(rate), demand),
            Engine::Redis(limits) => limits.take(key, Gcra::from(rate), demand).await,
        }
    }

    /// Counts in a window. A value that is not an integer is not the gateway's: it is not replaced, and the
    /// call fails as if the engine were unavailable.
    async fn hit_window(
        &self,
        key: &str,
        count: u32,
        per: Duration,
        demand: Demand,
    ) -> Result<Verdict, EngineUnavailable> {
        match &self.0.engine {
            Engine::Memory(limits) => limits.hit(key, count, per, demand),
            Engine::Redis(limits) => limits.hit(key, count, per, demand).await,
        }
    }

    /// Grants `holder` one of at most `max` leases. After [`Verdict::Allowed`] the caller puts it into the
    /// [`super::LeaseSet`] of its thread, which renews and releases it. A refusal is recorded in the metrics here; its
    /// `retry_after` is the time until a lease expires, but at least a second.
    pub async fn acquire(
        &self,
        key: LeaseKey<'_>,
        holder: Holder,
        max: u32,
    ) -> Result<Verdict, EngineUnavailable> {
        let LeaseKey { kind, route, user } = key;
        let key = self.lease_key(key);
        let verdict = match &self.0.engine {
            Engine::Memory(limits) => limits.acquire(&key, holder, max),
            Engine::Redis(limits) => limits.acquire(&key, holder, max).await,
        };
        record(kind.limit(), route, user, verdict.map(with_min_retry_after))
    }

    pub(super) fn lease_key(&self, key: LeaseKey<'_>) -> String {
        match self.is_cluster() {
            false => key.key(&self.0.prefix),
            true => key.key_in_cluster(&self.0.prefix),
        }
    }

    /// Returns the holders whose part of the engine is unavailable, as the next one does.
    pub(super) async fn renew_all(
        &self,
        held: &[HeldLease<'_>],
    ) -> Result<Vec<Holder>, EngineUnavailable> {
        match &self.0.engine {
            Engine::Memory(limits) => {
                held.iter().try_for_each(|(key, id)| limits.renew(key, *id))?;
                Ok(Vec::new())
            }
            Engine::Redis(limits) => limits.renew(held).await,
        }
    }

    pub(super) async fn release_all(
        &self,
        held: &[HeldLease<'_>],
    ) -> Result<Vec<Holder>, EngineUnavailable> {
        match &self.0.engine {
            Engine::Memory(limits) => {
                held.iter().for_each(|(key, id)| limits.release(key, *id));
                Ok(Vec::new())
            }
            Engine::Redis(limits) => limits.release(held).await,
        }
    }
}

fn with_min_retry_after(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Allowed => Verdict::Allowed,
        Verdict::Refused { retry_after } => {
            Verdict::Refused { retry_after: retry_after.max(MIN_RETRY_AFTER) }
        }
    }
}

fn record(
    limit: LimitName,
    route: &str,
    user: &str,
    verdict: Result<Verdict, EngineUnavailable>,
) -> Result<Verdict, EngineUnavailable> {
    match verdict {
        Ok(Verdict::Allowed) => {}
        Ok(Verdict::Refused { retry_after }) => {
            telemetry::messages::limit_refused(limit, route, user, retry_after);
        }
        Err(EngineUnavailable) => telemetry::messages::limit_not_checked(limit),
    }
    verdict
}

#[cfg(test)]
mod tests;
