//! Leases that this process holds in the engine. They are renewed while they are held and released when they are
//! given back.
//!
//! This module owns when that happens, in which batches, and what is retried while the engine is unavailable. A
//! [`Lessor`] defines what a lease is and where it is stored. Invariant: giving a lease back never waits for the
//! engine, and a lease that cannot be released expires there.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::redis_link::EngineUnavailable;

/// How long a lease lives without a renewal, unless a store has another value.
pub const LEASE: Duration = Duration::from_secs(60);

/// The most releases that wait for an unavailable engine. Beyond this the oldest are dropped, and their leases
/// expire by themselves.
pub const MAX_RELEASES: usize = 20_000;

/// How long [`HeldLeases::run`] sleeps when no lease is due. New work wakes it earlier.
const IDLE: Duration = Duration::from_secs(60);

/// The store of one kind of lease, which grants them.
pub trait Lessor {
    /// Identifies the holder of a lease. A holder has at most one.
    type Holder: Clone + Eq + Hash;
    /// What is leased. It is stored here while the lease is held.
    type Lease: Clone;
    /// What the engine needs to know at the end of a lease.
    type Release: Clone + From<Self::Lease>;

    /// The interval between renewals of a lease. With the default, two renewals may fail before it expires.
    const RENEWAL: Duration = Duration::from_secs(LEASE.as_secs() / 3);
    /// The pause after a failure.
    const RETRY: Duration = Duration::from_secs(1);
    /// The most renewals or releases that go to the engine together.
    const BATCH: usize = 500;

    /// Renews at most [`Lessor::BATCH`] leases, and creates those that the engine does not have, since their holders
    /// still exist. `Err` if nothing is known of any of them.
    async fn renew(
        &self,
        leases: &[(Self::Holder, Self::Lease)],
    ) -> Result<Renewal<Self::Holder>, EngineUnavailable>;

    /// Ends at most [`Lessor::BATCH`] leases, some of which may have ended already. Returns the holders whose part of the
    /// engine is unavailable; `Err` if that is all of it.
    async fn release(
        &self,
        releases: &[(Self::Holder, Self::Release)],
    ) -> Result<Vec<Self::Holder>, EngineUnavailable>;

    /// Records that `count` renewals failed and will be retried.
    fn record_not_renewed(&self, _count: usize) {}

    /// Records that `count` leases are left to expire instead of being released.
    fn record_dropped(&self, _count: usize) {}
}

/// What became of leases that were to be renewed.
#[derive(Debug)]
pub struct Renewal<H> {
    /// The holders whose lease now belongs to another process; they are no longer held here.
    pub lost: Vec<H>,
    /// The holders whose part of the engine, a shard of a cluster, is unavailable. They are tried again before long, and do
    /// not keep the others waiting.
    pub failed: Vec<H>,
}

impl<H> Default for Renewal<H> {
    fn default() -> Self {
        Self { lost: Vec::new(), failed: Vec::new() }
    }
}

/// The leases of one kind that this process, or one of its threads, holds. [`HeldLeases::run`] renews and releases
/// them.
pub struct HeldLeases<L: Lessor> {
    lessor: L,
    state: Mutex<State<L::Holder, L::Lease, L::Release>>,
    work: Notify,
    /// Locked during [`HeldLeases::flush`], so that a second caller also waits for calls that are in progress.
    flushing: tokio::sync::Mutex<()>,
}

struct State<H, T, R> {
    held: HashMap<H, T>,
    /// The holders whose lease is not in the engine yet. May contain some whose lease was given back since.
    fresh: VecDeque<H>,
    /// The times of the next renewals, earliest first. May contain holders whose lease was given back since.
    due: VecDeque<(Instant, H)>,
    /// The leases to release, oldest first; at most [`MAX_RELEASES`].
    releases: VecDeque<(H, R)>,
}

impl<L: Lessor> HeldLeases<L> {
    pub fn new(lessor: L) -> Self {
        let state = State {
            held: HashMap::new(),
            fresh: VecDeque::new(),
            due: VecDeque::new(),
            releases: VecDeque::new(),
        };
        Self {
            lessor,
            state: Mutex::new(state),
            work: Notify::new(),
            flushing: tokio::sync::Mutex::default(),
        }
    }

