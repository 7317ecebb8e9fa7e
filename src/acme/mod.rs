//! Orders the certificate that `[server.tls] acme` names, and renews it (RFC 8555, challenge tls-alpn-01 of RFC 8737).
//!
//! The certificate becomes a file in `cache_dir`, which the config reads like any other: whoever replaces it, this gateway or
//! another that shares the directory, a reload takes it over. Handshakes of the certificate authority are answered with what
//! the gateway that orders has written there. Invariants: of all gateways with the same `cache_dir` at most one orders; what
//! is replaced is replaced whole; an attempt that fails changes nothing, and the next one waits longer.

mod cache;
mod client;
mod order;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

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
    pub reload: Arc<Notify>,
    /// The config was reloaded for another reason: what has failed is tried again at once.
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
    let mut ordering = Ordering { spread: Spread::random(), failures: Failures::default() };
    loop {
        let tls = config.load().server.tls.clone();
        let wait = match tls.as_ref().and_then(|tls| Some((tls, tls.acme.as_ref()?))) {
            Some((tls, acme)) => {
                let step = ordering.step(acme, tls.ordered());
                let Step { wait, is_new } = tokio::select! {
                    step = step => step,
                    () = shutdown.draining() => return,
                };
                if is_new {
                    wakers.reload.notify_one();
                }
                wait
            }
            None => PERIOD,
        };
        tokio::select! {
            () = tokio::time::sleep(wait.min(PERIOD)) => {}
            () = wakers.reloaded.notified() => ordering.failures.forget(),
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
    failures: Failures,
}

impl Ordering {
    async fn step(&mut self, acme: &Acme, in_use: Option<&Certificate>) -> Step {
        let cache = Cache::new(acme);
        match self.due(&cache, in_use).await {
            Due::Later(step) => return step,
            Due::Now => {}
        }
        if let Some(wait) = self.failures.remaining(Instant::now()) {
            return Step { wait, is_new: false };
        }
        let attempt = timeout(ORDER_DEADLINE, self.order(acme, cache, in_use));
        let outcome = attempt.await.unwrap_or_else(|_| {
            Err(order::Failure::from(format!("not finished within {ORDER_DEADLINE:?}")))
        });
        match outcome {
            Ok(step) => step,
            Err(failure) => {
                let wait = self.failures.add(Instant::now(), failure.retry_after);
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
        // The one that held it before may have ordered.
        if let Due::Later(step) = self.due(&cache, in_use).await {
            return Ok(step);
        }
        telemetry::acme::ordering(&acme.domains, acme.directory.as_str());
        let text = order::order(acme, &cache).await?;
        let now = clock::unix_seconds();
        let certificate = Certificate::load(&text, &text, now).map_err(|mistake| {
            order::Failure::from(format!("the certificate cannot be used: {}", mistake.text()))
        })?;
        cache.write_certificate(text).await?;
        drop(lock);
        self.failures.forget();
        telemetry::acme::ordered(&acme.domains, certificate.not_after());
        Ok(Step { wait: PERIOD, is_new: true })
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
