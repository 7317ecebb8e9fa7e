//! Leases that a thread holds in the engine: renewed while they are held, released when they are given
//! back.
//!
//! This module owns when that happens, in which batches, and what waits while the engine is away. What
//! a lease is and where it is kept is said by a [`Lessor`]. Invariant: giving a lease back waits for
//! nothing, and whatever the engine is not told expires within [`LEASE`].

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep_until};

use crate::redis_link::EngineUnavailable;

/// A lease lives this long without renewal.
pub const LEASE: Duration = Duration::from_secs(60);

/// From one renewal of a lease to the next: two may fail before it expires.
const RENEWAL: Duration = Duration::from_secs(LEASE.as_secs() / 3);
/// Renewals or releases that go to the engine together.
pub const BATCH: usize = 500;
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);
/// Releases that wait for an engine that is away. Beyond it the oldest are forgotten: their leases
/// expire by themselves.
pub const MAX_RELEASES: usize = 20_000;

/// The engine's side of one kind of lease.
pub trait Lessor {
    /// Who has a lease: at most one each.
    type Holder: Copy + Eq + Hash;
    /// What is leased; kept here while it is held.
    type Lease: Clone;

    /// Prolongs leases, at most [`BATCH`], and makes those that the engine does not have: the
    /// holders are there, whatever the engine believed.
    async fn renew(&self, leases: &[(Self::Holder, Self::Lease)]) -> Result<(), EngineUnavailable>;

    /// Ends leases, at most [`BATCH`], some of which may have ended already.
    async fn release(
        &self,
        leases: &[(Self::Holder, Self::Lease)],
    ) -> Result<(), EngineUnavailable>;

    /// So many renewals failed and are tried again.
    fn not_renewed(&self, count: usize);

    /// So many releases are left to expire.
    fn forgotten(&self, count: usize);
}

/// The leases of one thread. [`HeldLeases::run`] does the work.
pub struct HeldLeases<L: Lessor> {
    lessor: L,
    state: RefCell<State<L::Holder, L::Lease>>,
    work: Notify,
    /// Held while the engine is told of releases, so that who waits for all of them also waits for those
    /// under way.
    flushing: Mutex<()>,
}

struct State<H, T> {
    held: HashMap<H, T>,
    /// Held, and not in the engine yet. Holds some that were given back since.
    fresh: VecDeque<H>,
    /// When to renew whom, soonest first. Holds some that were given back since.
    due: VecDeque<(Instant, H)>,
    releases: VecDeque<(H, T)>,
}

impl<L: Lessor> HeldLeases<L> {
    pub fn new(lessor: L) -> Self {
        let state = State {
            held: HashMap::new(),
            fresh: VecDeque::new(),
            due: VecDeque::new(),
            releases: VecDeque::new(),
        };
        Self { lessor, state: RefCell::new(state), work: Notify::new(), flushing: Mutex::default() }
    }

    pub fn lessor(&self) -> &L {
        &self.lessor
    }

    /// Holds a lease that the engine has given until [`HeldLeases::give_back`].
    pub fn keep(&self, holder: L::Holder, lease: L::Lease) {
        let mut state = self.state.borrow_mut();
        state.held.insert(holder, lease);
        state.due.push_back((Instant::now() + RENEWAL, holder));
        if state.due.len() == 1 {
            self.work.notify_one();
        }
    }

    /// Lets the engine know of a lease soon, and holds it until [`HeldLeases::give_back`].
    pub fn take(&self, holder: L::Holder, lease: L::Lease) {
        let mut state = self.state.borrow_mut();
        state.held.insert(holder, lease);
        state.fresh.push_back(holder);
        self.work.notify_one();
    }

    /// Lets the engine know soon. Returns whether there was something to give back.
    pub fn give_back(&self, holder: L::Holder) -> bool {
        let mut state = self.state.borrow_mut();
        let Some(lease) = state.held.remove(&holder) else { return false };
        state.releases.push_back((holder, lease));
        let forgotten = state.forget_releases();
        drop(state);
        self.note_forgotten(forgotten);
        self.work.notify_one();
        true
    }

