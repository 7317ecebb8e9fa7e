//! Replicas: the several URLs of an upstream, or of the proxy, with their load and their circuits.

use std::sync::atomic::{AtomicBool, Ordering};

use metrics::{Counter, Gauge, SharedString};
use tracing::{info, warn};

use super::definitions::{self, Configured, UPSTREAM, Values, metrics};
use super::log::{MessageFields, message_event};

const REPLICA: Values = Values::Fixed("the number of the URL in `urls`, from 0");
const POOL: Values = Values::Fixed("an upstream, or `[proxy]`");

/// The label and field of the proxy, which no upstream can have.
const PROXY: &str = "[proxy]";

metrics! {
    /// 1 while the circuit is open and no requests are sent to the upstream; with several URLs while those of all are.
    CIRCUIT_OPEN = gauge "tidegate_upstream_circuit_open" [upstream: UPSTREAM];
    /// Messages, replies, sockets and plain requests in flight at each URL of an upstream that has several, or of `[proxy]`.
    REPLICA_IN_FLIGHT = gauge "tidegate_upstream_replica_in_flight" [upstream: POOL, replica: REPLICA], late;
    /// 1 while the circuit of a URL is open, of an upstream or `[proxy]` that has several.
    REPLICA_CIRCUIT_OPEN = gauge "tidegate_upstream_replica_circuit_open" [
        upstream: POOL,
        replica: REPLICA,
    ], late;
    /// Requests that went to another URL, because this one could not be reached or did not take them.
    REPLICA_FAILURES = counter "tidegate_upstream_replica_failures_total" [
        upstream: POOL,
        replica: REPLICA,
    ], late;
}

/// The metrics of the replicas of one upstream, or of the proxy.
pub struct ReplicaMetrics {
    /// The name of the upstream, or [`PROXY`].
    pool: Box<str>,
    /// Whether the circuits of all are open; `None` for the proxy.
    all_open: Option<Gauge>,
    /// In the order of `urls`.
    replicas: Box<[Replica]>,
}

/// The metrics of one of several URLs.
struct Replica {
    is_open: AtomicBool,
    /// `None` = the only URL.
    series: Option<Series>,
}

struct Series {
    in_flight: Gauge,
    circuit: Gauge,
    failures: Counter,
}

impl ReplicaMetrics {
    /// The `replicas` of the upstream called `name`; 1 if it has no URLs.
    pub fn of_upstream(name: &str, replicas: usize) -> Self {
        definitions::register_configured(METRICS, Configured::Upstream, name);
        let all_open = CIRCUIT_OPEN.at([name.to_owned()]);
        all_open.set(0.0);
        Self { all_open: Some(all_open), ..Self::new(name, replicas) }
    }

    pub fn of_proxy(replicas: usize) -> Self {
        Self::new(PROXY, replicas)
    }

    fn new(pool: &str, replicas: usize) -> Self {
        let replica = |number: usize| {
            let labels = || [pool.to_owned(), number.to_string()].map(SharedString::from);
            let series = || Series {
                in_flight: REPLICA_IN_FLIGHT.at(labels()),
                circuit: REPLICA_CIRCUIT_OPEN.at(labels()),
                failures: REPLICA_FAILURES.at(labels()),
            };
            Replica { is_open: AtomicBool::default(), series: (replicas > 1).then(series) }
        };
        Self { pool: pool.into(), all_open: None, replicas: (0..replicas).map(replica).collect() }
    }

    fn series(&self, replica: usize) -> Option<&Series> {
        self.replicas.get(replica)?.series.as_ref()
    }

    /// The circuit of a replica opened.
    pub fn circuit_opened(&self, replica: usize) {
        self.set_circuit(replica, true);
        warn!(
            event = "upstream_circuit_opened",
            upstream = &*self.pool,
            replica,
            "circuit opened: no requests are sent to an upstream for a while"
        );
    }

    /// The circuit of a replica closed.
    pub fn circuit_closed(&self, replica: usize) {
        self.set_circuit(replica, false);
        info!(
            event = "upstream_circuit_closed",
            upstream = &*self.pool,
            replica,
            "circuit closed: an upstream answers again"
        );
    }

    fn set_circuit(&self, replica: usize, is_open: bool) {
        let value = |is_open| if is_open { 1.0 } else { 0.0 };
        if let Some(metrics) = self.replicas.get(replica) {
            metrics.is_open.store(is_open, Ordering::Relaxed);
        }
        if let Some(series) = self.series(replica) {
            series.circuit.set(value(is_open));
        }
        if let Some(gauge) = &self.all_open {
            let all_open = self.replicas.iter().all(|one| one.is_open.load(Ordering::Relaxed));
            gauge.set(value(all_open));
        }
    }

    /// A message, reply, socket or plain request is in flight at a replica, or no longer.
    pub fn load_changed(&self, replica: usize, by: f64) {
        if let Some(series) = self.series(replica) {
            series.in_flight.increment(by);
        }
    }

    /// A message or socket goes to another replica.
    pub fn failed(&self, fields: MessageFields<'_>, replica: usize, reason: &str) {
        if let Some(series) = self.series(replica) {
            series.failures.increment(1);
        }
        let upstream = &*self.pool;
        message_event!(
            info,
            fields,
            event = "upstream_replica_failed",
            upstream,
            replica,
            reason,
            "a request goes to another replica of an upstream"
        );
    }

    /// A plain request goes to another replica.
    pub fn failed_for_request(&self, replica: usize, reason: &str) {
        if let Some(series) = self.series(replica) {
            series.failures.increment(1);
        }
        let upstream = &*self.pool;
        info!(
            event = "upstream_replica_failed",
            upstream, replica, reason, "a request goes to another replica of an upstream"
        );
    }
}
