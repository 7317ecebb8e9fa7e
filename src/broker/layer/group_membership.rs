//! Which groups this node is in, and until when.

use std::collections::HashMap;
use std::time::Instant;

use crate::protocol::ChannelName;

/// The groups that were joined, and those that are being joined.
#[derive(Default)]
pub(super) struct GroupMembership(HashMap<ChannelName, Member>);

#[derive(Default)]
struct Member {
    /// The layer has confirmed it.
    settled: bool,
    /// Nobody here hears it; its group is left then.
    leaves: Option<Instant>,
    /// What is read of it waits until then.
    deferred: Option<Instant>,
}

impl GroupMembership {
    /// They are heard from now on. Returns those whose membership is not confirmed.
    pub fn join(&mut self, channels: &[ChannelName]) -> Vec<ChannelName> {
        let mut new = Vec::new();
        for channel in channels {
            let member = self.0.entry(channel.clone()).or_default();
            member.leaves = None;
            if !member.settled {
                new.push(channel.clone());
            }
        }
        new
    }

    pub fn joined(&mut self, channels: &[ChannelName]) {
        for channel in channels {
            if let Some(member) = self.0.get_mut(channel) {
                member.settled = true;
            }
        }
    }

    pub fn defer(&mut self, channel: &ChannelName, until: Instant) {
        if let Some(member) = self.0.get_mut(channel) {
            member.deferred = Some(until);
        }
    }

    /// Until when what is read of `channel` waits, if it does.
    pub fn deferred(&self, channel: &ChannelName) -> Option<Instant> {
        self.0.get(channel)?.deferred
    }

    pub fn undeferred(&mut self, channel: &ChannelName) {
        if let Some(member) = self.0.get_mut(channel) {
            member.deferred = None;
        }
    }

    pub fn leave_at(&mut self, channels: &[ChannelName], at: Instant) {
        for channel in channels {
            if let Some(member) = self.0.get_mut(channel) {
                member.leaves = Some(at);
            }
        }
    }

    /// Those that are to be left by `now`.
    pub fn due(&self, now: Instant) -> Vec<ChannelName> {
        self.named(|member| member.leaves.is_some_and(|leaves| leaves <= now))
    }

    pub fn forget(&mut self, channels: &[ChannelName]) {
        for channel in channels {
            self.0.remove(channel);
        }
    }

    pub fn contains(&self, channel: &ChannelName) -> bool {
        self.0.contains_key(channel)
    }

    /// Those whose membership is confirmed.
    pub fn settled(&self) -> Vec<ChannelName> {
        self.named(|member| member.settled)
    }

    pub fn names(&self) -> Vec<ChannelName> {
        self.named(|_| true)
    }

    fn named(&self, which: impl Fn(&Member) -> bool) -> Vec<ChannelName> {
        self.0.iter().filter(|(_, member)| which(member)).map(|(name, _)| name.clone()).collect()
    }
}
