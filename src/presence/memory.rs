//! Presence in the memory of this process. It behaves like the scripts of the Redis engine.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Change, Member, Page, PresenceError};
use crate::expiring_map::{SHARDS, Shards};
use crate::protocol::{ChannelName, ConnectionId, UserId};

/// The most members in all channels. Further ones are refused. There are never more members than connections of
/// this process.
const MAX_MEMBERS: usize = 1_000_000;

pub(super) struct MemoryPresence {
    began: Instant,
    lease: Duration,
    /// The members of all shards; at most [`MAX_MEMBERS`].
    count: AtomicUsize,
    /// The channels that have members.
    shards: Shards<HashMap<ChannelName, Channel>>,
}

#[derive(Default)]
struct Channel {
    /// The members, each with the time since `began` at which its lease expires.
    members: BTreeMap<ConnectionId, (Member, Duration)>,
    /// The number of connections of each user; never 0.
    users: HashMap<UserId, u64>,
    /// No lease expires before this time since `began`.
    next_expiry: Duration,
}

impl MemoryPresence {
    pub(super) fn new(lease: Duration) -> Self {
        Self {
            began: Instant::now(),
            lease,
            count: AtomicUsize::new(0),
            shards: Shards::new(SHARDS, HashMap::new),
        }
    }

    /// Renews the leases of `members`, and adds missing members.
    pub(super) fn renew(
        &self,
        name: &ChannelName,
        members: &[&Member],
    ) -> Result<Vec<Change>, PresenceError> {
        self.update(name, |channel, now, changes| {
            let expires = now + self.lease;
            let mut result = Ok(());
            for member in members {
                let known = channel.members.contains_key(&member.connection_id);
                if !known && self.count.load(Ordering::Relaxed) >= MAX_MEMBERS {
                    result = Err(PresenceError::Refused);
                } else {
                    channel.enter(member, expires, changes);
                }
            }
            // Expired members are removed after the renewals, since renewals may be late.
            channel.sweep(now, changes);
            result
        })
    }

    pub(super) fn leave(&self, name: &ChannelName, members: &[&Member]) -> Vec<Change> {
        self.update(name, |channel, now, changes| {
            members.iter().for_each(|member| channel.leave(member.connection_id, changes));
            channel.sweep(now, changes);
            Ok(())
        })
        .unwrap_or_default()
    }

    pub(super) fn list(
        &self,
        name: &ChannelName,
        after: Option<ConnectionId>,
        limit: usize,
    ) -> (Vec<Change>, Page) {
        let mut page =
            Page { members: Vec::new(), more: false, total_connections: 0, total_users: 0 };
        let changes = self.update(name, |channel, now, changes| {
            channel.sweep(now, changes);
            page = channel.page(after, limit);
            Ok(())
        });
        (changes.unwrap_or_default(), page)
    }

    /// Updates a channel atomically.
    fn update(
        &self,
        name: &ChannelName,
        step: impl FnOnce(&mut Channel, Duration, &mut Vec<Change>) -> Result<(), PresenceError>,
    ) -> Result<Vec<Change>, PresenceError> {
        let mut shard = self.shards.lock(name);
        let mut channel = shard.remove(name).unwrap_or_default();
        let before = channel.members.len();
        let mut changes = Vec::new();
        let result = step(&mut channel, self.began.elapsed(), &mut changes);
        let after = channel.members.len();
        self.count.fetch_add(after, Ordering::Relaxed);
        self.count.fetch_sub(before, Ordering::Relaxed);
        if after > 0 {
            shard.insert(name.clone(), channel);
        }
        // Changes are returned even if some members could not be added.
        if changes.is_empty() { result.map(|()| changes) } else { Ok(changes) }
    }
}

impl Channel {
    fn enter(&mut self, member: &Member, expires: Duration, changes: &mut Vec<Change>) {
        if self.members.is_empty() {
            self.next_expiry = expires;
        }
        match self.members.entry(member.connection_id) {
            Entry::Occupied(mut known) => known.get_mut().1 = expires,
            Entry::Vacant(free) => {
                free.insert((member.clone(), expires));
                let is_first = match &member.user_id {
                    None => true,
                    Some(user) => {
                        let connections = self.users.entry(user.clone()).or_default();
                        *connections += 1;
                        *connections == 1
                    }
                };
                record_change(is_first, true, member, changes);
            }
        }
    }

    fn leave(&mut self, connection: ConnectionId, changes: &mut Vec<Change>) {
        let Some((member, _)) = self.members.remove(&connection) else { return };
        let is_last = match &member.user_id {
            None => true,
            Some(user) => {
                let remaining = self.users.get(user).map_or(0, |connections| connections - 1);
                if remaining == 0 {
                    self.users.remove(user);
                } else if let Some(connections) = self.users.get_mut(user) {
                    *connections = remaining;
                }
                remaining == 0
            }
        };
        record_change(is_last, false, &member, changes);
    }

    /// Removes all members whose lease has expired. Does nothing before one of them can have expired.
    fn sweep(&mut self, now: Duration, changes: &mut Vec<Change>) {
        if self.next_expiry > now {
            return;
        }
        let expired: Vec<_> = self
            .members
            .iter()
            .filter(|(_, (_, expires))| *expires <= now)
            .map(|(id, _)| *id)
            .collect();
        expired.into_iter().for_each(|id| self.leave(id, changes));
        self.next_expiry =
            self.members.values().map(|(_, expires)| *expires).min().unwrap_or_default();
    }

    fn page(&self, after: Option<ConnectionId>, limit: usize) -> Page {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut following = self.members.range((from, Bound::Unbounded));
        let members: Vec<_> = following
            .by_ref()
            .take(limit)
            .map(|(_, (member, _))| (member.clone(), self.connections_of(member)))
            .collect();
        Page {
            members,
            more: following.next().is_some(),
            total_connections: self.members.len() as u64,
            total_users: self.users.len() as u64,
        }
    }

    /// The connections of a member's user; 0 for an anonymous member.
    fn connections_of(&self, member: &Member) -> u64 {
        member.user_id.as_ref().and_then(|user| self.users.get(user)).copied().unwrap_or_default()
    }
}

fn record_change(changed: bool, joined: bool, member: &Member, changes: &mut Vec<Change>) {
    if changed && member.events {
        changes.push(Change { joined, member: member.clone() });
    }
}

#[cfg(test)]
mod tests;
