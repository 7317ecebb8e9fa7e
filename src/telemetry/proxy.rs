//! Facts about proxied requests.

use std::time::Duration;

use tracing::warn;

use super::definitions::{buckets, metrics, words};

metrics! {
    /// Proxied requests, by the class of their status, or why the gateway answered in the upstream's place.
    REQUESTS = counter "tidegate_proxy_requests_total" [outcome: words(&[CLASSES, FAILURES])];
    /// From a proxied request to the head of its response.
    DURATION = histogram "tidegate_proxy_duration_seconds" in buckets::REQUEST;
}

const CLASSES: &[&str] = &["1xx", "2xx", "3xx", "4xx", "5xx"];

const FAILURES: &[&str] =
    &["no_upstream", "bad_target", "unreachable", "timed_out", "client_timed_out", "switched"];

/// The upstream answered; `took` is to the head of its response.
pub fn answered(status: u16, took: Duration) {
    let class = match status {
        100..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    };
    REQUESTS.at([class]).increment(1);
    DURATION.get().record(took);
}

/// The gateway answered in its place.
pub fn failed(outcome: &'static str) {
    REQUESTS.at([outcome]).increment(1);
}

/// What went wrong on the way.
pub fn broken(error: &(dyn std::error::Error + 'static)) {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    warn!(event = "proxy_failed", %error, cause, "the proxy's upstream cannot be reached");
}
