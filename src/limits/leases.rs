//! The leases of one thread's open connections: renewed while they are open, released when they
//! close.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::{LEASE, SharedLimits};
use crate::protocol::ConnectionId;
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

/// The leases of one thread. Not `Send`: its connections live on that thread, too. [`LeaseSet::run`]
/// does the work, so that closing a connection waits for nothing.
pub struct LeaseSet {
    limits: SharedLimits,
    state: RefCell<State>,
    released: Notify,
}

#[derive(Default)]
struct State {
    /// Lease keys of the connections that are open.
    held: HashMap<ConnectionId, Box<str>>,
    /// When to renew whom, soonest first. Holds some that were released since.
    due: VecDeque<(Instant, ConnectionId)>,
    releases: VecDeque<(Box<str>, ConnectionId)>,
}

/// Releases its connection's lease when dropped.
pub struct Lease {
    set: Rc<LeaseSet>,
    connection: ConnectionId,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.set.remove(self.connection);
    }
}

impl LeaseSet {
    pub fn new(limits: SharedLimits) -> Rc<Self> {
        Rc::new(Self { limits, state: RefCell::default(), released: Notify::new() })
    }

    /// Keeps the lease that [`SharedLimits::acquire`] gave until the guard is dropped.
    pub fn hold(self: &Rc<Self>, route: &str, user: &str, connection: ConnectionId) -> Lease {
        self.add(route, user, connection);
        Lease { set: self.clone(), connection }
    }

    /// Keeps the lease that [`SharedLimits::acquire`] gave until [`LeaseSet::remove`].
    pub fn add(&self, route: &str, user: &str, connection: ConnectionId) {
        let key = self.limits.lease_key(route, user).into();
        let mut state = self.state.borrow_mut();
        state.held.insert(connection, key);
        state.due.push_back((Instant::now() + RENEWAL, connection));
        if state.due.len() == 1 {
            self.released.notify_one();
        }
    }

    /// Lets the engine know soon; nothing happens for a connection that holds no lease.
    pub fn remove(&self, connection: ConnectionId) {
        let mut state = self.state.borrow_mut();
        if let Some(key) = state.held.remove(&connection) {
            state.releases.push_back((key, connection));
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
    fn take_due(&mut self, now: Instant) -> Vec<(Box<str>, ConnectionId)> {
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
