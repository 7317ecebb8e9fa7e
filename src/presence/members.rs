//! The members of one thread, which are stored in the engine while their connections are open.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use futures_util::future::join_all;

use super::announcements::Announcements;
use super::{Announcement, Change, Member, PresenceError, PresenceStore};
use crate::leases::{HeldLeases, Lessor, Renewal};
use crate::protocol::{ChannelName, ConnectionId};
use crate::redis_link::EngineUnavailable;
use crate::telemetry;

/// The members whose connections belong to one thread. [`Members::run`] talks to the engine; entering and leaving
/// do not wait for it.
pub struct Members(HeldLeases<Registrar>);

/// A member and its channel, for which a lease is held.
pub struct MemberEntry {
    channel: ChannelName,
    member: Member,
}

/// Registers members in the engine, and queues the changes that it reports.
struct Registrar {
    store: PresenceStore,
    announcements: Announcements,
}

impl Members {
    pub fn new(store: PresenceStore) -> Self {
        Self(HeldLeases::new(Registrar { store, announcements: Announcements::default() }))
    }

    pub fn enter(&self, channel: &ChannelName, member: Member) {
        telemetry::presence::entered();
        let id = member.connection_id;
        self.0.take(id, Rc::new(MemberEntry { channel: channel.clone(), member }));
    }

    /// Removes the member of `connection`, if it has entered.
    pub fn leave(&self, connection: ConnectionId) {
        if self.0.give_back(&connection) {
            telemetry::presence::left();
        }
    }

    /// Keeps the engine up to date, for as long as it is polled.
    pub async fn run(&self) {
        self.0.run().await;
    }

    /// Registers and removes all members that have entered or left so far. Returns false if the engine is unavailable.
    pub async fn flush(&self) -> bool {
        self.0.flush().await
    }

    /// Takes the next announcement to publish.
    pub fn next_announcement(&self) -> Option<Announcement> {
        self.0.lessor().announcements.pop()
    }

    /// Waits until there may be a new announcement.
    pub async fn wait_for_announcement(&self) {
        self.0.lessor().announcements.wait().await;
    }
}

type MemberEntries = [(ConnectionId, Rc<MemberEntry>)];

impl Registrar {
    /// Calls the engine once for each channel, concurrently.
    async fn each_channel(
        &self,
        entries: &MemberEntries,
        call: impl AsyncFn(&ChannelName, &[&Member]) -> Result<Vec<Change>, PresenceError>,
    ) -> Result<Vec<ConnectionId>, EngineUnavailable> {
        let answers = by_channel(entries).into_iter().map(async |(channel, members)| {
            let answer = call(channel, &members).await;
            (channel, answer)
        });
        let mut failed: HashSet<&ChannelName> = HashSet::new();
        for (channel, answer) in join_all(answers).await {
            match answer {
                Ok(changes) => self.announcements.add(channel, &changes),
                Err(PresenceError::Unavailable) => {
                    failed.insert(channel);
                }
                // An immediate retry would not help. The next renewal may succeed, or the lease expires.
                Err(PresenceError::Refused) => {}
            }
        }
        let failed = entries.iter().filter(|(_, entry)| failed.contains(&entry.channel));
        let failed: Vec<_> = failed.map(|(connection, _)| *connection).collect();
        let is_all = !failed.is_empty() && failed.len() == entries.len();
        if is_all { Err(EngineUnavailable) } else { Ok(failed) }
    }
}

impl Lessor for Registrar {
    type Holder = ConnectionId;
    type Lease = Rc<MemberEntry>;
    type Release = Rc<MemberEntry>;

    async fn renew(
        &self,
        entries: &MemberEntries,
    ) -> Result<Renewal<ConnectionId>, EngineUnavailable> {
        let renew = async |channel: &ChannelName, members: &[&Member]| {
            self.store.renew(channel, members).await
        };
        let failed = self.each_channel(entries, renew).await?;
        Ok(Renewal { lost: Vec::new(), failed })
    }

    async fn release(
        &self,
        entries: &MemberEntries,
    ) -> Result<Vec<ConnectionId>, EngineUnavailable> {
        let leave = async |channel: &ChannelName, members: &[&Member]| {
            self.store.leave(channel, members).await
        };
        self.each_channel(entries, leave).await
    }

    fn record_not_renewed(&self, count: usize) {
        telemetry::messages::leases_not_renewed(count);
    }

    fn record_dropped(&self, count: usize) {
        telemetry::messages::releases_forgotten(count);
    }
}

/// Groups the members by channel, in the order of each channel's first member.
fn by_channel(entries: &MemberEntries) -> Vec<(&ChannelName, Vec<&Member>)> {
    let mut groups: Vec<(&ChannelName, Vec<&Member>)> = Vec::new();
    let mut index: HashMap<&ChannelName, usize> = HashMap::new();
    for (_, entry) in entries {
        let at = *index.entry(&entry.channel).or_insert(groups.len());
        match groups.get_mut(at) {
            Some((_, members)) => members.push(&entry.member),
            None => groups.push((&entry.channel, vec![&entry.member])),
        }
    }
    groups
}

#[cfg(test)]
impl Members {
    /// Renews all leases as if the renewal interval had passed.
    pub async fn renew_all(&self) -> bool {
        self.0.renew_all().await
    }
}
