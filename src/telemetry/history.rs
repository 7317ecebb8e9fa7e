//! Facts about channels' histories and those who come back to them.

use metrics::counter;
use tracing::{debug, warn};

/// A client asked to resume.
pub fn resumed(recovered: bool) {
    let outcome = if recovered { "recovered" } else { "not_recovered" };
    counter!("tidegate_resumes_total", "outcome" => outcome).increment(1);
    debug!(event = "resumed", outcome, "a client asked to resume");
}

/// Publications were sent to a client from its channel's history.
pub fn replayed(publications: usize) {
    counter!("tidegate_replayed_publications_total").increment(publications as u64);
}

/// This node missed publications of a channel, and has looked for them in its history.
pub fn caught_up(complete: bool) {
    let outcome = if complete { "complete" } else { "lost" };
    counter!("tidegate_catch_ups_total", "outcome" => outcome).increment(1);
    if !complete {
        warn!(
            event = "history_lost",
            "a channel's history does not hold what this node missed; its clients are told"
        );
    }
}
