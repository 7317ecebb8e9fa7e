//! The numbers of one node, computed from scrapes of `/metrics`.

use std::time::Instant;

use super::exposition::{Exposition, quantile};

/// The metrics of one point in time.
pub struct Scrape {
    pub at: Instant,
    pub metrics: Exposition,
}

/// The median and the 95th percentile, in seconds; `None` without observations.
pub type Quantiles = Option<(f64, f64)>;

/// The outcomes of failed generations. Cancelled ones are not failures.
const FAILED: [&str; 4] = ["worker_lost", "task_failed", "overdue", "engine_down"];

/// The numbers of one node. Rates are per second.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    pub version: String,
    pub connections: f64,
    pub connects: f64,
    pub refused: f64,
    pub closes: f64,
    pub messages: f64,
    pub publications: f64,
    pub deliveries: f64,
    pub drops: f64,
    pub send_queue_bytes: f64,
    /// Messages, replies and sockets in progress, of all upstreams.
    pub in_flight: f64,
    pub generations: f64,
    pub failed_generations: f64,
    pub first_chunk: Quantiles,
    pub delivery: Quantiles,
    /// The connections to Redis, and whether each is up.
    pub redis: Vec<(String, bool)>,
    /// Whether the subscription is live; `None` with the memory engine.
    pub subscribed: Option<bool>,
    pub upstreams: Vec<UpstreamSummary>,
    pub routes: Vec<RouteSummary>,
}

#[derive(Debug, Clone, Default)]
pub struct UpstreamSummary {
    pub name: String,
    pub in_flight: f64,
    pub requests: f64,
    pub errors: f64,
    pub seconds: Quantiles,
    /// Whether the circuit breaker is open.
    pub is_open: bool,
}

#[derive(Debug, Clone, Default)]
pub struct RouteSummary {
    pub route: String,
    pub connections: f64,
    pub messages: f64,
    pub closes: f64,
    pub generations: f64,
    pub first_chunk: Quantiles,
}

/// The scrapes that numbers are computed from.
struct Between<'a> {
    now: &'a Exposition,
    /// The previous scrape, for rates.
    before: Option<&'a Exposition>,
    /// The time between `before` and `now`.
    seconds: f64,
    /// The scrape at the start of the window for quantiles; `None` = since the start of the gateway.
    window: Option<&'a Exposition>,
}

impl Between<'_> {
    fn gauge(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.now.sum(name, labels).unwrap_or(0.0)
    }

    /// The rate per second. A counter that decreased was reset by a restart.
    fn rate(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let Some(before) = self.before else { return 0.0 };
        let now = self.gauge(name, labels);
        let before = before.sum(name, labels).unwrap_or(0.0);
        let more = if now < before { now } else { now - before };
        if self.seconds > 0.0 { more / self.seconds } else { 0.0 }
    }

    fn quantiles(&self, name: &str, labels: &[(&str, &str)]) -> Quantiles {
        let now = self.now.buckets(name, labels);
        let before = self.window.map(|window| window.buckets(name, labels)).unwrap_or_default();
        Some((quantile(0.5, &now, &before)?, quantile(0.95, &now, &before)?))
    }
}

impl Summary {
    /// Computes rates since the scrape `before`, and quantiles since the scrape `window`.
    pub fn new(now: &Scrape, before: Option<&Scrape>, window: Option<&Scrape>) -> Self {
        let seconds = before.map_or(0.0, |before| (now.at - before.at).as_secs_f64());
        let between = Between {
            now: &now.metrics,
            before: before.map(|scrape| &scrape.metrics),
            seconds,
            window: window.map(|scrape| &scrape.metrics),
        };
        let gauge = |name: &str| between.gauge(name, &[]);
        let rate = |name: &str| between.rate(name, &[]);
        let admitted = between.rate("tidegate_handshakes_total", &[("outcome", "admitted")]);
        let failed = FAILED
            .iter()
            .map(|outcome| between.rate("tidegate_generations_total", &[("outcome", outcome)]));
        let live = now.metrics.sum("tidegate_redis_subscription_live", &[]);
        let redis: Vec<(String, bool)> = now
            .metrics
            .values("tidegate_redis_up", "connection")
            .into_iter()
            .map(|name| {
                let is_up = between.gauge("tidegate_redis_up", &[("connection", &name)]) > 0.0;
                (name, is_up)
            })
            .collect();
        Self {
            version: now
                .metrics
                .values("tidegate_build_info", "version")
                .into_iter()
                .next()
                .unwrap_or_default(),
            connections: gauge("tidegate_connections"),
            connects: admitted,
            refused: (rate("tidegate_handshakes_total") - admitted).max(0.0),
            closes: rate("tidegate_closes_total"),
            messages: rate("tidegate_messages_total"),
            publications: rate("tidegate_publications_total"),
            deliveries: rate("tidegate_deliveries_total"),
            drops: rate("tidegate_delivery_drops_total"),
            send_queue_bytes: gauge("tidegate_send_queue_bytes"),
            in_flight: gauge("tidegate_upstream_in_flight"),
            generations: rate("tidegate_generations_total"),
            failed_generations: failed.sum(),
            first_chunk: between.quantiles("tidegate_generation_first_chunk_seconds", &[]),
            delivery: between.quantiles("tidegate_delivery_latency_seconds", &[]),
            // The memory engine has this series as well, but no connections to Redis.
            subscribed: live.filter(|_| !redis.is_empty()).map(|live| live > 0.0),
            redis,
            upstreams: upstreams(&between),
            routes: routes(&between),
        }
    }
}

fn upstreams(between: &Between<'_>) -> Vec<UpstreamSummary> {
    let names = between.now.values("tidegate_upstream_in_flight", "upstream");
    let upstream = |name: String| {
        let labels = [("upstream", name.as_str())];
        let all = between.rate("tidegate_upstream_requests_total", &labels);
        let successful = ["taken", "streaming"].iter().map(|outcome| {
            between.rate("tidegate_upstream_requests_total", &[labels[0], ("outcome", outcome)])
        });
        let successful: f64 = successful.sum();
        UpstreamSummary {
            in_flight: between.gauge("tidegate_upstream_in_flight", &labels),
            requests: all,
            errors: (all - successful).max(0.0),
            seconds: between.quantiles("tidegate_upstream_request_seconds", &labels),
            is_open: between.gauge("tidegate_upstream_circuit_open", &labels) > 0.0,
            name,
        }
    };
    names.into_iter().map(upstream).collect()
}

fn routes(between: &Between<'_>) -> Vec<RouteSummary> {
    let names = between.now.values("tidegate_connections", "route");
    let route = |route: String| {
        let labels = [("route", route.as_str())];
        RouteSummary {
            connections: between.gauge("tidegate_connections", &labels),
            messages: between.rate("tidegate_messages_total", &labels),
            closes: between.rate("tidegate_closes_total", &labels),
            generations: between.rate("tidegate_generations_total", &labels),
            first_chunk: between.quantiles("tidegate_generation_first_chunk_seconds", &labels),
            route,
        }
    };
    names.into_iter().map(route).collect()
}

#[cfg(test)]
mod tests;
