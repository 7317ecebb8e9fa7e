//! Facts about the node's own publications through Redis, by which readiness knows that it works.

use std::time::Duration;

use metrics::{counter, histogram};
use tracing::{info, warn};

/// One came back.
pub fn came_back(after: Duration) {
    histogram!("tidegate_canary_seconds").record(after);
}

/// One did not; `news` where the one before did, or failed otherwise.
pub fn failed(why: &'static str, news: bool) {
    counter!("tidegate_canary_failures_total").increment(1);
    if news {
        warn!(event = "canary_failed", why, "the node is not ready");
    }
}

/// One came back after others that did not.
pub fn recovered() {
    info!(event = "canary_recovered", "publications come back from Redis again");
}
