//! Leases that this process holds in the engine: renewed while they are held, released when they are given
//! back.
//!
//! This module owns when that happens, in which batches, and what waits while the engine is unavailable. What
//! a lease is and where it is kept is up to a [`Lessor`]. Invariant: giving a lease back waits for nothing,
//! and whatever the engine does not learn expires there.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::redis_link::EngineUnavailable;

/// How long a lease lives without renewal, where a store does not say otherwise.
pub const LEASE: Duration = Duration::from_secs(60);
/// Releases that wait for an engine that is unavailable. Beyond it the oldest are dropped: their leases
/// expire by themselves.
pub const MAX_RELEASES: usize = 20_000;

/// Without any lease there is nothing to wake up for; those who bring work do it.
const IDLE: Duration = Duration::from_secs(60);

/// The engine's side of one kind of lease.
pub trait Lessor {
    /// Who has a lease: at most one each.
    type Holder: Clone + Eq + Hash;
    /// What is leased; kept here while it is held.
    type Lease: Clone;
    /// What the engine needs to know at the end of a lease.
    type Release: Clone + From<Self::Lease>;

    /// From one renewal of a lease to the next. With the default, two may fail before it expires.
    const RENEWAL: Duration = Duration::from_secs(LEASE.as_secs() / 3);
    /// The pause after a failure.
    const RETRY: Duration = Duration::from_secs(1);
    /// The most renewals or releases that go to the engine together.
    const BATCH: usize = 500;

    /// Renews leases, at most [`Lessor::BATCH`], and makes those that the engine does not have: the holders
    /// are there, whatever the engine believed. Returns the holders whose lease somebody else has now, and
    /// which are no longer held here.
    async fn renew(
        &self,
        leases: &[(Self::Holder, Self::Lease)],
    ) -> Result<Vec<Self::Holder>, EngineUnavailable>;

    /// Ends leases, at most [`Lessor::BATCH`], some of which may have ended already.
    async fn release(
        &self,
        releases: &[(Self::Holder, Self::Release)],
    ) -> Result<(), EngineUnavailable>;

    /// Records that `count` renewals failed and are tried again.
    fn record_not_renewed(&self, _count: usize) {}

    /// Records that `count` leases are left to expire instead of being released.
    fn record_dropped(&self, _count: usize) {}
}

/// The leases of one kind that this process, or one of its threads, holds. [`HeldLeases::run`] does the work.
pub struct HeldLeases<L: Lessor> {
    lessor: L,
    state: Mutex<State<L::Holder, L::Lease, L::Release>>,
    work: Notify,
    /// Locked during [`HeldLeases::flush`], so that a second caller also waits for what is under way.
    flushing: tokio::sync::Mutex<()>,
}

struct State<H, T, R> {
    held: HashMap<H, T>,
    /// Holders whose lease is not in the engine yet. Contains some that were given back since.
    fresh: VecDeque<H>,
    /// When to renew which lease, soonest first. Contains some that were given back since.
    due: VecDeque<(Instant, H)>,
    /// At most [`MAX_RELEASES`].
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

    /// Holds a lease that the engine has given, until it is given back.
    pub fn keep(&self, holder: L::Holder, lease: L::Lease) {
        let mut state = self.state();
        state.held.insert(holder.clone(), lease);
        state.due.push_back((Instant::now() + L::RENEWAL, holder));
        if state.due.len() == 1 {
            self.work.notify_one();
        }
    }

    /// Holds a lease that the engine learns about soon, until it is given back.
    pub fn take(&self, holder: L::Holder, lease: L::Lease) {
        let mut state = self.state();
        state.held.insert(holder.clone(), lease);
        state.fresh.push_back(holder);
        self.work.notify_one();
    }

    /// Ends a lease that is held here; the engine learns it soon. Returns whether it was held.
    pub fn give_back(&self, holder: &L::Holder) -> bool {
        self.give_back_as(holder, L::Release::from)
    }

    /// The same, with what the engine is to know about the end.
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

    /// Ends a lease, whether or not it is held here; the engine learns it soon.
    pub fn release(&self, holder: &L::Holder, release: L::Release) {
        let mut state = self.state();
        state.held.remove(holder);
        state.releases.push_back((holder.clone(), release));
        let dropped = state.drop_releases();
        drop(state);
        self.record_dropped(dropped);
        self.work.notify_one();
    }

    /// Stops holding a lease without ending it: somebody else renews and releases it, or it expires.
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
                // What failed is still queued; nobody else would wake this task for it.
                self.work.notify_one();
            }
        }
    }

    /// Tells the engine about all new leases and all releases so far, and renews what is due. Returns false
    /// if the engine is unavailable: what it does not learn is tried again by [`HeldLeases::run`], or
    /// expires.
    pub async fn flush(&self) -> bool {
        let _lock = self.flushing.lock().await;
        // In this order, so that a member that is replaced at once never looks absent.
        let renewed = self.renew_due().await;
        let released = self.release_all().await;
        renewed && released
    }

    async fn renew_due(&self) -> bool {
        loop {
            // Leases that are due soon are renewed with those that are due, so that calls become fewer.
            let batch = self.state().take_due(Instant::now() + L::RENEWAL / 4, L::BATCH);
            if batch.is_empty() {
                return true;
            }
            let renewed = self.lessor.renew(&batch).await;
            let mut state = self.state();
            let holders = batch.into_iter().map(|(holder, _)| holder);
            match renewed {
                Ok(lost) => {
                    let next = Instant::now() + L::RENEWAL;
                    state.due.extend(holders.map(|holder| (next, holder)));
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
        loop {
            let batch = self.state().take_releases(L::BATCH);
            if batch.is_empty() {
                return true;
            }
            if self.lessor.release(&batch).await.is_err() {
                let mut state = self.state();
                batch.into_iter().rev().for_each(|release| state.releases.push_front(release));
                let dropped = state.drop_releases();
                drop(state);
                self.record_dropped(dropped);
                return false;
            }
        }
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
    /// Takes at most `max` leases off the queues that are new or due by `until`.
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

    /// A holder whose lease was given back is returned before its time as well, to leave the queue.
    fn next_due(&mut self, until: Instant) -> Option<H> {
        self.fresh.pop_front().or_else(|| {
            let (due, holder) = self.due.front()?;
            let is_due = *due <= until || !self.held.contains_key(holder);
            if is_due { self.due.pop_front().map(|(_, holder)| holder) } else { None }
        })
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
    /// Renews as if the time of a renewal had passed, for those who do not [`HeldLeases::run`].
    pub async fn renew_all(&self) -> bool {
        self.make_due();
        self.renew_due().await
    }

    /// As if the time of a renewal had passed.
    pub fn make_due(&self) {
        let now = Instant::now();
        self.state().due.iter_mut().for_each(|(due, _)| *due = now);
        self.work.notify_one();
    }

    /// The leases held, the renewals to come, and the releases that wait.
    pub fn counts(&self) -> (usize, usize, usize) {
        let state = self.state();
        (state.held.len(), state.due.len(), state.releases.len())
    }
}