    /// Somebody else holds it from now on: it is neither renewed nor released here any more.
    pub fn leave(&self, holder: L::Holder) {
        self.state.borrow_mut().held.remove(&holder);
    }

    /// Renews and releases, for as long as the thread lives.
    pub async fn run(&self) {
        loop {
            let next = self.state.borrow().due.front().map(|(due, _)| *due);
            // Without leases there is nothing to wake up for; those who bring work do it.
            let next = next.unwrap_or_else(|| Instant::now() + LEASE);
            tokio::select! {
                () = self.work.notified() => {}
                () = sleep_until(next) => {}
            }
            // In this order, so that who leaves and comes back at once is not missed between.
            let renewed = self.renew_due().await;
            let released = self.flush().await;
            if !(released && renewed) {
                tokio::time::sleep(RETRY).await;
                // What failed is still queued; nobody else would wake us for it.
                self.work.notify_one();
            }
        }
    }

    /// Tells the engine of all releases so far; false if it cannot be told now. For the end of a
    /// thread: what is not told expires.
    pub async fn flush(&self) -> bool {
        let _turn = self.flushing.lock().await;
        loop {
            let batch: Vec<_> = {
                let mut state = self.state.borrow_mut();
                let count = state.releases.len().min(BATCH);
                state.releases.drain(..count).collect()
            };
            if batch.is_empty() {
                return true;
            }
            if self.lessor.release(&batch).await.is_err() {
                let mut state = self.state.borrow_mut();
                batch.into_iter().rev().for_each(|release| state.releases.push_front(release));
                let forgotten = state.forget_releases();
                drop(state);
                self.note_forgotten(forgotten);
                return false;
            }
        }
    }

    /// Tells the engine what is new and renews what is due; false if it cannot be told now.
    async fn renew_due(&self) -> bool {
        loop {
            let batch = self.state.borrow_mut().take_due(Instant::now());
            if batch.is_empty() {
                return true;
            }
            let renewed = self.lessor.renew(&batch).await.is_ok();
            let mut state = self.state.borrow_mut();
            let ids = batch.iter().map(|(id, _)| *id);
            if !renewed {
                ids.rev().for_each(|id| state.fresh.push_front(id));
                drop(state);
                self.lessor.not_renewed(batch.len());
                return false;
            }
            let next = Instant::now() + RENEWAL;
            state.due.extend(ids.map(|id| (next, id)));
        }
    }

    fn note_forgotten(&self, count: usize) {
        if count > 0 {
            self.lessor.forgotten(count);
        }
    }
}

impl<H: Copy + Eq + Hash, T: Clone> State<H, T> {
    /// At most [`BATCH`] leases that are new or due, off their queues.
    fn take_due(&mut self, now: Instant) -> Vec<(H, T)> {
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some(id) = self.next_due(now)
        {
            if let Some(lease) = self.held.get(&id) {
                batch.push((id, lease.clone()));
            }
        }
        batch
    }

    /// Who was given back comes up, too, before its time: it only has to leave the queue.
    fn next_due(&mut self, now: Instant) -> Option<H> {
        self.fresh.pop_front().or_else(|| {
            let (due, id) = self.due.front().copied()?;
            let is_due = due <= now || !self.held.contains_key(&id);
            is_due.then(|| self.due.pop_front()).map(|_| id)
        })
    }

    /// Returns how many.
    fn forget_releases(&mut self) -> usize {
        let surplus = self.releases.len().saturating_sub(MAX_RELEASES);
        self.releases.drain(..surplus);
        surplus
    }
}

#[cfg(test)]
impl<L: Lessor> HeldLeases<L> {
    /// As if the time of a renewal had passed, for those who do not [`HeldLeases::run`].
    pub async fn renew_all(&self) -> bool {
        self.make_due();
        self.renew_due().await
    }

    /// As if the time of a renewal had passed.
    pub fn make_due(&self) {
        let now = Instant::now();
        self.state.borrow_mut().due.iter_mut().for_each(|(due, _)| *due = now);
        self.work.notify_one();
    }

    /// Leases held, renewals to come, and releases that wait.
    pub fn counts(&self) -> (usize, usize, usize) {
        let state = self.state.borrow();
        (state.held.len(), state.due.len(), state.releases.len())
    }
}