    pub fn lessor(&self) -> &L {
        &self.lessor
    }

    /// Holds a lease that the engine has granted, until it is given back.
    pub fn keep(&self, holder: L::Holder, lease: L::Lease) {
        let mut state = self.state();
        state.held.insert(holder.clone(), lease);
        state.due.push_back((Instant::now() + L::RENEWAL, holder));
        if state.due.len() == 1 {
            self.work.notify_one();
        }
    }

    /// Holds a lease that is still to be created in the engine, until it is given back.
    pub fn take(&self, holder: L::Holder, lease: L::Lease) {
        let mut state = self.state();
        state.held.insert(holder.clone(), lease);
        state.fresh.push_back(holder);
        self.work.notify_one();
    }

    /// Ends a lease that is held here, and releases it in the engine soon. Returns whether it was held.
    pub fn give_back(&self, holder: &L::Holder) -> bool {
        self.give_back_as(holder, L::Release::from)
    }

    /// Like [`HeldLeases::give_back`], with a `release` that depends on how the lease ended.
    pub fn give_back_as(
        &self,
        holder: &L::Holder,
        release: impl FnOnce(L::Lease) -> L::Release,
    ) -> bool {
        let lease = self.state().held.remove(holder);
        let is_held = lease.is_some();
        if let Some(lease) = lease {
            self.release(holder, release(lease));
        }
        is_held
    }

    /// Ends a lease, whether or not it is held here, and releases it in the engine soon.
    pub fn release(&self, holder: &L::Holder, release: L::Release) {
        let mut state = self.state();
        state.held.remove(holder);
        state.releases.push_back((holder.clone(), release));
        let dropped = state.drop_releases();
        drop(state);
        self.record_dropped(dropped);
        self.work.notify_one();
    }

    /// Stops holding a lease without ending it: its new owner renews and releases it, or it expires.
    pub fn forget(&self, holder: &L::Holder) {
        self.state().held.remove(holder);
    }

    /// Renews and releases, for as long as it is polled.
    pub async fn run(&self) {
        loop {
            let next = self.state().due.front().map(|(due, _)| *due);
            let next = next.unwrap_or_else(|| Instant::now() + IDLE);
            tokio::select! {
                () = self.work.notified() => {}
                () = sleep_until(next) => {}
            }
            if !self.flush().await {
                tokio::time::sleep(L::RETRY).await;
                // The failed calls are still queued, so this task wakes itself up.
                self.work.notify_one();
            }
        }
    }

    /// Creates all new leases in the engine, renews those that are due, and releases those that have ended. Returns
    /// false if the engine is unavailable: [`HeldLeases::run`] retries what failed, or it expires.
    pub async fn flush(&self) -> bool {
        let _lock = self.flushing.lock().await;
        // In this order, a member that leaves and is replaced at once never looks absent.
        let renewed = self.renew_due().await;
        let released = self.release_all().await;
        renewed && released
    }

    async fn renew_due(&self) -> bool {
        loop {
            // Leases that are due soon are renewed together with those that are due, which saves calls.
            let batch = self.state().take_due(Instant::now() + L::RENEWAL / 4, L::BATCH);
            if batch.is_empty() {
                return true;
            }
            let renewed = self.lessor.renew(&batch).await;
            let mut state = self.state();
            let holders = batch.into_iter().map(|(holder, _)| holder);
            match renewed {
                Ok(Renewal { lost, failed }) => {
                    let next = Instant::now() + L::RENEWAL;
                    if failed.is_empty() {
                        state.due.extend(holders.map(|holder| (next, holder)));
                    } else {
                        let failed: HashSet<L::Holder> = failed.into_iter().collect();
                        let count = failed.len();
                        let renewed = holders.filter(|holder| !failed.contains(holder));
                        state.due.extend(renewed.map(|holder| (next, holder)));
                        // Later than what is renewed together with those that are due now.
                        state.retry_at(Instant::now() + L::RENEWAL / 4 + L::RETRY, failed);
                        self.lessor.record_not_renewed(count);
                    }
                    for holder in lost {
                        state.held.remove(&holder);
                    }
                }
                Err(EngineUnavailable) => {
                    let count = holders.len();
                    holders.rev().for_each(|holder| state.fresh.push_front(holder));
                    drop(state);
                    self.lessor.record_not_renewed(count);
                    return false;
                }
            }
        }
    }

