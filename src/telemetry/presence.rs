//! Facts about presence. Never who.

use metrics::{counter, gauge};
use tracing::debug;

/// What the engine was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Renew,
    Leave,
    List,
    Publish,
}

impl Step {
    fn label(self) -> &'static str {
        match self {
            Self::Renew => "renew",
            Self::Leave => "leave",
            Self::List => "list",
            Self::Publish => "publish",
        }
    }
}

/// A connection of this node became a member of its channel.
pub fn entered() {
    gauge!("tidegate_presence_members").increment(1.0);
}

/// It is one no longer.
pub fn left() {
    gauge!("tidegate_presence_members").decrement(1.0);
}

/// `away` = it cannot be reached; otherwise it refused.
pub fn engine_failed(step: Step, away: bool) {
    let step = step.label();
    counter!("tidegate_presence_engine_failures_total", "step" => step).increment(1);
    debug!(event = "presence_engine_failed", step, away);
}

/// So many joins and leaves were not published: the engine is away or not keeping up.
pub fn not_announced(count: usize) {
    engine_failed(Step::Publish, true);
    debug!(event = "presence_not_announced", count);
}
