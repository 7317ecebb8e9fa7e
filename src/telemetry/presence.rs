//! Presence: members of channels, and the engine's failures.

use tracing::debug;

use super::definitions::{metrics, words};
use crate::protocol::label_enum;

metrics! {
    /// Connections of this node that are members of their channel's presence list.
    PRESENCE_MEMBERS = gauge "tidegate_presence_members";
    /// Presence operations that the engine failed to do.
    PRESENCE_FAILURES = counter "tidegate_presence_engine_failures_total" [step: words(&[PresenceStep::LABELS])];
}

label_enum! {
    /// A presence operation of the engine.
    pub enum PresenceStep {
        Renew => "renew",
        Leave => "leave",
        List => "list",
        Publish => "publish",
    }
}

/// A connection of this node has become a member of its channel.
pub fn entered() {
    PRESENCE_MEMBERS.get().increment(1.0);
}

/// A connection of this node is no longer a member of its channel.
pub fn left() {
    PRESENCE_MEMBERS.get().decrement(1.0);
}

/// The engine failed to do a presence operation: it is `away` if it cannot be reached, or else it refused.
pub fn failed(step: PresenceStep, away: bool) {
    let step = step.label();
    PRESENCE_FAILURES.at([step]).increment(1);
    debug!(event = "presence_engine_failed", step, away, "failed to update or read presence");
}

/// `count` joins and leaves were not published, because the engine is away or too slow.
pub fn not_announced(count: usize) {
    failed(PresenceStep::Publish, true);
    debug!(event = "presence_not_announced", count, "joins and leaves were not published");
}
