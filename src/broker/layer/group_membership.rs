//! The groups that this node is a member of, and when it leaves them.

use std::collections::HashMap;
use std::time::Instant;

use crate::protocol::ChannelName;

/// The groups that were joined, and those that are being joined.
#[derive(Default)]
pub(super) struct GroupMembership(HashMap<ChannelName, Member>);

#[derive(Default)]
struct Member {
    /// Whether the layer has confirmed the membership.
    confirmed: bool,
    /// When to leave the group, because its channel no longer has listeners on this node.
    leave_at: Option<Instant>,
    /// Messages of the group wait until this time before they are appended.
    deferred_until: Option<Instant>,
}

impl GroupMembership {
    /// Adds the groups of `channels`, and cancels a leave that was scheduled. Returns those whose membership is not
    /// confirmed yet.
    pub fn join(&mut self, channels: &[ChannelName]) -> Vec<ChannelName> {
        let mut new = Vec::new();
        for channel in channels {
            let member = self.0.entry(channel.clone()).or_default();
            member.leave_at = None;
            if !member.confirmed {
                new.push(channel.clone());
            }
        }
        new
    }

    pub fn confirm(&mut self, channels: &[ChannelName]) {
        for channel in channels {
            if let Some(member) = self.0.get_mut(channel) {
                member.confirmed = true;
            }
        }
    }

    pub fn defer(&mut self, channel: &ChannelName, until: Instant) {
        if let Some(member) = self.0.get_mut(channel) {
            member.deferred_until = Some(until);
        }
    }

    /// The time until which messages of `channel` wait, if they are deferred.
    pub fn deferred_until(&self, channel: &ChannelName) -> Option<Instant> {
        self.0.get(channel)?.deferred_until
    }

    pub fn end_deferral(&mut self, channel: &ChannelName) {
        if let Some(member) = self.0.get_mut(channel) {
            member.deferred_until = None;
        }
    }

    pub fn schedule_leave(&mut self, channels: &[ChannelName], at: Instant) {
        for channel in channels {
            if let Some(member) = self.0.get_mut(channel) {
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
            self.0.remove(channel);
        }
    }

    pub fn contains(&self, channel: &ChannelName) -> bool {
        self.0.contains_key(channel)
    }

    /// The groups whose membership is confirmed.
    pub fn confirmed(&self) -> Vec<ChannelName> {
        self.filter(|member| member.confirmed)
    }

    pub fn names(&self) -> Vec<ChannelName> {
        self.filter(|_| true)
    }

    fn filter(&self, matches: impl Fn(&Member) -> bool) -> Vec<ChannelName> {
        self.0.iter().filter(|(_, member)| matches(member)).map(|(name, _)| name.clone()).collect()
    }
}
