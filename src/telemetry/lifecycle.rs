//! Facts about the process's end.

use std::time::Duration;

use tracing::{info, warn};

use super::definitions::metrics;

metrics! {
    /// 1 from the signal to stop on.
    DRAINING = gauge "tidegate_draining";
    /// 1 where the last look at `/readyz`, of which each scrape is one, found it ready.
    READY = gauge "tidegate_ready";
}

/// Somebody has looked whether this node is ready.
pub fn ready_seen(ready: bool) {
    READY.get().set(if ready { 1.0 } else { 0.0 });
}

/// A signal asked the gateway to stop.
pub fn draining(drain: Duration) {
    DRAINING.get().set(1.0);
    info!(
        event = "draining",
        drain_seconds = drain.as_secs_f64(),
        "stopping: connections are sent away"
    );
}

/// Everything has ended, or was cut.
pub fn stopped(drained: bool) {
    if drained {
        info!(event = "stopped", "stopped");
    } else {
        warn!(event = "cut", "stopped before everything had ended");
    }
}
