//! A cache of the published keys, refreshed when they are old or when a `kid` is not among them.
//!
//! Several threads, each with its own runtime, share one cache. A fetch is a task of the runtime that
//! requested it first; other callers wait for the end of the same fetch. Invariants: at most one fetch at
//! a time; the old keys are used until new ones have arrived.

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

/// How often keys are fetched.
struct RefreshIntervals {
    /// Older keys are fetched again in the background.
    max_age: Duration,
    /// The minimum time between two fetches, whatever clients put into `kid`.
    min_interval: Duration,
    /// The minimum time between two fetches while no keys are known, so that a gateway which starts before
    /// the endpoint recovers soon.
    min_interval_without_keys: Duration,
}

const REFRESH_INTERVALS: RefreshIntervals = RefreshIntervals {
    max_age: Duration::from_secs(600),
    min_interval: Duration::from_secs(10),
    min_interval_without_keys: Duration::from_secs(1),
};

pub(super) struct Jwks(Arc<Shared>);

struct Shared {
    source: Source,
    cached: ArcSwap<CachedKeys>,
    fetch_state: Mutex<FetchState>,
    intervals: RefreshIntervals,
}

/// The result of the last successful fetch.
#[derive(Default)]
struct CachedKeys {
    keys: Vec<Arc<Key>>,
    /// The number of the fetch, from 1; 0 = no fetch has succeeded yet.
    fetch: u64,
    /// `None` = no fetch has succeeded yet.
    fetched_at: Option<Instant>,
}

#[derive(Default)]
struct FetchState {
    /// The channel of the running fetch, which closes when the fetch ends for any reason; `None` = no fetch
    /// is running.
    finished: Option<watch::Receiver<()>>,
    /// When the last fetch started.
    started_at: Option<Instant>,
    /// The last fetch failed, or has not ended yet.
    failed: bool,
}

impl Jwks {
    pub(super) fn new(url: &Url) -> Result<Self, String> {
        Self::with_intervals(url, REFRESH_INTERVALS)
    }

    fn with_intervals(url: &Url, intervals: RefreshIntervals) -> Result<Self, String> {
        Ok(Self(Arc::new(Shared {
            source: Source::new(url)?,
            cached: ArcSwap::default(),
            fetch_state: Mutex::default(),
            intervals,
        })))
    }

    /// Returns the keys that `token` names, after a fetch if the cache has none of them, and the number of the fetch that
    /// they are from. An empty result means that the key is not published; `KeysUnavailable` that the fetch failed.
    pub(super) async fn keys_for(
        &self,
        token: &Compact,
    ) -> Result<(Vec<Arc<Key>>, u64), JwtRejection> {
        let found = self.0.find(token);
        if !found.0.is_empty() {
            self.0.refresh_if_old();
            return Ok(found);
        }
        if let Some(mut finished) = self.0.refresh() {
            // The fetch has its own deadline. This one covers a runtime that stopped during the fetch.
            let _ = tokio::time::timeout(DEADLINE * 2, finished.changed()).await;
        }
        let found = self.0.find(token);
        if found.0.is_empty() && self.0.fetch_state().failed {
            return Err(JwtRejection::KeysUnavailable);
        }
        Ok(found)
    }

    /// Whether the keys of this fetch are still the newest. As with each use of keys, those that are old are fetched again.
    pub(super) fn confirm(&self, fetch: u64) -> bool {
        self.0.refresh_if_old();
        self.0.cached.load().fetch == fetch
    }
}

impl Shared {
    /// Returns the cached keys that `token` names, and the number of their fetch.
    fn find(&self, token: &Compact) -> (Vec<Arc<Key>>, u64) {
        let cached = self.cached.load();
        let found = cached.keys.iter().filter(|key| key.has_kid_of(token)).cloned().collect();
        (found, cached.fetch)
    }

    /// Begins a fetch if the keys are old. The new keys are for later calls: this one does not wait for them.
    fn refresh_if_old(self: &Arc<Self>) {
        let fetched_at = self.cached.load().fetched_at;
        if fetched_at.is_none_or(|at| at.elapsed() >= self.intervals.max_age) {
            let _ = self.refresh();
        }
    }

    fn fetch_state(&self) -> std::sync::MutexGuard<'_, FetchState> {
        self.fetch_state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the running fetch, or starts one on the current runtime. Returns a channel that closes when
    /// the fetch ends; `None` = the last fetch is too recent.
    fn refresh(self: &Arc<Self>) -> Option<watch::Receiver<()>> {
        let mut state = self.fetch_state();
        if let Some(finished) = &state.finished {
            return Some(finished.clone());
        }
        let has_keys = self.cached.load().fetched_at.is_some();
        let min_interval = if has_keys {
            self.intervals.min_interval
        } else {
            self.intervals.min_interval_without_keys
        };
        if state.started_at.is_some_and(|at| at.elapsed() < min_interval) {
            return None;
        }
        let (done, finished) = watch::channel(());
        state.started_at = Some(Instant::now());
        state.finished = Some(finished.clone());
        state.failed = true;
        drop(state);
        tokio::spawn(Fetch { shared: self.clone(), _done: done }.run());
        Some(finished)
    }
}

/// A running fetch. Dropping it, at its end or with its runtime, wakes those who wait for it.
struct Fetch {
    shared: Arc<Shared>,
    _done: watch::Sender<()>,
}

impl Fetch {
    async fn run(self) {
        let began = Instant::now();
        let Shared { source, cached, .. } = &*self.shared;
        match source.fetch().await {
            Ok(fetched) => {
                let keys = fetched.keys.len();
                telemetry::jwts::jwks_fetched(&source.host, keys, fetched.skipped, began.elapsed());
                let (fetched_at, fetch) = (Some(Instant::now()), cached.load().fetch + 1);
                cached.store(Arc::new(CachedKeys { keys: fetched.keys, fetch, fetched_at }));
                self.shared.fetch_state().failed = false;
            }
            Err(reason) => telemetry::jwts::jwks_failed(&source.host, &reason),
        }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.shared.fetch_state().finished = None;
    }
}

#[cfg(test)]
mod tests;
