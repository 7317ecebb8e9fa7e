//! Admission of requests to one upstream from all threads: the limit of requests in flight, and the replica with its
//! circuit breaker.

use std::sync::Arc;
use std::time::Instant;

use super::RelayError;
use super::circuit::CircuitPermit;
use super::pool::{BalanceKey, Chosen, Pool, ReplicaLoad, Tried};
use crate::config::{self, UpstreamKind};
use crate::protocol::{SenderKey, Template};
use crate::shares::{NoPermit, SharePermit, Shares, share_of};
use crate::telemetry::log::MessageFields;
use crate::telemetry::replicas::ReplicaMetrics;
use crate::telemetry::upstreams::{RequestOutcome, UpstreamMetrics};

/// The least share of a queue where none is configured. A short queue is full soon, but not because of one client: most of
/// its tasks have left the queue.
const MIN_TASKS: usize = 64;

pub(super) struct Gate {
    pub metrics: Arc<UpstreamMetrics>,
    in_flight: Shares<SenderKey>,
    /// The tasks of each client that wait in a queue or are in progress; `None` = they are not bounded.
    tasks: Option<Shares<SenderKey>>,
    pub pool: Pool,
}

impl Gate {
    pub fn new(config: &config::Upstream) -> Self {
        let replicas = config.urls().len().max(1);
        let replicas = ReplicaMetrics::of_upstream(&config.name, replicas);
        let urls = config.urls().iter().map(Template::as_str);
        Self {
            in_flight: Shares::new(
                config.max_in_flight,
                share_of(config.max_in_flight, config.max_in_flight_per_user),
            ),
            tasks: tasks(&config.kind),
            pool: Pool::new(urls, config.balance, config.circuit, replicas),
            metrics: Arc::new(UpstreamMetrics::new(&config.name)),
        }
    }

    /// Acquires a permit for a task of `sender` in the queue. `None` if the queue is not bounded.
    pub fn enter_queue(
        &self,
        fields: MessageFields<'_>,
        sender: &SenderKey,
    ) -> Result<Option<TaskPermit>, RelayError> {
        let Some(tasks) = &self.tasks else { return Ok(None) };
        tasks.try_acquire(sender).map(|permit| Some(TaskPermit(permit))).map_err(|_| {
            self.metrics.request_not_sent(fields, RequestOutcome::ShareFull);
            RelayError::Busy
        })
    }

    /// Acquires an in-flight permit of `sender` and a permit of the circuit breaker, in this order, so that no probe is
    /// used up for a request that cannot be sent.
    pub fn enter<'a>(
        &'a self,
        fields: MessageFields<'a>,
        sender: &'a SenderKey,
    ) -> Result<PendingRequest<'a>, RelayError> {
        let permit = self.in_flight.try_acquire(sender).map_err(|refused| {
            let outcome = match refused {
                NoPermit::Full => RequestOutcome::Full,
                NoPermit::ShareFull => RequestOutcome::ShareFull,
            };
            self.metrics.request_not_sent(fields, outcome);
            RelayError::Busy
        })?;
        let started = Instant::now();
        let by = BalanceKey { channel: fields.connection.channel, sender };
        let Some(chosen) = self.pool.choose(by, Tried::default(), started) else {
            self.metrics.request_not_sent(fields, RequestOutcome::CircuitOpen);
            return Err(RelayError::Unavailable);
        };
        let metrics = Arc::clone(&self.metrics);
        metrics.in_flight_started();
        let in_flight = InFlightPermit { metrics, _permit: permit, _load: chosen.load };
        let Chosen { replica, circuit, .. } = chosen;
        let tried = Tried::default().with(replica);
        Ok(PendingRequest {
            pool: &self.pool,
            fields,
            sender,
            in_flight,
            circuit,
            replica,
            tried,
            started,
        })
    }
}

/// A request that waits for the upstream's decision.
pub(super) struct PendingRequest<'a> {
    pool: &'a Pool,
    fields: MessageFields<'a>,
    sender: &'a SenderKey,
    in_flight: InFlightPermit,
    circuit: CircuitPermit<'a>,
    /// The number of the replica that it goes to.
    replica: usize,
    tried: Tried,
    started: Instant,
}

