//! Facts about the node's own publications through Redis, by which readiness knows that it works.

use std::time::Duration;

use tracing::{info, warn};

use super::definitions::{buckets, metrics};

metrics! {
    /// From a publication of the node's own, sent about every 3 s, to its return from Redis.
    SECONDS = histogram "tidegate_canary_seconds" in buckets::REQUEST;
    /// Publications of the node's own that did not come back from Redis in time. The node is not ready then.
    FAILURES = counter "tidegate_canary_failures_total";
}

/// One came back.
pub fn came_back(after: Duration) {
    SECONDS.get().record(after);
}

/// One did not; `news` where the one before did, or failed otherwise.
pub fn failed(why: &'static str, news: bool) {
    FAILURES.get().increment(1);
    if news {
        warn!(event = "canary_failed", why, "the node is not ready");
    }
}

/// One came back after others that did not.
pub fn recovered() {
    info!(event = "canary_recovered", "publications come back from Redis again");
}
