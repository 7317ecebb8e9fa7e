//! Limits in Redis, shared by all nodes, by Redis' clock.

use std::time::Duration;

use redis::{Pipeline, Script};

use super::bucket::Gcra;
use super::{Holder, Verdict};
use crate::leases::LEASE;
use crate::redis_link::{Commands, EngineUnavailable};

/// A bucket is a string that expires when the bucket is full again. A window is a string that expires when the
/// window ends. The leases of a key are a sorted set that expires with the last of them.
pub(super) struct RedisLimits {
    commands: Commands,
    take: Script,
    hit: Script,
    acquire: Script,
    status: Script,
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
            status: Script::new(include_str!("status.lua")),
        }
    }

    pub(super) async fn take(&self, key: &str, gcra: Gcra) -> Result<Verdict, EngineUnavailable> {
        let mut call = self.take.prepare_invoke();
        call.key(key).arg(gcra.interval).arg(gcra.tolerance);
        let (allowed, wait_us): (bool, u64) = self.commands.invoke(&call).await?;
        Ok(verdict(allowed, Duration::from_micros(wait_us)))
    }

    pub(super) async fn hit(
        &self,
        key: &str,
        limit: u32,
        per: Duration,
    ) -> Result<Verdict, EngineUnavailable> {
        let mut call = self.hit.prepare_invoke();
        call.key(key).arg(limit).arg(u64::try_from(per.as_millis()).unwrap_or(u64::MAX));
        let (allowed, wait_ms): (bool, u64) = self.commands.invoke(&call).await?;
        Ok(verdict(allowed, Duration::from_millis(wait_ms)))
    }

    pub(super) async fn acquire(
        &self,
        key: &str,
        holder: Holder,
        max: u32,
    ) -> Result<Verdict, EngineUnavailable> {
        let mut call = self.acquire.prepare_invoke();
        call.key(key).arg(max).arg(holder.to_string()).arg(lease_ms());
        let (allowed, wait_ms): (bool, u64) = self.commands.invoke(&call).await?;
        Ok(verdict(allowed, Duration::from_millis(wait_ms)))
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
    pub(super) async fn renew(&self, held: &[HeldLease<'_>]) -> Result<(), EngineUnavailable> {
        let (seconds, micros): (u64, u64) = self.commands.query(&redis::cmd("TIME")).await?;
        let now_ms = seconds.saturating_mul(1000).saturating_add(micros / 1000);
        let expires = now_ms.saturating_add(lease_ms());
        let mut batch = Pipeline::with_capacity(2 * held.len());
        for (key, holder) in held {
            batch.cmd("ZADD").arg(*key).arg(expires).arg(holder.to_string()).ignore();
            batch.cmd("PEXPIRE").arg(*key).arg(lease_ms()).ignore();
        }
        Ok(self.commands.pipeline(&batch).await?)
    }

    /// Releases all leases in one write.
    pub(super) async fn release(&self, held: &[HeldLease<'_>]) -> Result<(), EngineUnavailable> {
        let mut batch = Pipeline::with_capacity(held.len());
        for (key, holder) in held {
            batch.cmd("ZREM").arg(*key).arg(holder.to_string()).ignore();
        }
        Ok(self.commands.pipeline(&batch).await?)
    }
}

fn verdict(allowed: bool, retry_after: Duration) -> Verdict {
    if allowed { Verdict::Allowed } else { Verdict::Refused { retry_after } }
}

fn lease_ms() -> u64 {
    u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Rate;
    use crate::redis_link::test_server::RedisServer;
    use crate::shutdown::Shutdown;

    /// Compares the script with `Gcra::take`, step by step, on a simulated clock.
    #[tokio::test]
    async fn the_script_decides_as_the_code_does() {
        let server = RedisServer::start();
        let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
        assert!(commands.wait_up(Duration::from_secs(10)).await);
        let source = include_str!("take.lua").replace("redis.call('TIME')", "{ARGV[3], ARGV[4]}");
        assert_ne!(source, include_str!("take.lua"));
        let script = Script::new(&source);
        for (index, rate) in [
            // Slow enough that no key expires on the real clock during the test.
            Rate { count: 50, per: Duration::from_secs(3600), burst: 50 },
            Rate { count: 7, per: Duration::from_secs(3600), burst: 3 },
            Rate { count: 11, per: Duration::from_secs(7200), burst: 1 },
            Rate { count: 1, per: Duration::from_secs(86400), burst: 20 },
        ]
        .into_iter()
        .enumerate()
        {
            let gcra = Gcra::from(rate);
            let (mut full_at, mut now, mut refusals) = (0, 1_764_000_000_123_456, 0);
            for step in 0..300u64 {
                let mut call = script.prepare_invoke();
                call.key(format!("bucket:{index}")).arg(gcra.interval).arg(gcra.tolerance);
                call.arg(now / 1_000_000).arg(now % 1_000_000);
                let (allowed, wait): (bool, u64) = commands.invoke(&call).await.unwrap();
                let expected = gcra.take(&mut full_at, now);
                assert_eq!(
                    verdict(allowed, Duration::from_micros(wait)),
                    expected,
                    "{rate:?} {step}"
                );
                refusals += u64::from(!allowed);
                if step == 150 {
                    // This is a bucket of another rate, or of a clock that was ahead.
                    full_at = now + 10 * gcra.tolerance;
                    let mut set = redis::cmd("SET");
                    set.arg(format!("bucket:{index}")).arg(full_at);
                    let () = commands.query(&set).await.unwrap();
                }
                // Uneven steps around the interval, so that both answers occur.
                now += gcra.interval * (step * 7919 % 17) / 16;
            }
            assert!((1..299).contains(&refusals), "{rate:?} {refusals}");
        }
    }
}
