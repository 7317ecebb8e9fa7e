//! Plain HTTP requests at the replicas of a pool: those of the proxy, and those of a route's path that go to its upstream.
//!
//! They are passed on as they are, so that their bounds and deadlines are the proxy's. This module owns which replica gets
//! one. Unlike messages and sockets they are not refused while all circuits are open: a page of a visitor is worth a try.

use std::time::Instant;

use super::circuit::CircuitPermit;
use super::pool::{BalanceKey, Chosen, Pool, ReplicaLoad, Tried};

/// How a request ended at its replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestEnd {
    /// The replica answered, with whatever status.
    Answered,
    /// No connection to it could be made.
    Unreachable,
    /// It gave no valid answer, or none in time.
    Failed,
    /// It says nothing about the replica: the client broke off, for example.
    Unknown,
}

/// A request and the replica that it goes to. One that is dropped without an end counts as neither success nor failure.
pub struct PlainRequest<'a> {
    pool: &'a Pool,
    by: BalanceKey<'a>,
    replica: usize,
    tried: Tried,
    /// `None` = it is the only replica, or the circuits of all are open.
    circuit: Option<CircuitPermit<'a>>,
    /// `None` = it is the only replica.
    load: Option<ReplicaLoad>,
}

impl Pool {
    /// Chooses a replica for a request.
    pub fn begin_request<'a>(&'a self, by: BalanceKey<'a>) -> PlainRequest<'a> {
        let tried = Tried::default();
        let mut request =
            PlainRequest { pool: self, by, replica: 0, tried, circuit: None, load: None };
        if self.has_several() {
            request.choose(Instant::now());
        }
        request
    }
}

impl PlainRequest<'_> {
    /// Returns the number of the URL that the request goes to.
    pub fn replica(&self) -> usize {
        self.replica
    }

    /// Whether there are other replicas that it might go to.
    pub fn may_move(&self) -> bool {
        self.pool.has_several()
    }

    /// Turns to another replica, because no connection to this one could be made. Returns false if all were tried. `reason`
    /// is for the log.
    pub fn try_another(&mut self, reason: &str) -> bool {
        let now = Instant::now();
        let failed = self.replica;
        if !self.pool.has_several() {
            return false;
        }
        self.end(RequestEnd::Unreachable, now);
        if !self.choose(now) {
            return false;
        }
        self.pool.metrics.failed_for_request(failed, reason);
        true
    }

    /// Records how the request ended. The load is kept for as long as the answer is sent.
    pub fn finish(mut self, end: RequestEnd) -> Option<ReplicaLoad> {
        self.end(end, Instant::now());
        self.load.take()
    }

    fn choose(&mut self, now: Instant) -> bool {
        let Self { pool, by, tried, .. } = *self;
        let (replica, circuit, load) = match pool.choose(by, tried, now) {
            Some(Chosen { replica, circuit, load }) => (replica, Some(circuit), load),
            None => match pool.best(by, tried, now) {
                Some(replica) => (replica, None, pool.load(replica)),
                None => return false,
            },
        };
        (self.replica, self.circuit, self.load) = (replica, circuit, Some(load));
        self.tried = tried.with(replica);
        true
    }

    fn end(&mut self, end: RequestEnd, now: Instant) {
        if end == RequestEnd::Unreachable {
            self.pool.avoid(self.replica, now);
        }
        let Some(circuit) = self.circuit.take() else { return };
        match end {
            RequestEnd::Answered => circuit.succeeded(Instant::now()),
            RequestEnd::Unreachable => circuit.failed(None, now),
            RequestEnd::Failed => circuit.failed(Some(self.by.sender.clone()), now),
            RequestEnd::Unknown => {}
        }
    }
}
