//! The groups that this node is a member of, when it leaves them, and which of their messages wait.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use crate::broker::history::{Imported, MessageNumber};
use crate::protocol::ChannelName;

/// The most messages of one channel that wait until their numbers are known.
const MAX_UNNUMBERED: usize = 4096;

/// The groups that were joined, and those that are being joined.
#[derive(Default)]
pub(super) struct GroupMembership {
    members: HashMap<ChannelName, Member>,
    /// The channels with held messages that cannot be appended yet.
    waiting: HashSet<ChannelName>,
    /// The channels whose held messages have become ready.
    released: Vec<ChannelName>,
}

struct Member {
    /// Whether the layer has confirmed the membership.
    confirmed: bool,
    /// When to leave the group, because its channel no longer has listeners on this node.
    leave_at: Option<Instant>,
    /// Whether every message since the first that is held has come. Only such messages can be counted.
    subscribed: bool,
    order: Order,
    /// Messages that must not be appended yet, in order.
    held: Vec<HeldMessage>,
}

/// Whether messages can be appended as they arrive.
enum Order {
    /// Messages are held, because earlier ones of other nodes or their own numbers are not known yet.
    Unknown { marker: Option<Marker> },
    /// Nothing before the messages is missing. `next` is the number of the next one, if the layer gives messages no
    /// identity.
    Known { next: Option<MessageNumber> },
}

/// A place among the messages of a channel that all nodes see.
struct Marker {
    number: u64,
    /// How many of the held messages came before it.
    held_before: usize,
}

/// A message that waits, with the time when it was sent if the layer knows that.
#[derive(Debug)]
pub(super) struct HeldMessage {
    pub score: Option<f64>,
    pub imported: Imported,
}

/// Messages of one channel that can be appended now.
pub(super) struct ReadyMessages {
    /// The number of the first message, if the layer gives messages no identity.
    pub first: Option<MessageNumber>,
    pub messages: Vec<Imported>,
}

impl Default for Member {
    fn default() -> Self {
        let order = Order::Unknown { marker: None };
        Self { confirmed: false, leave_at: None, subscribed: false, order, held: Vec::new() }
    }
}

impl Member {
    /// Takes the messages that can be appended, and numbers them.
    fn take_ready(&mut self) -> Option<ReadyMessages> {
        let Order::Known { next } = &mut self.order else { return None };
        let messages: Vec<_> = self.held.drain(..).map(|held| held.imported).collect();
        if messages.is_empty() {
            return None;
        }
        let first = next.clone();
        if let Some(next) = next {
            next.number += messages.len() as i64;
        }
        Some(ReadyMessages { first, messages })
    }
}

impl GroupMembership {
    /// Adds the groups of `channels`, and cancels a leave that was scheduled. Returns those whose membership is not
    /// confirmed yet.
    pub fn join(&mut self, channels: &[ChannelName]) -> Vec<ChannelName> {
        let mut new = Vec::new();
        for channel in channels {
            let member = self.members.entry(channel.clone()).or_default();
            member.leave_at = None;
            if !member.confirmed {
                new.push(channel.clone());
            }
        }
        new
    }

    pub fn confirm(&mut self, channels: &[ChannelName]) {
        for channel in channels {
            if let Some(member) = self.members.get_mut(channel) {
                member.confirmed = true;
            }
        }
    }

    /// Adds a message of a channel. Returns all messages that can be appended now.
    pub fn add(&mut self, channel: &ChannelName, message: HeldMessage) -> Option<ReadyMessages> {
        let member = self.members.get_mut(channel)?;
        if let Order::Unknown { marker } = &mut member.order
            && message.score.is_none()
            && member.held.len() >= MAX_UNNUMBERED
        {
            // Another node appends them, or the history gets a new epoch because there is none.
            member.held.clear();
            *marker = None;
        }
        member.held.push(message);
        let ready = member.take_ready();
        if ready.is_none() {
            self.waiting.insert(channel.clone());
        }
        ready
    }

    /// Takes all messages that were held and can be appended now.
    pub fn take_ready(&mut self) -> Vec<(ChannelName, ReadyMessages)> {
        let members = &mut self.members;
        let take = |name: ChannelName| {
            let ready = members.get_mut(&name)?.take_ready()?;
            Some((name, ready))
        };
        self.released.drain(..).filter_map(take).collect()
    }

    /// Whether messages are held that cannot be appended yet.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Messages of `channels` are held from now on.
    pub fn hold(&mut self, channels: &[ChannelName]) {
        for channel in channels {
            if let Some(member) = self.members.get_mut(channel) {
                member.order = Order::Unknown { marker: None };
            }
        }
    }

    /// Records that the connection of all groups was lost: nothing that comes now follows what came before.
    pub fn interrupt(&mut self) {
        for member in self.members.values_mut() {
            member.subscribed = false;
            member.order = Order::Unknown { marker: None };
            member.held.clear();
        }
        self.waiting.clear();
    }

