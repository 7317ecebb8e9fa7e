//! The leases of one thread's open connections and running generations: renewed while they last,
//! released when they end.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::{Holder, LEASE, Places, SharedLimits};
use crate::telemetry::limits as facts;

/// From one renewal of a lease to the next: two may fail before it expires.
const RENEWAL: Duration = Duration::from_secs(LEASE.as_secs() / 3);
/// Renewals or releases that go to the engine in one write.
const BATCH: usize = 500;
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);
/// Releases that wait for an engine that is away. Beyond it the oldest are forgotten: their leases
/// expire by themselves.
const MAX_RELEASES: usize = 20_000;

/// The leases of one thread. Not `Send`: its holders live on that thread, too. [`LeaseSet::run`] does
/// the work, so that the end of a holder waits for nothing.
pub struct LeaseSet {
    limits: SharedLimits,
    state: RefCell<State>,
    released: Notify,
}

#[derive(Default)]
struct State {
    /// Lease keys of the holders that have not ended.
    held: HashMap<Holder, Box<str>>,
    /// When to renew whom, soonest first. Holds some that were released since.
    due: VecDeque<(Instant, Holder)>,
    releases: VecDeque<(Box<str>, Holder)>,
}

/// Releases its holder's lease when dropped.
pub struct Lease {
    set: Rc<LeaseSet>,
    holder: Holder,
}

impl Lease {
    pub fn holder(&self) -> Holder {
        self.holder
    }

    /// Somebody else renews and releases it from now on.
    pub fn leave(self) {
        self.set.state.borrow_mut().held.remove(&self.holder);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.set.remove(self.holder);
    }
}

impl LeaseSet {
    pub fn new(limits: SharedLimits) -> Rc<Self> {
        Rc::new(Self { limits, state: RefCell::default(), released: Notify::new() })
    }

    /// Keeps the lease that [`SharedLimits::acquire`] gave until the guard is dropped.
    pub fn hold(self: &Rc<Self>, places: Places<'_>, holder: Holder) -> Lease {
        self.add(places, holder);
        Lease { set: self.clone(), holder }
    }

    /// Keeps the lease that [`SharedLimits::acquire`] gave until [`LeaseSet::remove`].
    pub fn add(&self, places: Places<'_>, holder: Holder) {
        let key = self.limits.lease_key(places).into();
        let mut state = self.state.borrow_mut();
        state.held.insert(holder, key);
        state.due.push_back((Instant::now() + RENEWAL, holder));
        if state.due.len() == 1 {
            self.released.notify_one();
        }
    }

    /// Lets the engine know soon; nothing happens for one that holds no lease.
    pub fn remove(&self, holder: Holder) {
        let mut state = self.state.borrow_mut();
        if let Some(key) = state.held.remove(&holder) {
            state.releases.push_back((key, holder));
            state.forget_releases();
            self.released.notify_one();
        }
    }

    /// Renews and releases, for as long as the thread lives.
    pub async fn run(self: Rc<Self>) {
        loop {
            let next = self.state.borrow().due.front().map(|(due, _)| *due);
            // Without leases there is nothing to wake up for; `add` and `remove` do it.
            let next = next.unwrap_or_else(|| Instant::now() + LEASE);
            tokio::select! {
                () = self.released.notified() => {}
                () = sleep_until(next) => {}
            }
            let released = self.flush().await;
            let renewed = self.renew_due().await;
            if !(released && renewed) {
                tokio::time::sleep(RETRY).await;
                // What failed is still queued; nobody else would wake us for it.
                self.released.notify_one();
            }
        }
    }

    /// Tells the engine of all releases so far; false if it cannot be told now. For the end of a
    /// thread: what is not told expires within [`LEASE`].
    pub async fn flush(&self) -> bool {
        loop {
            let batch: Vec<_> = {
                let mut state = self.state.borrow_mut();
                let count = state.releases.len().min(BATCH);
                state.releases.drain(..count).collect()
            };
            if batch.is_empty() {
                return true;
            }
            let holders: Vec<_> = batch.iter().map(|(key, id)| (&**key, *id)).collect();
            if self.limits.release_all(&holders).await.is_err() {
                let mut state = self.state.borrow_mut();
                batch.into_iter().rev().for_each(|release| state.releases.push_front(release));
                state.forget_releases();
                return false;
            }
        }
    }

    /// Renews what is due, in batches; false if the engine cannot be told now.
    async fn renew_due(&self) -> bool {
        loop {
            let batch = self.state.borrow_mut().take_due(Instant::now());
            if batch.is_empty() {
                return true;
            }
            let holders: Vec<_> = batch.iter().map(|(key, id)| (&**key, *id)).collect();
            let renewed = self.limits.renew_all(&holders).await.is_ok();
            let mut state = self.state.borrow_mut();
            if !renewed {
                facts::leases_not_renewed(batch.len());
                let now = Instant::now();
                batch.iter().for_each(|(_, id)| state.due.push_front((now, *id)));
                return false;
            }
            let next = Instant::now() + RENEWAL;
            state.due.extend(batch.iter().map(|(_, id)| (next, *id)));
        }
    }
}

impl State {
    /// At most [`BATCH`] leases that are due, off the queue.
    fn take_due(&mut self, now: Instant) -> Vec<(Box<str>, Holder)> {
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some((due, id)) = self.due.front().copied()
            && (due <= now || !self.held.contains_key(&id))
        {
            self.due.pop_front();
            if let Some(key) = self.held.get(&id) {
                batch.push((key.clone(), id));
            }
        }
        batch
    }

    fn forget_releases(&mut self) {
        let surplus = self.releases.len().saturating_sub(MAX_RELEASES);
        if surplus > 0 {
            self.releases.drain(..surplus);
            facts::releases_forgotten(surplus);
        }
    }
}

#[cfg(test)]
#[path = "leases_tests.rs"]
mod tests;
