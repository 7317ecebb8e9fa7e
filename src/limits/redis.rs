//! Limits in Redis, shared by all nodes, by Redis' clock.

use std::time::Duration;

use redis::{Pipeline, Script};

use super::bucket::Gcra;
use super::demand::Demand;
use super::turns::WAITING_LEASE;
use super::{Holder, Turn, Verdict};
use crate::config::{FixedWindow, UserRate};
use crate::leases::LEASE;
use crate::redis_link::{Answers, Commands, EngineUnavailable, Needs, Step};

/// A bucket is a string that expires when the bucket is full again. A window is a string that expires when the
/// window ends. The leases of a key are a sorted set that expires with the last of them.
pub(super) struct RedisLimits {
    commands: Commands,
    take: Script,
    hit: Script,
    acquire: Script,
    connect: Script,
    status: Script,
    take_turn: Script,
    renew: Script,
}

/// A kind of limit that routes use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UsedLimit {
    Bucket,
    Window,
    Leases,
    /// The turn of a channel whose replies are not parallel.
    Turn,
}

/// The key and the holder of a lease.
pub(super) type HeldLease<'a> = (&'a str, Holder);

impl RedisLimits {
    pub(super) fn new(commands: Commands) -> Self {
        Self {
            commands,
            take: Script::new(include_str!("take.lua")),
            hit: Script::new(include_str!("hit.lua")),
            acquire: Script::new(include_str!("acquire.lua")),
            connect: Script::new(&connect_source()),
            status: Script::new(include_str!("status.lua")),
            take_turn: Script::new(include_str!("take_turn.lua")),
            renew: Script::new(include_str!("renew.lua")),
        }
    }

    /// Declares the kinds of limits that are used, each with an example of its keys. `is_administered` adds what reading
    /// and resetting them needs.
    /// `unadministered` are the keys of buckets that the server API does not know.
    pub(super) fn declare_needs(
        &self,
        used: &[(UsedLimit, String)],
        is_administered: bool,
        unadministered: &[String],
    ) {
        let mut needs = Needs::default();
        for key in unadministered {
            needs = needs.script(include_str!("take.lua"), key, "");
        }
        for (kind, key) in used {
            let script = match kind {
                UsedLimit::Bucket => include_str!("take.lua"),
                UsedLimit::Window => include_str!("hit.lua"),
                UsedLimit::Leases => include_str!("acquire.lua"),
                UsedLimit::Turn => include_str!("take_turn.lua"),
            };
            needs = needs.script(script, key, "");
            if matches!(kind, UsedLimit::Leases | UsedLimit::Turn) {
                for command in ["ZADD", "PEXPIRE", "ZREM"] {
                    needs = needs.command(command, key);
                }
                needs = needs.command("TIME", "");
            }
            if is_administered {
                needs = needs.script(include_str!("status.lua"), key, "").command("DEL", key);
            }
        }
        self.commands.declare("limits", needs);
    }

    pub(super) async fn take(
        &self,
        key: &str,
        gcra: Gcra,
        demand: Demand,
    ) -> Result<Verdict, EngineUnavailable> {
        let step = Self::take_step(key, gcra, demand);
        let (allowed, wait_us): (bool, u64) = self.commands.invoke_step(&self.take, &step).await?;
        Ok(verdict(allowed, Duration::from_micros(wait_us)))
    }

    /// A call of take.lua, which answers in microseconds.
    pub(super) fn take_step(key: &str, gcra: Gcra, demand: Demand) -> Step {
        let step = Step::new(include_str!("take.lua"), ALLOWED).key(key);
        let step = step.arg(gcra.interval).arg(gcra.tolerance);
        step.arg(demand.needed).arg(demand.taken).arg(u8::from(demand.has_debt))
    }

    pub(super) async fn hit(
        &self,
        key: &str,
        limit: u32,
        per: Duration,
        demand: Demand,
    ) -> Result<Verdict, EngineUnavailable> {
        let step = Self::hit_step(key, limit, per, demand);
        let (allowed, wait_ms): (bool, u64) = self.commands.invoke_step(&self.hit, &step).await?;
        Ok(verdict(allowed, Duration::from_millis(wait_ms)))
    }

    /// A call of hit.lua, which answers in milliseconds.
    pub(super) fn hit_step(key: &str, limit: u32, per: Duration, demand: Demand) -> Step {
        let step = Step::new(include_str!("hit.lua"), ALLOWED).key(key);
        let step = step.arg(limit).arg(u64::try_from(per.as_millis()).unwrap_or(u64::MAX));
        step.arg(demand.needed).arg(demand.taken)
    }

