//! Facts about the process's end.

use std::time::Duration;

use tracing::{info, warn};

use super::definitions::metrics;

metrics! {
    /// 1 from the signal to stop on.
    DRAINING = gauge "tidegate_draining";
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
