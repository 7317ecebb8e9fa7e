//! Orders the certificate that `[server.tls] acme` names, and renews it (RFC 8555, challenge tls-alpn-01 of RFC 8737).
//!
//! The certificate becomes a file in `cache_dir`, which the config reads like any other: whoever replaces it, this gateway or
//! another that shares the directory, it is taken over. Handshakes of the certificate authority are answered with what
//! the gateway that orders has written there. Invariants: of all gateways with the same `cache_dir` at most one orders; what
//! is replaced is replaced whole; an attempt that fails changes nothing, and the next one waits longer, whichever
//! of them makes it, and after a restart as well.

mod cache;
mod client;
mod order;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use self::cache::Cache;
use self::schedule::{Failures, Spread};
use crate::clock;
use crate::config::{Acme, SharedConfig};
use crate::shutdown::Shutdown;
use crate::telemetry;
use crate::tls::{Certificate, ChallengeDigests};

/// How long an order may take, with all its validations.
const ORDER_DEADLINE: Duration = Duration::from_secs(5 * 60);

/// The longest time between two looks at the certificate and the clock.
const PERIOD: Duration = Duration::from_secs(60);

/// The same while another gateway orders.
const PERIOD_OF_OTHERS: Duration = Duration::from_secs(2);

/// What wakes others, and what wakes this part.
#[derive(Clone, Default)]
pub struct Wakers {
    /// There is another certificate than the one in use.
    pub ordered: Arc<Notify>,
    /// The config was reloaded: what has failed is tried again at once.
    pub reloaded: Arc<Notify>,
}

/// Answers which proof the host of a name has to give now.
pub fn challenge_digests(acme: &Acme) -> ChallengeDigests {
    let cache = Cache::new(acme);
    // One of the names in the config, so that nobody else names files.
    Arc::new(move |name| cache.challenge(name))
}

/// Asks for the directory once. `Err` says why it cannot be used.
pub async fn check(acme: &Acme) -> Result<(), String> {
    client::check_directory(acme).await
}

/// Orders and renews until the gateway drains.
pub async fn run(config: SharedConfig, wakers: Wakers, shutdown: Shutdown) {
    let mut ordering = Ordering::new();
    let mut is_reloaded = false;
    loop {
        let tls = config.load().server.tls.clone();
        let wait = match tls.as_ref().and_then(|tls| Some((tls, tls.acme.as_ref()?))) {
            Some((tls, acme)) => {
                if std::mem::take(&mut is_reloaded) {
                    ordering.forget_failures(acme).await;
                    // Other names need another one.
                    ordering.issued = None;
                }
                let step = ordering.step(acme, tls.ordered());
                let Step { wait, is_new } = tokio::select! {
                    step = step => step,
                    () = shutdown.draining() => return,
                };
                if is_new {
                    wakers.ordered.notify_one();
                }
                wait
            }
            None => PERIOD,
        };
        tokio::select! {
            () = tokio::time::sleep(wait.min(PERIOD)) => {}
            () = wakers.reloaded.notified() => is_reloaded = true,
            () = shutdown.draining() => return,
        }
    }
}

/// What was found or done.
struct Step {
    /// How long nothing has to be done.
    wait: Duration,
    /// Whether the certificate in the directory is not the one in use.
    is_new: bool,
}

struct Ordering {
    spread: Spread,
    /// What has failed, where it cannot be written.
    unwritten: Failures,
    /// What was issued, and could not be written. It is not ordered again.
    issued: Option<String>,
}

impl Ordering {
    fn new() -> Self {
        Self { spread: Spread::random(), unwritten: Failures::default(), issued: None }
    }