    pub(super) async fn acquire(
        &self,
        key: &str,
        holder: Holder,
        max: u32,
    ) -> Result<Verdict, EngineUnavailable> {
        let step = Self::acquire_step(key, holder, max);
        let (allowed, wait_ms): (bool, u64) =
            self.commands.invoke_step(&self.acquire, &step).await?;
        Ok(verdict(allowed, Duration::from_millis(wait_ms)))
    }

    /// Takes one of the bucket, or hits the window, with the key `counter`, and if that is allowed acquires a lease. The
    /// second verdict is about the lease. In a cluster, where the keys may be in two slots, these are two steps.
    pub(super) async fn connect(
        &self,
        counter: &str,
        rate: &UserRate,
        lease: &str,
        holder: Holder,
        max: u32,
    ) -> Result<(Verdict, Verdict), EngineUnavailable> {
        if self.commands.is_cluster() {
            return self.connect_by_steps(counter, rate, lease, holder, max).await;
        }
        let (kind, arguments): (_, Vec<u64>) = match rate {
            UserRate::Bucket(rate) => {
                ("bucket", bucket_args((*rate).into(), Demand::ACTION).into())
            }
            UserRate::Window(FixedWindow { count, per, .. }) => {
                ("window", window_args(*count, *per, Demand::ACTION).into())
            }
        };
        let mut call = self.connect.prepare_invoke();
        call.key(counter).key(lease).arg(kind).arg(arguments.len()).arg(arguments);
        call.arg(max).arg(holder.to_string()).arg(lease_ms());
        let (counted, wait, leased, lease_wait_ms): (bool, u64, bool, u64) =
            self.commands.invoke(&call).await?;
        let wait = match rate {
            UserRate::Bucket(_) => Duration::from_micros(wait),
            UserRate::Window(_) => Duration::from_millis(wait),
        };
        // A refused connect has no lease, and none was refused.
        let lease = verdict(leased || !counted, Duration::from_millis(lease_wait_ms));
        Ok((verdict(counted, wait), lease))
    }

    async fn connect_by_steps(
        &self,
        counter: &str,
        rate: &UserRate,
        lease: &str,
        holder: Holder,
        max: u32,
    ) -> Result<(Verdict, Verdict), EngineUnavailable> {
        let counted = match rate {
            UserRate::Bucket(rate) => self.take(counter, (*rate).into(), Demand::ACTION).await?,
            UserRate::Window(FixedWindow { count, per, .. }) => {
                self.hit(counter, *count, *per, Demand::ACTION).await?
            }
        };
        match counted {
            Verdict::Allowed => Ok((counted, self.acquire(lease, holder, max).await?)),
            Verdict::Refused { .. } => Ok((counted, Verdict::Allowed)),
        }
    }

    /// A call of acquire.lua, which answers in milliseconds.
    pub(super) fn acquire_step(key: &str, holder: Holder, max: u32) -> Step {
        let step = Step::new(include_str!("acquire.lua"), ALLOWED).key(key);
        step.arg(max).arg(holder.to_string()).arg(lease_ms())
    }

    pub(super) fn commands(&self) -> &Commands {
        &self.commands
    }

    /// Like `MemoryLimits::take_turn`.
    pub(super) async fn take_turn(
        &self,
        key: &str,
        holder: Holder,
        max_waiting: usize,
        share: usize,
    ) -> Result<Turn, EngineUnavailable> {
        let mut call = self.take_turn.prepare_invoke();
        turn_keys(key).iter().for_each(|key| {
            call.key(key);
        });
        call.arg(holder.to_string()).arg(lease_ms());
        call.arg(u64::try_from(WAITING_LEASE.as_millis()).unwrap_or(u64::MAX)).arg(max_waiting);
        call.arg(share).arg(holder.client_prefix());
        let turn: String = self.commands.invoke(&call).await?;
        Ok(match &*turn {
            "taken" => Turn::Taken,
            "waiting" => Turn::Waiting,
            _ => Turn::Full,
        })
    }

    pub(super) async fn leave_turn(
        &self,
        key: &str,
        holder: Holder,
    ) -> Result<(), EngineUnavailable> {
        let mut batch = Pipeline::with_capacity(3);
        for key in turn_keys(key) {
            batch.cmd("ZREM").arg(key).arg(holder.to_string()).ignore();
        }
        Ok(self.commands.pipeline(&batch).await?)
    }

    /// Like `MemoryLimits::bucket_status`.
    pub(super) async fn bucket_status(&self, key: &str) -> Result<u64, EngineUnavailable> {
        self.status(key, "bucket").await.map(|(reset_after, _, _)| reset_after)
    }

    pub(super) async fn window_status(
        &self,
        key: &str,
    ) -> Result<(u64, Duration), EngineUnavailable> {
        let (count, left, _) = self.status(key, "window").await?;
        Ok((count, Duration::from_millis(left)))
    }