    async fn release_all(&self) -> bool {
        // What fails goes behind the others and is not tried again in this call.
        let mut failed: Vec<(L::Holder, L::Release)> = Vec::new();
        let mut is_available = true;
        while is_available {
            let batch = self.state().take_releases(L::BATCH);
            if batch.is_empty() {
                break;
            }
            match self.lessor.release(&batch).await {
                Ok(holders) if holders.is_empty() => {}
                Ok(holders) => {
                    let holders: HashSet<L::Holder> = holders.into_iter().collect();
                    failed.extend(batch.into_iter().filter(|(holder, _)| holders.contains(holder)));
                }
                Err(EngineUnavailable) => {
                    let mut state = self.state();
                    batch.into_iter().rev().for_each(|release| state.releases.push_front(release));
                    is_available = false;
                }
            }
        }
        let is_done = is_available && failed.is_empty();
        if !is_done {
            let mut state = self.state();
            state.releases.extend(failed);
            let dropped = state.drop_releases();
            drop(state);
            self.record_dropped(dropped);
        }
        is_done
    }

    fn record_dropped(&self, count: usize) {
        if count > 0 {
            self.lessor.record_dropped(count);
        }
    }

    fn state(&self) -> MutexGuard<'_, State<L::Holder, L::Lease, L::Release>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H: Clone + Eq + Hash, T: Clone, R> State<H, T, R> {
    /// Takes at most `max` leases that are new or due by `until` off the queues.
    fn take_due(&mut self, until: Instant, max: usize) -> Vec<(H, T)> {
        let mut batch = Vec::new();
        while batch.len() < max
            && let Some(holder) = self.next_due(until)
        {
            if let Some(lease) = self.held.get(&holder) {
                batch.push((holder, lease.clone()));
            }
        }
        batch
    }

    /// The next holder whose lease is new or due. Holders whose lease was given back are returned early, so that they
    /// leave the queue.
    fn next_due(&mut self, until: Instant) -> Option<H> {
        self.fresh.pop_front().or_else(|| {
            let (due, holder) = self.due.front()?;
            let is_due = *due <= until || !self.held.contains_key(holder);
            if is_due { self.due.pop_front().map(|(_, holder)| holder) } else { None }
        })
    }

    /// Has `holders` renewed at `time`, or soon after it.
    fn retry_at(&mut self, time: Instant, holders: impl IntoIterator<Item = H>) {
        let at = self.due.partition_point(|(due, _)| *due <= time);
        let later = self.due.split_off(at);
        self.due.extend(holders.into_iter().map(|holder| (time, holder)));
        self.due.extend(later);
    }

    /// Takes at most `max` releases off their queue. Those of leases that are held again are left out.
    fn take_releases(&mut self, max: usize) -> Vec<(H, R)> {
        let mut batch = Vec::new();
        while batch.len() < max
            && let Some((holder, release)) = self.releases.pop_front()
        {
            if !self.held.contains_key(&holder) {
                batch.push((holder, release));
            }
        }
        batch
    }

    /// Drops the oldest releases beyond [`MAX_RELEASES`]. Returns how many.
    fn drop_releases(&mut self) -> usize {
        let surplus = self.releases.len().saturating_sub(MAX_RELEASES);
        self.releases.drain(..surplus);
        surplus
    }
}

#[cfg(test)]
impl<L: Lessor> HeldLeases<L> {
    /// Renews all leases as if the renewal interval had passed, for tests without [`HeldLeases::run`].
    pub async fn renew_all(&self) -> bool {
        self.make_due();
        self.renew_due().await
    }

    /// Makes all leases due for renewal.
    pub fn make_due(&self) {
        let now = Instant::now();
        self.state().due.iter_mut().for_each(|(due, _)| *due = now);
        self.work.notify_one();
    }

    /// The numbers of held leases, of scheduled renewals, and of waiting releases.
    pub fn counts(&self) -> (usize, usize, usize) {
        let state = self.state();
        (state.held.len(), state.due.len(), state.releases.len())
    }
}
