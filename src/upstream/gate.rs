//! What stands before an upstream on all threads: the bound on what is in flight, and the circuit.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::RelayError;
use super::circuit::{Circuit, Pass};
use crate::config;
use crate::telemetry::log::MessageFields;
use crate::telemetry::upstreams::{RequestOutcome, UpstreamMetrics};

pub(super) struct Gate {
    pub metrics: Arc<UpstreamMetrics>,
    in_flight: Arc<Semaphore>,
    circuit: Circuit,
}

impl Gate {
    pub fn new(config: &config::Upstream) -> Self {
        let metrics = Arc::new(UpstreamMetrics::new(&config.name));
        Self {
            in_flight: Arc::new(Semaphore::new(config.max_in_flight.min(Semaphore::MAX_PERMITS))),
            circuit: Circuit::new(config.circuit, Arc::clone(&metrics)),
            metrics,
        }
    }

    /// A place in flight and leave to ask. The place comes first, so that no probe is spent on a
    /// request that cannot be made.
    pub fn enter<'a>(&'a self, fields: MessageFields<'a>) -> Result<Entry<'a>, RelayError> {
        let Ok(permit) = Arc::clone(&self.in_flight).try_acquire_owned() else {
            self.metrics.request_not_sent(fields, RequestOutcome::Full);
            return Err(RelayError::Busy);
        };
        let started = Instant::now();
        let Some(pass) = self.circuit.pass(started) else {
            self.metrics.request_not_sent(fields, RequestOutcome::CircuitOpen);
            return Err(RelayError::Unavailable);
        };
        let metrics = Arc::clone(&self.metrics);
        metrics.in_flight_started();
        Ok(Entry { fields, in_flight: InFlightPermit { metrics, _permit: permit }, pass, started })
    }
}

/// One request that is being made.
pub(super) struct Entry<'a> {
    fields: MessageFields<'a>,
    in_flight: InFlightPermit,
    pass: Pass<'a>,
    started: Instant,
}

impl Entry<'_> {
    /// Taken; the place in flight is kept for what goes on.
    pub fn taken(self, outcome: RequestOutcome) -> InFlightPermit {
        self.pass.succeeded();
        self.in_flight.metrics.request_finished(self.fields, outcome, self.started.elapsed());
        self.in_flight
    }

    /// Not taken; `reason` is for the log.
    pub fn refused(self, error: RelayError, reason: &str) -> RelayError {
        let outcome = match error {
            RelayError::Busy => RequestOutcome::Busy,
            RelayError::Rejected(_) => RequestOutcome::Rejected,
            RelayError::Unavailable => RequestOutcome::Unavailable,
        };
        if error == RelayError::Unavailable {
            self.in_flight.metrics.request_failed(self.fields, reason);
            self.pass.failed(Instant::now());
        } else {
            self.pass.succeeded();
        }
        self.in_flight.metrics.request_finished(self.fields, outcome, self.started.elapsed());
        error
    }
}

/// A place in flight, left when dropped.
pub(super) struct InFlightPermit {
    pub metrics: Arc<UpstreamMetrics>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for InFlightPermit {
    fn drop(&mut self) {
        self.metrics.in_flight_ended();
    }
}
