//! Admission of requests to one upstream from all threads: the limit of requests in flight, and the circuit
//! breaker.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::RelayError;
use super::circuit::{Circuit, CircuitPermit};
use crate::config;
use crate::protocol::SenderKey;
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

    /// Acquires an in-flight permit and a permit of the circuit breaker, in this order, so that no probe is
    /// used up for a request that cannot be sent.
    pub fn enter<'a>(
        &'a self,
        fields: MessageFields<'a>,
        sender: &'a SenderKey,
    ) -> Result<PendingRequest<'a>, RelayError> {
        let Ok(permit) = Arc::clone(&self.in_flight).try_acquire_owned() else {
            self.metrics.request_not_sent(fields, RequestOutcome::Full);
            return Err(RelayError::Busy);
        };
        let started = Instant::now();
        let Some(circuit) = self.circuit.try_acquire(started) else {
            self.metrics.request_not_sent(fields, RequestOutcome::CircuitOpen);
            return Err(RelayError::Unavailable);
        };
        let metrics = Arc::clone(&self.metrics);
        metrics.in_flight_started();
        let in_flight = InFlightPermit { metrics, _permit: permit };
        Ok(PendingRequest { fields, sender, in_flight, circuit, started })
    }
}

/// A request that waits for the upstream's decision.
pub(super) struct PendingRequest<'a> {
    fields: MessageFields<'a>,
    sender: &'a SenderKey,
    in_flight: InFlightPermit,
    circuit: CircuitPermit<'a>,
    started: Instant,
}

impl PendingRequest<'_> {
    /// Records that the upstream accepted. The permit is kept for as long as the reply or the socket lasts.
    pub fn accept(self, outcome: RequestOutcome) -> InFlightPermit {
        self.circuit.succeeded();
        self.in_flight.metrics.request_finished(self.fields, outcome, self.started.elapsed());
        self.in_flight
    }

    /// Records that the upstream did not accept, and returns `error`. `reason` is for the log.
    pub fn refuse(self, error: RelayError, reason: &str) -> RelayError {
        let outcome = match error {
            RelayError::Busy => RequestOutcome::Busy,
            RelayError::Rejected(_) => RequestOutcome::Rejected,
            RelayError::Failed => RequestOutcome::Failed,
            RelayError::Redirected => RequestOutcome::Redirected,
            RelayError::HeadTooLarge => RequestOutcome::HeadTooLarge,
            RelayError::Malformed => RequestOutcome::Malformed,
            RelayError::Unavailable | RelayError::Unreachable => RequestOutcome::Unavailable,
        };
        if !matches!(outcome, RequestOutcome::Busy | RequestOutcome::Rejected) {
            self.in_flight.metrics.request_failed(self.fields, reason);
        }
        match error {
            RelayError::Unavailable | RelayError::Malformed => {
                self.circuit.failed(Some(self.sender.clone()), Instant::now());
            }
            RelayError::Unreachable => self.circuit.failed(None, Instant::now()),
            RelayError::Busy
            | RelayError::Rejected(_)
            | RelayError::Failed
            | RelayError::Redirected
            | RelayError::HeadTooLarge => {
                self.circuit.succeeded();
            }
        }
        self.in_flight.metrics.request_finished(self.fields, outcome, self.started.elapsed());
        error
    }
}

/// A permit of `max_in_flight`, released when dropped.
pub(super) struct InFlightPermit {
    pub metrics: Arc<UpstreamMetrics>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for InFlightPermit {
    fn drop(&mut self) {
        self.metrics.in_flight_ended();
    }
}