    async fn step(&mut self, acme: &Acme, in_use: Option<&Certificate>) -> Step {
        let cache = Cache::new(acme);
        match self.due(&cache, in_use).await {
            Due::Later(step) => return step,
            Due::Now => {}
        }
        if let Some(wait) = self.remaining(&cache).await {
            return Step { wait, is_new: false };
        }
        let attempt = timeout(ORDER_DEADLINE, self.order(acme, cache.clone(), in_use));
        let outcome = attempt.await.unwrap_or_else(|_| {
            Err(order::Failure::from(format!("not finished within {ORDER_DEADLINE:?}")))
        });
        match outcome {
            Ok(step) => step,
            Err(failure) => {
                let wait = self.add_failure(&cache, failure.retry_after).await;
                telemetry::acme::order_failed(&acme.domains, &failure.reason, wait);
                Step { wait, is_new: false }
            }
        }
    }

    /// Orders, if no other gateway does. `Ok` also if nothing has to be ordered any more.
    async fn order(
        &mut self,
        acme: &Acme,
        cache: Cache,
        in_use: Option<&Certificate>,
    ) -> Result<Step, order::Failure> {
        let Some(lock) = cache.lock().await? else {
            return Ok(Step { wait: PERIOD_OF_OTHERS, is_new: false });
        };
        // The one that held it before may have ordered, or failed.
        if let Due::Later(step) = self.due(&cache, in_use).await {
            return Ok(step);
        }
        if let Some(wait) = self.remaining(&cache).await {
            return Ok(Step { wait, is_new: false });
        }
        let text = match self.issued.take() {
            Some(text) => text,
            None => {
                telemetry::acme::ordering(&acme.domains, acme.directory.as_str());
                order::order(acme, &cache).await?
            }
        };
        let now = clock::unix_seconds();
        let certificate = Certificate::load(&text, &text, now).map_err(|mistake| {
            order::Failure::from(format!("the certificate cannot be used: {}", mistake.text()))
        })?;
        if let Err(reason) = cache.write_certificate(text.clone()).await {
            self.issued = Some(text);
            return Err(reason.into());
        }
        drop(lock);
        telemetry::acme::ordered(&acme.domains, certificate.not_after());
        let due = self.spread.renewal(certificate.not_before(), certificate.not_after());
        let wait = match due > now {
            true => {
                self.forget_failures(acme).await;
                Duration::from_secs(due - now)
            }
            // The clock is wrong. The next order must not follow at once.
            false => self.add_failure(&cache, None).await,
        };
        Ok(Step { wait, is_new: true })
    }

    /// How long nothing may be ordered, because the last order has failed.
    async fn remaining(&self, cache: &Cache) -> Option<Duration> {
        let now = clock::unix_seconds();
        let written = cache.failures().await.remaining(now);
        written.max(self.unwritten.remaining(now))
    }

    /// Counts one more failure. Returns the pause.
    async fn add_failure(&mut self, cache: &Cache, wanted: Option<Duration>) -> Duration {
        let mut failures = cache.failures().await;
        if failures == Failures::default() {
            failures = std::mem::take(&mut self.unwritten);
        }
        let pause = failures.add(clock::unix_seconds(), wanted);
        if cache.write_failures(&failures).await.is_err() {
            // What cannot be written has its own failure in the log.
            self.unwritten = failures;
        }
        pause
    }

    async fn forget_failures(&mut self, acme: &Acme) {
        self.unwritten = Failures::default();
        Cache::new(acme).remove_failures().await;
    }

    /// Whether a certificate has to be ordered now.
    async fn due(&self, cache: &Cache, in_use: Option<&Certificate>) -> Due {
        let Some(text) = cache.certificate().await else { return Due::Now };
        let now = clock::unix_seconds();
        let Ok(certificate) = Certificate::load(&text, &text, now) else { return Due::Now };
        let due = self.spread.renewal(certificate.not_before(), certificate.not_after());
        if due <= now {
            return Due::Now;
        }
        let wait = Duration::from_secs(due - now);
        Due::Later(Step { wait, is_new: in_use != Some(&certificate) })
    }
}

enum Due {
    Now,
    Later(Step),
}

#[cfg(test)]
mod tests;
