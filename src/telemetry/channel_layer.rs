//! Facts about the Django Channels layer that this node reads.

use metrics::{counter, gauge};
use tracing::{info, warn};

/// What became of a message of the layer; the value of the `outcome` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// To its channel's history.
    Appended,
    /// Another node had appended it.
    Duplicate,
    /// To this node's clients; its channel keeps no history.
    Live,
    /// Not of the types that are forwarded.
    OtherType,
    /// For a channel that nobody here hears any more.
    NobodyHere,
    /// Redis would not append it.
    Refused,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Appended => "appended",
            Self::Duplicate => "duplicate",
            Self::Live => "live",
            Self::OtherType => "other_type",
            Self::NobodyHere => "nobody_here",
            Self::Refused => "refused",
        }
    }
}

/// One message.
pub fn received(outcome: Outcome) {
    received_many(outcome, 1);
}

/// Several with the same outcome.
pub fn received_many(outcome: Outcome, count: usize) {
    if count > 0 {
        counter!("tidegate_channel_layer_messages_total", "outcome" => outcome.label())
            .increment(count as u64);
    }
}

/// A payload that holds no message.
pub fn unreadable(why: &'static str) {
    counter!("tidegate_channel_layer_unreadable_total", "reason" => why).increment(1);
    warn!(event = "layer_message_unreadable", why, "a message of the channel layer is dropped");
}

/// The mailbox is read.
pub fn live() {
    info!(event = "layer_live", "the channel layer's mailbox is read");
}

/// The mailbox is read no more, until there is another connection.
pub fn lost() {
    counter!("tidegate_channel_layer_losses_total").increment(1);
    warn!(event = "layer_lost", "the connection to the channel layer was lost");
}

/// An attempt to connect failed.
pub fn failed(why: &dyn std::fmt::Display) {
    warn!(event = "layer_connect_failed", %why, "the channel layer cannot be reached");
}

/// As many messages lay in the mailbox as the backend puts into one; more would have been dropped there.
pub fn mailbox_full(messages: usize, capacity: usize) {
    counter!("tidegate_channel_layer_mailbox_full_total").increment(1);
    warn!(
        event = "layer_mailbox_full",
        messages,
        capacity,
        "the mailbox held as many messages as the backend's capacity; the backend may have dropped some"
    );
}

/// Messages in the mailbox.
pub fn mailbox_depth(messages: usize) {
    gauge!("tidegate_channel_layer_mailbox_messages").set(messages as f64);
}

/// Groups that this node had to join again.
pub fn memberships_lost(groups: usize) {
    if groups > 0 {
        counter!("tidegate_channel_layer_memberships_lost_total").increment(groups as u64);
        warn!(event = "layer_memberships_lost", groups, "memberships were lost, and made anew");
    }
}

/// Messages for these many channels may have been missed; their clients are told.
pub fn missed(channels: usize) {
    counter!("tidegate_channel_layer_gaps_total").increment(1);
    warn!(event = "layer_gap", channels, "messages of the channel layer may have been missed");
}