    /// Records that the messages of `channels` come from now on.
    pub fn record_subscribed(&mut self, channels: &[ChannelName]) {
        for channel in channels {
            if let Some(member) = self.members.get_mut(channel) {
                member.subscribed = true;
            }
        }
    }

    /// Holds messages again that could not be appended, before those that came after them.
    pub fn put_back(&mut self, channel: &ChannelName, messages: Vec<Imported>) {
        let Some(member) = self.members.get_mut(channel) else { return };
        member.order = Order::Unknown { marker: None };
        let mut held: Vec<_> =
            messages.into_iter().map(|imported| HeldMessage { score: None, imported }).collect();
        held.append(&mut member.held);
        member.held = held;
        self.waiting.insert(channel.clone());
    }

    /// Messages can be appended as they arrive, after `earlier` ones that another node had received.
    pub fn release(&mut self, channel: &ChannelName, earlier: Vec<HeldMessage>) {
        let Some(member) = self.members.get_mut(channel) else { return };
        member.order = Order::Known { next: None };
        if !earlier.is_empty() {
            member.held.extend(earlier);
            let score = |held: &HeldMessage| held.score.unwrap_or_default();
            member.held.sort_by(|one, other| score(one).total_cmp(&score(other)));
        }
        self.mark_released(channel);
    }

    /// Counts the messages of `channel` from `origin`, beginning with the first that is held.
    pub fn number_from(&mut self, channel: &ChannelName, origin: &str) {
        if let Some(member) = self.members.get_mut(channel) {
            let next = MessageNumber { origin: origin.to_owned(), number: 1 };
            member.order = Order::Known { next: Some(next) };
            self.mark_released(channel);
        }
    }

    /// Records that the marker with this number came now.
    pub fn record_marker(&mut self, channel: &ChannelName, number: u64) {
        let Some(member) = self.members.get_mut(channel) else { return };
        if member.subscribed
            && let Order::Unknown { marker } = &mut member.order
        {
            *marker = Some(Marker { number, held_before: member.held.len() });
        }
    }

    /// The number of the last message that came, if it is known.
    pub fn last_number(&self, channel: &ChannelName) -> Option<MessageNumber> {
        match &self.members.get(channel)?.order {
            Order::Known { next: Some(MessageNumber { origin, number }) } => {
                Some(MessageNumber { origin: origin.clone(), number: number - 1 })
            }
            _ => None,
        }
    }

    /// Numbers the messages of `channel` like another node, for which `last` was the last message before the marker.
    pub fn align(&mut self, channel: &ChannelName, marker_number: u64, last: MessageNumber) {
        let Some(member) = self.members.get_mut(channel) else { return };
        if let Order::Unknown { marker: Some(marker) } = &member.order
            && marker.number == marker_number
        {
            let number = last.number + 1 - marker.held_before as i64;
            member.order = Order::Known { next: Some(MessageNumber { number, ..last }) };
            self.mark_released(channel);
        }
    }

    fn mark_released(&mut self, channel: &ChannelName) {
        self.waiting.remove(channel);
        self.released.push(channel.clone());
    }

    /// Those of `channels` that are still joined: first those whose messages are held, then the others.
    pub fn partition_held(
        &self,
        channels: Vec<ChannelName>,
    ) -> (Vec<ChannelName>, Vec<ChannelName>) {
        let joined = channels.into_iter().filter(|channel| self.contains(channel));
        joined.partition(|channel| self.is_held(channel))
    }

    /// Whether messages of one of `channels` are held.
    pub fn are_any_held(&self, channels: &[ChannelName]) -> bool {
        channels.iter().any(|channel| self.is_held(channel))
    }

    fn is_held(&self, channel: &ChannelName) -> bool {
        let member = self.members.get(channel);
        member.is_some_and(|member| matches!(member.order, Order::Unknown { .. }))
    }

    pub fn schedule_leave(&mut self, channels: &[ChannelName], at: Instant) {
        for channel in channels {
            if let Some(member) = self.members.get_mut(channel) {
                member.leave_at = Some(at);
            }
        }
    }

    /// The groups whose scheduled leave is due at `now`.
    pub fn due_to_leave(&self, now: Instant) -> Vec<ChannelName> {
        self.filter(|member| member.leave_at.is_some_and(|leave_at| leave_at <= now))
    }

    pub fn remove(&mut self, channels: &[ChannelName]) {
        for channel in channels {
            self.members.remove(channel);
            self.waiting.remove(channel);
        }
    }

    pub fn contains(&self, channel: &ChannelName) -> bool {
        self.members.contains_key(channel)
    }

    /// The groups whose membership is confirmed.
    pub fn confirmed(&self) -> Vec<ChannelName> {
        self.filter(|member| member.confirmed)
    }

    pub fn names(&self) -> Vec<ChannelName> {
        self.filter(|_| true)
    }

    fn filter(&self, matches: impl Fn(&Member) -> bool) -> Vec<ChannelName> {
        self.members
            .iter()
            .filter(|(_, member)| matches(member))
            .map(|(name, _)| name.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests;