    pub(super) async fn leases_status(
        &self,
        key: &str,
    ) -> Result<(u64, Duration, Duration), EngineUnavailable> {
        let (count, first, last) = self.status(key, "leases").await?;
        Ok((count, Duration::from_millis(first), Duration::from_millis(last)))
    }

    async fn status(&self, key: &str, kind: &str) -> Result<(u64, u64, u64), EngineUnavailable> {
        let mut call = self.status.prepare_invoke();
        call.key(key).arg(kind);
        Ok(self.commands.invoke(&call).await?)
    }

    pub(super) async fn reset(&self, key: &str) -> Result<bool, EngineUnavailable> {
        let mut delete = redis::cmd("DEL");
        delete.arg(key);
        let deleted: u64 = self.commands.query(&delete).await?;
        Ok(deleted > 0)
    }

    /// Renews all leases in one write. Expired or lost leases are created again, since their holders still exist.
    /// Returns the holders whose node of a cluster does not answer.
    pub(super) async fn renew(
        &self,
        held: &[HeldLease<'_>],
    ) -> Result<Vec<Holder>, EngineUnavailable> {
        if self.commands.is_cluster() {
            return self.renew_each(held).await;
        }
        let (seconds, micros): (u64, u64) = self.commands.query(&redis::cmd("TIME")).await?;
        let now_ms = seconds.saturating_mul(1000).saturating_add(micros / 1000);
        let expires = now_ms.saturating_add(lease_ms());
        let mut batch = Pipeline::with_capacity(2 * held.len());
        for (key, holder) in held {
            batch.cmd("ZADD").arg(*key).arg(expires).arg(holder.to_string()).ignore();
            batch.cmd("PEXPIRE").arg(*key).arg(lease_ms()).ignore();
        }
        self.commands.pipeline(&batch).await?;
        Ok(Vec::new())
    }

    /// The same by the clock of the node that has each lease.
    async fn renew_each(&self, held: &[HeldLease<'_>]) -> Result<Vec<Holder>, EngineUnavailable> {
        let call = |(key, holder): &HeldLease<'_>| {
            let mut call = self.renew.key(*key);
            call.arg(holder.to_string()).arg(lease_ms());
            call
        };
        let calls: Vec<_> = held.iter().map(call).collect();
        Ok(failed(held, self.commands.invoke_all::<()>(&self.renew, &calls).await?))
    }

    /// Releases all leases in one write. Returns the holders whose node of a cluster does not answer.
    pub(super) async fn release(
        &self,
        held: &[HeldLease<'_>],
    ) -> Result<Vec<Holder>, EngineUnavailable> {
        let mut batch = Pipeline::with_capacity(held.len());
        for (key, holder) in held {
            batch.cmd("ZREM").arg(*key).arg(holder.to_string());
        }
        if self.commands.is_cluster() {
            return Ok(failed(held, self.commands.query_each::<()>(batch).await?));
        }
        self.commands.pipeline(&batch).await?;
        Ok(Vec::new())
    }
}

/// The source of the script of `connect`: each of the other scripts as a function, then connect.lua.
fn connect_source() -> String {
    let function =
        |name: &str, body: &str| format!("local function {name}(KEYS, ARGV)\n{body}\nend\n");
    [
        function("take", include_str!("take.lua")),
        function("hit", include_str!("hit.lua")),
        function("acquire", include_str!("acquire.lua")),
        include_str!("connect.lua").to_owned(),
    ]
    .concat()
}

/// The arguments of take.lua.
fn bucket_args(gcra: Gcra, demand: Demand) -> [u64; 5] {
    [gcra.interval, gcra.tolerance, demand.needed, demand.taken, demand.has_debt.into()]
}

/// The arguments of hit.lua.
fn window_args(limit: u32, per: Duration, demand: Demand) -> [u64; 4] {
    let per_ms = u64::try_from(per.as_millis()).unwrap_or(u64::MAX);
    [limit.into(), per_ms, demand.needed, demand.taken]
}

/// The keys of take_turn.lua. The channel's name in braces puts all three into one cluster slot.
fn turn_keys(key: &str) -> [String; 3] {
    [key.to_owned(), format!("{key}:waiting"), format!("{key}:waiting:leases")]
}

/// The holders of the calls that failed.
fn failed(held: &[HeldLease<'_>], answers: Answers<()>) -> Vec<Holder> {
    let answered = held.iter().zip(answers);
    answered.filter(|(_, answer)| answer.is_err()).map(|((_, holder), _)| *holder).collect()
}

/// When the next step of a chain runs after one of these scripts.
const ALLOWED: &str = "answer[1] == 1";

pub(super) fn verdict(allowed: bool, retry_after: Duration) -> Verdict {
    if allowed { Verdict::Allowed } else { Verdict::Refused { retry_after } }
}

fn lease_ms() -> u64 {
    u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
