//! What stands before an upstream on all threads: the bound on what is in flight, and the circuit.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::RelayError;
use super::circuit::{Circuit, Pass};
use crate::config;
use crate::telemetry::about::AboutMessage;
use crate::telemetry::upstream::{Outcome, UpstreamFacts};

pub(super) struct Gate {
    pub facts: Arc<UpstreamFacts>,
    in_flight: Arc<Semaphore>,
    circuit: Circuit,
}

impl Gate {
    pub fn new(config: &config::Upstream) -> Self {
        let facts = Arc::new(UpstreamFacts::new(&config.name));
        Self {
            in_flight: Arc::new(Semaphore::new(config.max_in_flight.min(Semaphore::MAX_PERMITS))),
            circuit: Circuit::new(config.circuit, Arc::clone(&facts)),
            facts,
        }
    }

    /// A place in flight and leave to ask. The place comes first, so that no probe is spent on a
    /// request that cannot be made.
    pub fn enter<'a>(&'a self, about: AboutMessage<'a>) -> Result<Entry<'a>, RelayError> {
        let Ok(permit) = Arc::clone(&self.in_flight).try_acquire_owned() else {
            self.facts.not_asked(about, Outcome::Full);
            return Err(RelayError::Busy);
        };
        let started = Instant::now();
        let Some(pass) = self.circuit.pass(started) else {
            self.facts.not_asked(about, Outcome::CircuitOpen);
            return Err(RelayError::Unavailable);
        };
        let facts = Arc::clone(&self.facts);
        facts.place_taken();
        Ok(Entry { about, in_flight: InFlightPermit { facts, _permit: permit }, pass, started })
    }
}

/// One request that is being made.
pub(super) struct Entry<'a> {
    about: AboutMessage<'a>,
    in_flight: InFlightPermit,
    pass: Pass<'a>,
    started: Instant,
}

impl Entry<'_> {
    /// Taken; the place in flight is kept for what goes on.
    pub fn taken(self, outcome: Outcome) -> InFlightPermit {
        self.pass.succeeded();
        self.in_flight.facts.asked(self.about, outcome, self.started.elapsed());
        self.in_flight
    }

    /// Not taken; `reason` is for the log.
    pub fn refused(self, error: RelayError, reason: &str) -> RelayError {
        let outcome = match error {
            RelayError::Busy => Outcome::Busy,
            RelayError::Rejected(_) => Outcome::Rejected,
            RelayError::Unavailable => Outcome::Unavailable,
        };
        if error == RelayError::Unavailable {
            self.in_flight.facts.failed(self.about, reason);
            self.pass.failed(Instant::now());
        } else {
            self.pass.succeeded();
        }
        self.in_flight.facts.asked(self.about, outcome, self.started.elapsed());
        error
    }
}

/// A place in flight, left when dropped.
pub(super) struct InFlightPermit {
    pub facts: Arc<UpstreamFacts>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for InFlightPermit {
    fn drop(&mut self) {
        self.facts.place_left();
    }
}
