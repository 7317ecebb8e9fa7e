//! Facts about proxied requests.

use std::time::Duration;

use metrics::{counter, histogram};
use tracing::warn;

/// The upstream answered; `took` is to the head of its response.
pub fn answered(status: u16, took: Duration) {
    let class = match status {
        100..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    };
    counter!("tidegate_proxy_requests_total", "outcome" => class).increment(1);
    histogram!("tidegate_proxy_duration_seconds").record(took);
}

/// The gateway answered in its place.
pub fn failed(outcome: &'static str) {
    counter!("tidegate_proxy_requests_total", "outcome" => outcome).increment(1);
}

/// What went wrong on the way.
pub fn broken(error: &(dyn std::error::Error + 'static)) {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    warn!(event = "proxy_failed", %error, cause, "the proxy's upstream cannot be reached");
}
