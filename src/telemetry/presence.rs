//! Facts about presence. Never who.

use tracing::debug;

use super::definitions::{labels, metrics, words};

metrics! {
    /// Connections of this node that are members of their channel.
    MEMBERS = gauge "tidegate_presence_members";
    /// Calls about presence that failed.
    ENGINE_FAILURES = counter "tidegate_presence_engine_failures_total" [step: words(&[Step::LABELS])];
}

labels! {
    /// What the engine was asked for.
    pub enum Step {
        Renew = "renew",
        Leave = "leave",
        List = "list",
        Publish = "publish",
    }
}

/// A connection of this node became a member of its channel.
pub fn entered() {
    MEMBERS.get().increment(1.0);
}

/// It is one no longer.
pub fn left() {
    MEMBERS.get().decrement(1.0);
}

/// `away` = it cannot be reached; otherwise it refused.
pub fn engine_failed(step: Step, away: bool) {
    let step = step.label();
    ENGINE_FAILURES.at([step]).increment(1);
    debug!(event = "presence_engine_failed", step, away, "presence could not be kept");
}

/// So many joins and leaves were not published: the engine is away or not keeping up.
pub fn not_announced(count: usize) {
    engine_failed(Step::Publish, true);
    debug!(event = "presence_not_announced", count, "joins and leaves were not published");
}
