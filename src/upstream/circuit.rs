//! A circuit breaker: no requests are sent for a while to an upstream that keeps failing.
//!
//! This module decides when a request may be sent. The callers decide what counts as a failure. Invariants: while the
//! circuit is not closed, at most one request (the probe) is in flight; the failures of one sender count as one, so that
//! nobody opens the circuit for all others with messages at which the upstream fails, nor keeps it open: whoever sent
//! the last probe lets the others go first; and requests that get no answer in time open it only if they are more than
//! those that get one, so that one slow kind of request does not close the way for quick ones.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
    Closed(Closed),
    Open {
        since: Instant,
        /// The sender of the probe that failed at its message. It may send the next one only after twice the time.
        last_probe: Option<SenderKey>,
    },
    /// One [`CircuitPermit`] is the probe.
    Probing,
}

#[derive(Default)]
struct Closed {
    /// The latest failures, at most `failures` of them, the oldest first. Of each sender only the latest is here.
    failures: VecDeque<Failure>,
    /// How many requests were answered, and how many were not in time.
    answered: Recent,
    timed_out: Recent,
}

struct Failure {
    at: Instant,
    /// `None` = it does not depend on what was sent.
    sender: Option<SenderKey>,
    /// There was no answer in time, which the kind of request may have caused.
    is_timeout: bool,
}

/// Counts what happened in the last one to two windows.
#[derive(Default)]
struct Recent {
    /// When the current window began.
    since: Option<Instant>,
    current: u64,
    previous: u64,
}

impl Recent {
    fn add(&mut self, now: Instant, window: Duration) {
        self.turn(now, window);
        self.current = self.current.saturating_add(1);
    }

    fn count(&mut self, now: Instant, window: Duration) -> u64 {
        self.turn(now, window);
        self.current.saturating_add(self.previous)
    }

    /// Begins a new window if the current one is over.
    fn turn(&mut self, now: Instant, window: Duration) {
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since);
        if passed >= window {
            let is_next = passed < window.saturating_mul(2);
            self.previous = if is_next { self.current } else { 0 };
            self.current = 0;
            self.since = Some(now);
        }
    }
}

impl Circuit {
    pub fn new(limits: config::Circuit, metrics: Arc<ReplicaMetrics>, replica: usize) -> Self {
        Self { limits, metrics, replica, state: Mutex::new(State::Closed(Closed::default())) }
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

    fn succeeded(&self, is_probe: bool, now: Instant) {
        if is_probe {
            *self.state() = State::Closed(Closed::default());
            self.metrics.circuit_closed(self.replica);
        }
        if let State::Closed(closed) = &mut *self.state() {
            closed.answered.add(now, self.limits.window);
        }
    }

    fn failed(&self, is_probe: bool, failure: Failure) {
        let since = failure.at;
        let last_probe = failure.sender.clone().filter(|_| is_probe);
        let mut state = self.state();
        let opens = match &mut *state {
            State::Closed(closed) => self.record_failure(closed, failure),
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
    ///
    /// An upstream that answers most requests works, so that those which it does not answer in time are slow by
    /// themselves, and others do not suffer for them.
    fn record_failure(&self, closed: &mut Closed, new: Failure) -> bool {
        let Closed { failures, answered, timed_out } = closed;
        let (now, window) = (new.at, self.limits.window);
        if new.is_timeout {
            timed_out.add(now, window);
        }
        failures.retain(|old| {
            let is_recent = now.duration_since(old.at) <= window;
            is_recent && (new.sender.is_none() || old.sender != new.sender)
        });
        failures.push_back(new);
        let limit = usize::try_from(self.limits.failures).unwrap_or(usize::MAX);
        if failures.len() > limit {
            failures.pop_front();
        }
        let are_timeouts_most = timed_out.count(now, window) > answered.count(now, window);
        let counting = failures.iter().filter(|it| !it.is_timeout || are_timeouts_most);
        counting.count() >= limit
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
    pub fn succeeded(mut self, now: Instant) {
        self.circuit.succeeded(std::mem::take(&mut self.is_probe), now);
    }

    /// Records a failure that this sender's message may have caused, or with `None` one that no message can cause.
    pub fn failed(mut self, sender: Option<SenderKey>, now: Instant) {
        let failure = Failure { at: now, sender, is_timeout: false };
        self.circuit.failed(std::mem::take(&mut self.is_probe), failure);
    }

    /// Records that there was no answer to this sender's request in time.
    pub fn timed_out(mut self, sender: SenderKey, now: Instant) {
        let failure = Failure { at: now, sender: Some(sender), is_timeout: true };
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
