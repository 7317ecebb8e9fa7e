//! Reports about connections: from their users to their supervisor, and between the connections to one server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use redis::Client;
use tokio::sync::Notify;

/// Why a connection is given up whose server is no longer the primary.
pub(super) const DEMOTED: &str = "READONLY the server has become a replica";

/// Reports from the users of a connection to its supervisor. Clones share their state; no method blocks.
#[derive(Clone, Default)]
pub struct Health(Arc<Signal>);

#[derive(Default)]
struct Signal {
    raised: Notify,
    give_up_reason: OnceLock<&'static str>,
}

impl Signal {
    fn give_up(&self, reason: &'static str) {
        // A reason that is set already is kept.
        let _ = self.give_up_reason.set(reason);
        self.raised.notify_one();
    }
}

impl Health {
    /// Reports that the connection may be lost, so that it is checked at once.
    pub fn suspect(&self) {
        self.0.raised.notify_one();
    }

    /// Makes the supervisor give the connection up. The first reason is logged.
    pub fn give_up(&self, reason: &'static str) {
        self.0.give_up(reason);
    }

    /// Why the connection must be given up; `None` while nothing was reported.
    pub(super) fn give_up_reason(&self) -> Option<&'static str> {
        self.0.give_up_reason.get().copied()
    }

    /// Completes at the next report.
    pub(super) async fn raised(&self) {
        self.0.raised.notified().await;
    }
}

/// A server by its address. Everything that is connected to one address shares it, whichever database and user each
/// connection has.
#[derive(Default)]
pub(super) struct Server {
    /// The connections to this address, also those that have ended since the last one was added.
    connections: Mutex<Vec<Weak<Signal>>>,
}

impl Server {
    /// The server that `client` connects to.
    pub fn of(client: &Client) -> Arc<Self> {
        // One entry for each address that a config of this process has named.
        static SERVERS: Mutex<BTreeMap<String, Arc<Server>>> = Mutex::new(BTreeMap::new());

        let address = client.get_connection_info().addr().to_string();
        Arc::clone(lock(&SERVERS).entry(address).or_default())
    }

    /// Adds a connection, before it is opened.
    pub fn add(&self, health: &Health) {
        let mut connections = lock(&self.connections);
        connections.retain(|connection| connection.strong_count() > 0);
        connections.push(Arc::downgrade(&health.0));
    }

    /// Makes every connection to this address be checked at once, because one was led to a replica.
    pub fn suspect_all(&self) {
        self.each(|connection| connection.raised.notify_one());
    }

    /// Makes every connection to this address be opened again, because the one that `found` it leads to a server that
    /// was the primary and is not any more. Later reports of a connection that is already given up do not count, so
    /// that they do not close those which replace it.
    pub fn demoted(&self, found: &Health) {
        self.drop_all(found, DEMOTED);
    }

    /// Gives up every connection to this address.
    pub fn give_up_all(&self, reason: &'static str) {
        self.each(|connection| connection.give_up(reason));
    }

    /// The same for another `reason`.
    pub fn drop_all(&self, found: &Health, reason: &'static str) {
        if found.give_up_reason().is_none() {
            self.each(|connection| connection.give_up(reason));
            found.give_up(reason);
        }
    }

    fn each(&self, report: impl Fn(&Signal)) {
        let connections = lock(&self.connections).clone();
        connections.iter().filter_map(Weak::upgrade).for_each(|connection| report(&connection));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
