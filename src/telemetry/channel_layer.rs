//! The Django Channels layer whose messages this node reads.

use tracing::{info, warn};

use super::definitions::{metrics, words};
use super::replies::{Duplicate, duplicates_dropped};
use crate::protocol::{ChannelName, label_enum};

metrics! {
    /// Messages of the channel layer, by outcome.
    MESSAGES = counter "tidegate_channel_layer_messages_total" [outcome: words(&[Outcome::LABELS])];
    /// Payloads of the layer that hold no readable message.
    UNREADABLE = counter "tidegate_channel_layer_unreadable_total" [reason: words(&[BadMessage::LABELS])];
    /// Connections to the layer's mailbox that were lost.
    LOSSES = counter "tidegate_channel_layer_losses_total";
    /// Reads that found the mailbox at its capacity.
    MAILBOX_FULL = counter "tidegate_channel_layer_mailbox_full_total";
    /// Messages in the layer's mailbox at the last measurement.
    MAILBOX_MESSAGES = gauge "tidegate_channel_layer_mailbox_messages";
    /// Groups that had to be joined again.
    MEMBERSHIPS_LOST = counter "tidegate_channel_layer_memberships_lost_total";
    /// Times at which messages of the layer may have been missed.
    GAPS = counter "tidegate_channel_layer_gaps_total";
}

label_enum! {
    /// Why a payload holds no readable message.
    pub enum BadMessage {
        /// It is encrypted under another key, modified or expired, or it is not encrypted.
        Sealed => "sealed",
        /// It is not in the layer's format.
        Malformed => "malformed",
        /// The message is not a map.
        NotAMap => "not_a_map",
        /// The list of channels is neither a text nor a list of texts.
        Members => "members",
    }
}

label_enum! {
    /// What became of a message of the layer.
    pub enum Outcome {
        /// It was appended to its channel's history.
        Appended => "appended",
        /// Another node had already appended it.
        Duplicate => "duplicate",
        /// It was delivered to this node's clients only, because its channel keeps no history.
        Live => "live",
        /// Its type is not forwarded.
        OtherType => "other_type",
        /// Its channel has no subscriber on this node any more.
        NobodyHere => "nobody_here",
        /// Redis refused to append it.
        Refused => "refused",
    }
}

/// A message was read.
pub fn message_read(outcome: Outcome) {
    messages_read(outcome, 1);
}

/// Several messages with the same outcome were read.
pub fn messages_read(outcome: Outcome, count: usize) {
    if count > 0 {
        MESSAGES.at([outcome.label()]).increment(count as u64);
        if outcome == Outcome::Duplicate {
            duplicates_dropped(Duplicate::ChannelLayer, count);
        }
    }
}

/// A payload holds no readable message.
pub fn message_unreadable(why: BadMessage) {
    let why = why.label();
    UNREADABLE.at([why]).increment(1);
    warn!(
        event = "layer_message_unreadable",
        why, "dropped an unreadable message of the channel layer"
    );
}

/// Messages of this type come for this node's channels and are not forwarded; logged once for each type.
pub fn type_not_forwarded(message_type: &str, channel: &ChannelName) {
    warn!(
        event = "layer_type_not_forwarded",
        message_type,
        channel = channel.as_str(),
        "messages of this type are not forwarded to clients: it is not in types of [engine.redis.channels]"
    );
}

/// The mailbox is being read.
pub fn connected() {
    info!(event = "layer_live", "reading the channel layer's mailbox");
}

/// The connection that reads the mailbox is lost.
pub fn connection_lost(why: &str) {
    LOSSES.get().increment(1);
    warn!(event = "layer_lost", why, "lost the connection to the channel layer");
}

/// An attempt to connect failed.
pub fn connect_failed(why: &str) {
    warn!(event = "layer_connect_failed", why, "failed to connect to the channel layer");
}

/// The mailbox held as many messages as its capacity; the backend drops what exceeds it.
pub fn mailbox_full(messages: usize, capacity: usize) {
    MAILBOX_FULL.get().increment(1);
    warn!(
        event = "layer_mailbox_full",
        messages,
        capacity,
        "the mailbox was at the backend's capacity; the backend may have dropped messages"
    );
}

/// The current number of messages in the mailbox.
pub fn mailbox_measured(messages: usize) {
    MAILBOX_MESSAGES.get().set(messages as f64);
}

/// This node had to join groups again.
pub fn memberships_lost(groups: usize) {
    if groups > 0 {
        MEMBERSHIPS_LOST.get().increment(groups as u64);
        warn!(
            event = "layer_memberships_lost",
            groups, "group memberships were lost and have been restored"
        );
    }
}

/// Messages of these channels may have been missed. Their clients are informed.
pub fn messages_missed(channels: usize) {
    GAPS.get().increment(1);
    warn!(event = "layer_gap", channels, "messages of the channel layer may have been missed");
}

/// Redis does not report new messages in the mailbox, so that it is read all the time.
pub fn changes_not_reported() {
    warn!(
        event = "layer_not_tracked",
        "Redis does not permit CLIENT TRACKING: the mailbox is polled, with a delay of up to 10 ms"
    );
}

/// Another node has died. This node takes over what it left for `groups` groups.
pub fn node_died(groups: usize) {
    warn!(event = "layer_node_died", groups, "another node has died without leaving its groups");
}

/// This node takes over channels of another node.
pub fn channels_taken_over(channels: usize) {
    info!(event = "layer_channels_taken_over", channels, "taking over channels of another node");
}

/// No other node has taken over all channels of this node in time.
pub fn handover_incomplete() {
    warn!(
        event = "layer_handover_incomplete",
        "no other node has joined all groups of this node in time"
    );
}
