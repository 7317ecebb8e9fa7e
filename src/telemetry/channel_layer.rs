//! Facts about the Django Channels layer that this node reads.

use tracing::{info, warn};

use super::definitions::{labels, metrics, words};
use super::generations::{Duplicate, duplicates_caught};

metrics! {
    /// Messages of the channel layer, by what became of them.
    MESSAGES = counter "tidegate_channel_layer_messages_total" [outcome: words(&[Outcome::LABELS])];
    /// Payloads of the layer without a message in them.
    UNREADABLE = counter "tidegate_channel_layer_unreadable_total" [reason: words(&[UNREADABLE_REASONS])];
    /// Connections to the layer's mailbox that were lost.
    LOSSES = counter "tidegate_channel_layer_losses_total";
    /// Reads that found the mailbox at its capacity.
    MAILBOX_FULL = counter "tidegate_channel_layer_mailbox_full_total";
    /// Messages in the layer's mailbox, when last looked at.
    MAILBOX_MESSAGES = gauge "tidegate_channel_layer_mailbox_messages";
    /// Groups that had to be joined again.
    MEMBERSHIPS_LOST = counter "tidegate_channel_layer_memberships_lost_total";
    /// Times at which messages of the layer may have been missed.
    GAPS = counter "tidegate_channel_layer_gaps_total";
}

const UNREADABLE_REASONS: &[&str] = &["sealed", "malformed", "not_a_map", "members"];

labels! {
    /// What became of a message of the layer; the value of the `outcome` label.
    pub enum Outcome {
        /// To its channel's history.
        Appended = "appended",
        /// Another node had appended it.
        Duplicate = "duplicate",
        /// To this node's clients; its channel keeps no history.
        Live = "live",
        /// Not of the types that are forwarded.
        OtherType = "other_type",
        /// For a channel that nobody here hears any more.
        NobodyHere = "nobody_here",
        /// Redis would not append it.
        Refused = "refused",
    }
}

/// One message.
pub fn received(outcome: Outcome) {
    received_many(outcome, 1);
}

/// Several with the same outcome.
pub fn received_many(outcome: Outcome, count: usize) {
    if count > 0 {
        MESSAGES.at([outcome.label()]).increment(count as u64);
        if outcome == Outcome::Duplicate {
            duplicates_caught(Duplicate::ChannelLayer, count);
        }
    }
}

/// A payload that holds no message.
pub fn unreadable(why: &'static str) {
    UNREADABLE.at([why]).increment(1);
    warn!(event = "layer_message_unreadable", why, "a message of the channel layer is dropped");
}

/// The mailbox is read.
pub fn live() {
    info!(event = "layer_live", "the channel layer's mailbox is read");
}

/// The mailbox is read no more, until there is another connection.
pub fn lost() {
    LOSSES.get().increment(1);
    warn!(event = "layer_lost", "the connection to the channel layer was lost");
}

/// An attempt to connect failed.
pub fn failed(why: &str) {
    warn!(event = "layer_connect_failed", why, "the channel layer cannot be reached");
}

/// As many messages lay in the mailbox as the backend puts into one; more would have been dropped there.
pub fn mailbox_full(messages: usize, capacity: usize) {
    MAILBOX_FULL.get().increment(1);
    warn!(
        event = "layer_mailbox_full",
        messages,
        capacity,
        "the mailbox held as many messages as the backend's capacity; the backend may have dropped some"
    );
}

/// Messages in the mailbox.
pub fn mailbox_depth(messages: usize) {
    MAILBOX_MESSAGES.get().set(messages as f64);
}

/// Groups that this node had to join again.
pub fn memberships_lost(groups: usize) {
    if groups > 0 {
        MEMBERSHIPS_LOST.get().increment(groups as u64);
        warn!(event = "layer_memberships_lost", groups, "memberships were lost, and made anew");
    }
}

/// Messages for these many channels may have been missed; their clients are told.
pub fn missed(channels: usize) {
    GAPS.get().increment(1);
    warn!(event = "layer_gap", channels, "messages of the channel layer may have been missed");
}
