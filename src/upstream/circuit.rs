//! A circuit breaker: an upstream that keeps failing is left alone for a while.
//!
//! Owns when an upstream may be asked. What counts as a failure is for the callers. Invariant: while
//! the circuit is not closed, at most one request (the probe) is on its way.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::config;
use crate::telemetry::upstreams::UpstreamMetrics;

/// Shared by all threads.
pub(super) struct Circuit {
    limits: config::Circuit,
    metrics: Arc<UpstreamMetrics>,
    state: Mutex<State>,
}

enum State {
    /// Holds the latest failures, at most `failures` of them, the oldest first.
    Closed(VecDeque<Instant>),
    Open {
        since: Instant,
    },
    /// One [`Pass`] is the probe.
    Probing,
}

impl Circuit {
    pub fn new(limits: config::Circuit, metrics: Arc<UpstreamMetrics>) -> Self {
        Self { limits, metrics, state: Mutex::new(State::Closed(VecDeque::new())) }
    }

    /// Leave to ask the upstream once; `None` = the circuit is open.
    pub fn pass(&self, now: Instant) -> Option<Pass<'_>> {
        let mut state = self.state();
        let probe = match *state {
            State::Closed(_) => false,
            State::Open { since } if now.duration_since(since) >= self.limits.open => true,
            State::Open { .. } | State::Probing => return None,
        };
        if probe {
            *state = State::Probing;
        }
        Some(Pass { circuit: self, probe })
    }

    fn succeeded(&self, probe: bool) {
        if probe {
            *self.state() = State::Closed(VecDeque::new());
            self.metrics.circuit_closed();
        }
    }

    fn failed(&self, probe: bool, now: Instant) {
        let mut state = self.state();
        let opens = match &mut *state {
            State::Closed(failures) => self.record_failure(failures, now),
            State::Probing => probe,
            // Requests from before it opened may fail late.
            State::Open { .. } => false,
        };
        if opens {
            *state = State::Open { since: now };
            drop(state);
            self.metrics.circuit_opened();
        }
    }

    fn record_failure(&self, failures: &mut VecDeque<Instant>, now: Instant) -> bool {
        while failures.front().is_some_and(|at| now.duration_since(*at) > self.limits.window) {
            failures.pop_front();
        }
        failures.push_back(now);
        failures.len() >= usize::try_from(self.limits.failures).unwrap_or(usize::MAX)
    }

    /// The lock is held for a few instructions; a panic under it cannot leave half a state.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to ask once. A pass that is dropped without a verdict counts for nothing, and lets another
/// request be the probe.
pub(super) struct Pass<'a> {
    circuit: &'a Circuit,
    probe: bool,
}

impl Pass<'_> {
    /// The upstream answered, whatever it said.
    pub fn succeeded(mut self) {
        self.circuit.succeeded(std::mem::take(&mut self.probe));
    }

    pub fn failed(mut self, now: Instant) {
        self.circuit.failed(std::mem::take(&mut self.probe), now);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.probe {
            let now = Instant::now();
            // Open since so long ago that the next request is the probe.
            let since = now.checked_sub(self.circuit.limits.open).unwrap_or(now);
            *self.circuit.state() = State::Open { since };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const OPEN: Duration = Duration::from_secs(5);

    fn circuit(failures: u32) -> Circuit {
        let limits = config::Circuit { failures, window: Duration::from_secs(10), open: OPEN };
        Circuit::new(limits, Arc::new(UpstreamMetrics::new("test")))
    }

    fn fail(circuit: &Circuit, now: Instant) {
        circuit.pass(now).expect("closed").failed(now);
    }

    #[test]
    fn it_opens_after_failures_within_the_window_only() {
        let (circuit, start) = (circuit(3), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for seconds in [0, 1, 11, 22] {
            fail(&circuit, at(seconds));
        }
        assert!(circuit.pass(at(22)).is_some());
        fail(&circuit, at(23));
        circuit.pass(at(23)).expect("closed").succeeded();
        fail(&circuit, at(24));
        assert!(circuit.pass(at(24)).is_none());
        assert!(circuit.pass(at(28)).is_none());
    }

    #[test]
    fn a_single_probe_decides() {
        let (circuit, start) = (circuit(1), Instant::now());
        let late = circuit.pass(start).expect("closed");
        fail(&circuit, start);
        let probe = circuit.pass(start + OPEN).expect("probe");
        assert!(circuit.pass(start + OPEN).is_none(), "one probe at a time");
        late.succeeded();
        assert!(circuit.pass(start + OPEN).is_none(), "only the probe closes it");
        probe.failed(start + OPEN);
        assert!(circuit.pass(start + OPEN).is_none(), "open again");
        circuit.pass(start + OPEN * 2).expect("probe").succeeded();
        let both = (circuit.pass(start + OPEN * 2), circuit.pass(start + OPEN * 2));
        assert!(both.0.is_some() && both.1.is_some());
    }

    #[test]
    fn an_abandoned_probe_makes_way_for_another() {
        let (circuit, start) = (circuit(1), Instant::now());
        fail(&circuit, start);
        drop(circuit.pass(start + OPEN).expect("probe"));
        let next = Instant::now() + OPEN;
        assert!(circuit.pass(next).is_some());
    }
}
