//! The published keys: cached, refreshed when they age or a `kid` is not among them.
//!
//! Several threads, each with a runtime of its own, share one cache. A fetch is a task of the runtime
//! that found the need for it; everybody else who needs the same waits for its end. Invariants: at
//! most one fetch at a time; the old keys serve until there are new ones.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use url::Url;

use super::JwtRejection;
use super::compact::Compact;
use super::fetch::{DEADLINE, Source};
use super::keys::Key;
use crate::telemetry;

/// How often the endpoint is asked.
struct Pace {
    /// Keys older than this are fetched again, in the background.
    fresh: Duration,
    /// Between two fetches: whatever strangers put into `kid`, the endpoint is asked no more often.
    pause: Duration,
    /// The same while there are no keys at all, so that a start before the endpoint's is soon mended.
    pause_without_keys: Duration,
}

const PACE: Pace = Pace {
    fresh: Duration::from_secs(600),
    pause: Duration::from_secs(10),
    pause_without_keys: Duration::from_secs(1),
};

pub(super) struct Jwks(Arc<Shared>);

struct Shared {
    source: Source,
    known: ArcSwap<Known>,
    flight: Mutex<Flight>,
    pace: Pace,
}

/// What the last fetch that succeeded brought.
#[derive(Default)]
struct Known {
    keys: Vec<Arc<Key>>,
    /// `None` = never.
    fetched: Option<Instant>,
}

#[derive(Default)]
struct Flight {
    /// Closed when the fetch that is under way ends, however it ends.
    landing: Option<watch::Receiver<()>>,
    /// Of the last fetch.
    began: Option<Instant>,
    failed: bool,
}

impl Jwks {
    pub(super) fn new(url: &Url) -> Result<Self, String> {
        Self::with_pace(url, PACE)
    }

    fn with_pace(url: &Url, pace: Pace) -> Result<Self, String> {
        Ok(Self(Arc::new(Shared {
            source: Source::new(url)?,
            known: ArcSwap::default(),
            flight: Mutex::default(),
            pace,
        })))
    }

    /// The keys that `token` names, after a fetch if there are none among the known ones. Empty: its
    /// key is not published. `KeysUnavailable`: whether it is could not be found out.
    pub(super) async fn keys_for(&self, token: &Compact) -> Result<Vec<Arc<Key>>, JwtRejection> {
        let (found, fresh) = self.0.find(token);
        if !found.is_empty() {
            if !fresh {
                drop(self.0.refresh());
            }
            return Ok(found);
        }
        if let Some(mut landing) = self.0.refresh() {
            // The fetch has a deadline; this one is for a runtime that stopped in the middle of it.
            let _ = tokio::time::timeout(DEADLINE * 2, landing.changed()).await;
        }
        let (found, _) = self.0.find(token);
        if found.is_empty() && self.0.flight().failed {
            return Err(JwtRejection::KeysUnavailable);
        }
        Ok(found)
    }
}

impl Shared {
    fn find(&self, token: &Compact) -> (Vec<Arc<Key>>, bool) {
        let known = self.known.load();
        let found = known.keys.iter().filter(|key| key.is_named(token)).cloned().collect();
        (found, known.fetched.is_some_and(|at| at.elapsed() < self.pace.fresh))
    }

    fn flight(&self) -> std::sync::MutexGuard<'_, Flight> {
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the fetch that is under way, or begins one on the current runtime; `None` if the last is
    /// too recent.
    fn refresh(self: &Arc<Self>) -> Option<watch::Receiver<()>> {
        let mut flight = self.flight();
        if let Some(landing) = &flight.landing {
            return Some(landing.clone());
        }
        let never = self.known.load().fetched.is_none();
        let pause = if never { self.pace.pause_without_keys } else { self.pace.pause };
        if flight.began.is_some_and(|at| at.elapsed() < pause) {
            return None;
        }
        let (done, landing) = watch::channel(());
        flight.began = Some(Instant::now());
        flight.landing = Some(landing.clone());
        flight.failed = true;
        drop(flight);
        tokio::spawn(InFlight { shared: self.clone(), _done: done }.run());
        Some(landing)
    }
}

/// A fetch under way. Dropping it, at its end or with its runtime, tells those who wait.
struct InFlight {
    shared: Arc<Shared>,
    _done: watch::Sender<()>,
}

impl InFlight {
    async fn run(self) {
        let began = Instant::now();
        let Shared { source, known, .. } = &*self.shared;
        match source.fetch().await {
            Ok(fetched) => {
                let keys = fetched.keys.len();
                telemetry::credentials::jwks_fetched(
                    &source.host,
                    keys,
                    fetched.skipped,
                    began.elapsed(),
                );
                known.store(Arc::new(Known { keys: fetched.keys, fetched: Some(Instant::now()) }));
                self.shared.flight().failed = false;
            }
            Err(reason) => telemetry::credentials::jwks_failed(&source.host, &reason),
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.shared.flight().landing = None;
    }
}

#[cfg(test)]
#[path = "jwks_tests.rs"]
mod tests;