impl PendingRequest<'_> {
    /// Returns the number of the URL that the request goes to.
    pub fn replica(&self) -> usize {
        self.replica
    }

    /// Turns to another replica, because this one could not be reached or its answer lets the request be sent again.
    /// Returns false if there is none. `reason` is for the log.
    pub fn try_another(&mut self, error: &RelayError, reason: &str) -> bool {
        let now = Instant::now();
        let by = BalanceKey { channel: self.fields.connection.channel, sender: self.sender };
        let chosen = self.pool.choose(by, self.tried, now);
        let Some(Chosen { replica, circuit, load }) = chosen else { return false };
        let failed = std::mem::replace(&mut self.circuit, circuit);
        if *error == RelayError::Unreachable {
            failed.failed(None, now);
            self.pool.avoid(self.replica, now);
        } else {
            failed.failed(Some(self.sender.clone()), now);
        }
        self.pool.metrics.failed(self.fields, self.replica, reason);
        self.in_flight._load = load;
        self.replica = replica;
        self.tried = self.tried.with(replica);
        true
    }

    /// Records that the upstream accepted. The permit is kept for as long as the reply or the socket lasts.
    pub fn accept(self, outcome: RequestOutcome) -> InFlightPermit {
        self.circuit.succeeded(Instant::now());
        self.in_flight.metrics.request_finished(self.fields, outcome, self.started.elapsed());
        self.in_flight
    }

    /// Records that the upstream did not accept, and returns `error`. `reason` is for the log.
    pub fn refuse(self, error: RelayError, reason: &str) -> RelayError {
        let outcome = match error {
            RelayError::Busy | RelayError::Limited(_) => RequestOutcome::Busy,
            RelayError::Rejected(_) => RequestOutcome::Rejected,
            RelayError::Failed => RequestOutcome::Failed,
            RelayError::Redirected => RequestOutcome::Redirected,
            RelayError::HeadTooLarge => RequestOutcome::HeadTooLarge,
            RelayError::Malformed => RequestOutcome::Malformed,
            RelayError::Unavailable
            | RelayError::UnavailableFor(_)
            | RelayError::TimedOut
            | RelayError::Unreachable => RequestOutcome::Unavailable,
        };
        if !matches!(outcome, RequestOutcome::Busy | RequestOutcome::Rejected) {
            self.in_flight.metrics.request_failed(self.fields, reason);
        }
        match error {
            RelayError::Unavailable | RelayError::UnavailableFor(_) | RelayError::Malformed => {
                self.circuit.failed(Some(self.sender.clone()), Instant::now());
            }
            RelayError::TimedOut => {
                self.circuit.timed_out(self.sender.clone(), Instant::now());
            }
            RelayError::Unreachable => {
                let now = Instant::now();
                self.circuit.failed(None, now);
                self.pool.avoid(self.replica, now);
            }
            RelayError::Busy
            | RelayError::Limited(_)
            | RelayError::Rejected(_)
            | RelayError::Failed
            | RelayError::Redirected
            | RelayError::HeadTooLarge => {
                self.circuit.succeeded(Instant::now());
            }
        }
        self.in_flight.metrics.request_finished(self.fields, outcome, self.started.elapsed());
        error
    }
}

/// A permit of `max_in_flight`, released when dropped.
pub struct InFlightPermit {
    pub(super) metrics: Arc<UpstreamMetrics>,
    _permit: SharePermit<SenderKey>,
    _load: ReplicaLoad,
}

/// A permit for a task, held until its reply has ended.
#[derive(Debug)]
#[expect(dead_code, reason = "a guard does its work when it is dropped")]
pub struct TaskPermit(SharePermit<SenderKey>);

/// One client's tasks are bounded by its share of the queue, whose length the workers' Redis bounds.
fn tasks(kind: &UpstreamKind) -> Option<Shares<SenderKey>> {
    let (max_len, configured) = match kind {
        UpstreamKind::RedisStream(queue) | UpstreamKind::RedisList(queue) => {
            (queue.max_len, queue.max_len_per_user)
        }
        UpstreamKind::Celery(celery) => (celery.max_len, celery.max_len_per_user),
        UpstreamKind::Http(_) | UpstreamKind::WebSocket(_) => return None,
    };
    let max_len = usize::try_from(max_len).unwrap_or(usize::MAX);
    let configured = usize::try_from(configured).unwrap_or(usize::MAX);
    let share = match configured {
        0 => share_of(max_len, 0).max(MIN_TASKS),
        configured => configured,
    };
    (max_len > 0).then(|| Shares::new(usize::MAX, share))
}

impl Drop for InFlightPermit {
    fn drop(&mut self) {
        self.metrics.in_flight_ended();
    }
}
