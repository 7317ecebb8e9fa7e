//! A circuit breaker: no requests are sent for a while to an upstream that keeps failing.
//!
//! This module decides when a request may be sent. The callers decide what counts as a failure. Invariants: while the
//! circuit is not closed, at most one request (the probe) is in flight; the failures of one sender count as one, so that
//! nobody opens the circuit for all others with messages at which the upstream fails, nor keeps it open: whoever sent
//! the last probe lets the others go first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::config;
use crate::protocol::SenderKey;
use crate::telemetry::replicas::ReplicaMetrics;

/// Shared by all threads.
pub(super) struct Circuit {
    limits: config::Circuit,
    metrics: Arc<ReplicaMetrics>,
    /// The number of the replica.
    replica: usize,
    state: Mutex<State>,
}

enum State {
    /// The latest failures, at most `failures` of them, the oldest first. Of each sender only the latest is here.
    Closed(VecDeque<Failure>),
    Open {
        since: Instant,
        /// The sender of the probe that failed at its message. It may send the next one only after twice the time.
        last_probe: Option<SenderKey>,
    },
    /// One [`CircuitPermit`] is the probe.
    Probing,
}

struct Failure {
    at: Instant,
    /// `None` = it does not depend on what was sent.
    sender: Option<SenderKey>,
}

impl Circuit {
    pub fn new(limits: config::Circuit, metrics: Arc<ReplicaMetrics>, replica: usize) -> Self {
        Self { limits, metrics, replica, state: Mutex::new(State::Closed(VecDeque::new())) }
    }

    /// Returns a permit for one request of `sender`; `None` = the circuit is open.
    pub fn try_acquire(&self, sender: &SenderKey, now: Instant) -> Option<CircuitPermit<'_>> {
        let mut state = self.state();
        let is_probe = match &*state {
            State::Closed(_) => false,
            State::Open { since, last_probe } => {
                let waits = if last_probe.as_ref() == Some(sender) { 2 } else { 1 };
                if now.duration_since(*since) < self.limits.open.saturating_mul(waits) {
                    return None;
                }
                true
            }
            State::Probing => return None,
        };
        if is_probe {
            *state = State::Probing;
        }
        Some(CircuitPermit { circuit: self, is_probe })
    }

    fn succeeded(&self, is_probe: bool) {
        if is_probe {
            *self.state() = State::Closed(VecDeque::new());
            self.metrics.circuit_closed(self.replica);
        }
    }

    fn failed(&self, is_probe: bool, failure: Failure) {
        let since = failure.at;
        let last_probe = failure.sender.clone().filter(|_| is_probe);
        let mut state = self.state();
        let opens = match &mut *state {
            State::Closed(failures) => self.record_failure(failures, failure),
            State::Probing => is_probe,
            // Requests from before the circuit opened may still fail.
            State::Open { .. } => false,
        };
        if opens {
            *state = State::Open { since, last_probe };
            drop(state);
            self.metrics.circuit_opened(self.replica);
        }
    }

    /// Records a failure, and returns whether it opens the circuit.
    fn record_failure(&self, failures: &mut VecDeque<Failure>, new: Failure) -> bool {
        failures.retain(|old| {
            let is_recent = new.at.duration_since(old.at) <= self.limits.window;
            is_recent && (new.sender.is_none() || old.sender != new.sender)
        });
        failures.push_back(new);
        failures.len() >= usize::try_from(self.limits.failures).unwrap_or(usize::MAX)
    }

    /// The lock is held for a few instructions, which cannot leave the state inconsistent if they panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A permit for one request. A permit that is dropped without a result counts as neither success nor
/// failure; if it was the probe, the next request becomes the probe.
pub(super) struct CircuitPermit<'a> {
    circuit: &'a Circuit,
    is_probe: bool,
}

impl CircuitPermit<'_> {
    /// Records that the upstream answered, even if it rejected the request.
    pub fn succeeded(mut self) {
        self.circuit.succeeded(std::mem::take(&mut self.is_probe));
    }

    /// Records a failure that this sender's message may have caused, or with `None` one that no message can cause.
    pub fn failed(mut self, sender: Option<SenderKey>, now: Instant) {
        let failure = Failure { at: now, sender };
        self.circuit.failed(std::mem::take(&mut self.is_probe), failure);
    }
}

impl Drop for CircuitPermit<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            let now = Instant::now();
            // With this start time the next request becomes the probe.
            let since = now.checked_sub(self.circuit.limits.open).unwrap_or(now);
            *self.circuit.state() = State::Open { since, last_probe: None };
        }
    }
}

#[cfg(test)]
mod tests;
