//! What two scrapes of `/metrics` and the lists of the server API come to.

use std::collections::HashMap;
use std::time::Instant;

use serde::Deserialize;

use super::exposition::{Exposition, quantile};

/// One scrape.
pub struct Scrape {
    pub at: Instant,
    pub metrics: Exposition,
}

/// Median and 95th percentile, in seconds.
pub type Quantiles = Option<(f64, f64)>;

/// Generations that ended without what was asked for, and not by a client's wish.
const FAILED: [&str; 4] = ["worker_lost", "task_failed", "overdue", "engine_down"];

/// What is shown of one gateway. Rates are per second.
#[derive(Debug, Clone, Default)]
pub struct Facts {
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
    /// Messages, replies and sockets, of all upstreams.
    pub in_flight: f64,
    pub generations: f64,
    pub failed_generations: f64,
    pub first_chunk: Quantiles,
    pub delivery: Quantiles,
    /// Each connection to Redis, and whether it is up.
    pub redis: Vec<(String, bool)>,
    /// `None` on the memory engine.
    pub subscribed: Option<bool>,
    pub upstreams: Vec<UpstreamFacts>,
    pub routes: Vec<RouteFacts>,
}

#[derive(Debug, Clone, Default)]
pub struct UpstreamFacts {
    pub name: String,
    pub in_flight: f64,
    pub requests: f64,
    pub errors: f64,
    pub seconds: Quantiles,
    pub is_open: bool,
}

#[derive(Debug, Clone, Default)]
pub struct RouteFacts {
    pub route: String,
    pub connections: f64,
    pub messages: f64,
    pub closes: f64,
    pub generations: f64,
    pub first_chunk: Quantiles,
}

/// What the first and the last scrape say, and those between which quantiles are taken.
struct Between<'a> {
    now: &'a Exposition,
    before: Option<&'a Exposition>,
    seconds: f64,
    /// `None` = since the gateway's start.
    window: Option<&'a Exposition>,
}

impl Between<'_> {
    fn gauge(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.now.sum(name, labels).unwrap_or(0.0)
    }

    /// A second; a counter that went back began anew.
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

impl Facts {
    /// `before` is the scrape before `now`, `window` an older one, since which quantiles are taken.
    pub fn of(now: &Scrape, before: Option<&Scrape>, window: Option<&Scrape>) -> Self {
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
            // The memory engine has the series as well, and no connection.
            subscribed: live.filter(|_| !redis.is_empty()).map(|live| live > 0.0),
            redis,
            upstreams: upstreams(&between),
            routes: routes(&between),
        }
    }
}

fn upstreams(between: &Between<'_>) -> Vec<UpstreamFacts> {
    let names = between.now.values("tidegate_upstream_in_flight", "upstream");
    let upstream = |name: String| {
        let of = [("upstream", name.as_str())];
        let all = between.rate("tidegate_upstream_requests_total", &of);
        let good = ["taken", "streaming"].iter().map(|outcome| {
            between.rate("tidegate_upstream_requests_total", &[of[0], ("outcome", outcome)])
        });
        let good: f64 = good.sum();
        UpstreamFacts {
            in_flight: between.gauge("tidegate_upstream_in_flight", &of),
            requests: all,
            errors: (all - good).max(0.0),
            seconds: between.quantiles("tidegate_upstream_request_seconds", &of),
            is_open: between.gauge("tidegate_upstream_circuit_open", &of) > 0.0,
            name,
        }
    };
    names.into_iter().map(upstream).collect()
}

fn routes(between: &Between<'_>) -> Vec<RouteFacts> {
    let names = between.now.values("tidegate_connections", "route");
    let route = |route: String| {
        let of = [("route", route.as_str())];
        RouteFacts {
            connections: between.gauge("tidegate_connections", &of),
            messages: between.rate("tidegate_messages_total", &of),
            closes: between.rate("tidegate_closes_total", &of),
            generations: between.rate("tidegate_generations_total", &of),
            first_chunk: between.quantiles("tidegate_generation_first_chunk_seconds", &of),
            route,
        }
    };
    names.into_iter().map(route).collect()
}

