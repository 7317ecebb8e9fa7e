//! Facts about the process's end.

use std::time::Duration;

use tracing::{info, warn};

/// A signal asked the gateway to stop.
pub fn draining(drain: Duration) {
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