/// What the server API lists, over all nodes.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    pub channels: Vec<Channel>,
    pub connections: Vec<Connection>,
    /// There are more than one answer holds, or a node did not answer.
    pub is_partial: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Channel {
    pub channel: String,
    pub connections: u64,
    #[serde(default)]
    pub epoch: Option<String>,
    #[serde(default)]
    pub offset: Option<u64>,
    /// Publications a second, where the channel keeps a history.
    #[serde(skip)]
    pub publications: Option<f64>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Connection {
    pub connection_id: String,
    #[serde(default)]
    pub user_id: Option<serde_json::Value>,
    pub channel: String,
    pub route: String,
    pub node: String,
    pub address: String,
    /// Unix seconds.
    pub connected_at: u64,
    pub send_queue_bytes: u64,
}

/// `GET /v1/channels`.
#[derive(Deserialize)]
pub struct ChannelList {
    pub channels: Vec<Channel>,
    pub next_cursor: Option<serde_json::Value>,
    pub complete: bool,
}

/// `GET /v1/connections`.
#[derive(Deserialize)]
pub struct ConnectionList {
    pub connections: Vec<Connection>,
    pub next_cursor: Option<serde_json::Value>,
    pub complete: bool,
}

impl Lists {
    pub fn of(channels: ChannelList, connections: ConnectionList) -> Self {
        let is_partial = !channels.complete
            || !connections.complete
            || channels.next_cursor.is_some()
            || connections.next_cursor.is_some();
        Self { channels: channels.channels, connections: connections.connections, is_partial }
    }

    /// How fast channels went on since `before`, by their offsets.
    pub fn rate_since(&mut self, before: &Self, seconds: f64) {
        let known: HashMap<&str, &Channel> =
            before.channels.iter().map(|channel| (channel.channel.as_str(), channel)).collect();
        for channel in &mut self.channels {
            let before = known.get(channel.channel.as_str());
            let before = before.filter(|before| before.epoch == channel.epoch);
            channel.publications = before.and_then(|before| {
                let more = channel.offset?.checked_sub(before.offset?)?;
                (seconds > 0.0).then(|| more as f64 / seconds)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn scrape(at: Instant, text: &str) -> Scrape {
        Scrape { at, metrics: Exposition::parse(text).unwrap() }
    }

    #[test]
    fn rates_are_between_two_scrapes() {
        let began = Instant::now();
        let first = scrape(
            began,
            "tidegate_messages_total{route=\"/a\"} 10\ntidegate_closes_total{route=\"/a\"} 9\n",
        );
        let second = scrape(
            began + Duration::from_secs(2),
            "tidegate_connections{route=\"/a\"} 3\ntidegate_messages_total{route=\"/a\"} 30\n\
             tidegate_closes_total{route=\"/a\"} 4\ntidegate_build_info{version=\"1.2\"} 1\n",
        );
        let facts = Facts::of(&second, Some(&first), None);
        assert_eq!((facts.messages, facts.connections), (10.0, 3.0));
        // The gateway began anew.
        assert_eq!(facts.closes, 2.0);
        assert_eq!(facts.version, "1.2");
        assert_eq!(facts.routes[0].messages, 10.0);
        assert_eq!((facts.subscribed, facts.in_flight), (None, 0.0));
        assert_eq!(Facts::of(&second, None, None).messages, 0.0);
    }

    #[test]
    fn channels_go_on_by_their_offsets() {
        let lists = |offset: u64, epoch: &str| Lists {
            channels: vec![Channel {
                channel: "c".to_owned(),
                connections: 1,
                epoch: Some(epoch.to_owned()),
                offset: Some(offset),
                publications: None,
            }],
            ..Lists::default()
        };
        let mut now = lists(30, "a");
        now.rate_since(&lists(10, "a"), 2.0);
        assert_eq!(now.channels[0].publications, Some(10.0));
        now.rate_since(&lists(10, "b"), 2.0);
        assert_eq!(now.channels[0].publications, None);
    }
}
