//! The members of one thread: they are in the engine from soon after they enter until they leave.

use std::collections::HashMap;
use std::rc::Rc;

use futures_util::future::join_all;

use super::announcements::Announcements;
use super::{Announcement, Change, Member, PresenceError, PresenceStore};
use crate::leases::{HeldLeases, Lessor};
use crate::protocol::{ChannelName, ConnectionId};
use crate::redis_link::EngineUnavailable;
use crate::telemetry;

/// The members of one thread, whose connections live on it. [`Members::run`] does the work: entering and
/// leaving wait for nothing.
pub struct Members(HeldLeases<Registrar>);

/// A member and its channel, which a lease is for.
pub struct MemberEntry {
    channel: ChannelName,
    member: Member,
}

/// Tells the engine about members, and keeps the changes that it answers for publishing.
struct Registrar {
    store: PresenceStore,
    announcements: Announcements,
}

impl Members {
    pub fn new(store: PresenceStore) -> Self {
        Self(HeldLeases::new(Registrar { store, announcements: Announcements::default() }))
    }

    pub fn enter(&self, channel: &ChannelName, member: Member) {
        telemetry::connections::presence_entered();
        let id = member.connection_id;
        self.0.take(id, Rc::new(MemberEntry { channel: channel.clone(), member }));
    }

    /// Removes the member of `connection`, if it has entered.
    pub fn leave(&self, connection: ConnectionId) {
        if self.0.give_back(&connection) {
            telemetry::connections::presence_left();
        }
    }

    /// Keeps the engine up to date, for as long as the thread lives.
    pub async fn run(&self) {
        self.0.run().await;
    }

    /// Tells the engine about all members who have left so far. Returns false if it is unavailable.
    pub async fn flush(&self) -> bool {
        self.0.flush().await
    }

    /// Takes what is to be published next.
    pub fn next_announcement(&self) -> Option<Announcement> {
        self.0.lessor().announcements.pop()
    }

    /// Completes when there may be something new to publish.
    pub async fn announced(&self) {
        self.0.lessor().announcements.added().await;
    }
}

type MemberEntries = [(ConnectionId, Rc<MemberEntry>)];

impl Registrar {
    /// Calls the engine once for each channel, all at the same time.
    async fn each_channel(
        &self,
        entries: &MemberEntries,
        call: impl AsyncFn(&ChannelName, &[&Member]) -> Result<Vec<Change>, PresenceError>,
    ) -> Result<(), EngineUnavailable> {
        let answers = by_channel(entries).into_iter().map(async |(channel, members)| {
            let answer = call(channel, &members).await;
            (channel, answer)
        });
        let mut reached = Ok(());
        for (channel, answer) in join_all(answers).await {
            match answer {
                Ok(changes) => self.announcements.add(channel, &changes),
                Err(PresenceError::Unavailable) => reached = Err(EngineUnavailable),
                // Another attempt at once would not help: the next renewal does, or the lease expires.
                Err(PresenceError::Refused) => {}
            }
        }
        reached
    }
}

impl Lessor for Registrar {
    type Holder = ConnectionId;
    type Lease = Rc<MemberEntry>;
    type Release = Rc<MemberEntry>;

    async fn renew(&self, entries: &MemberEntries) -> Result<Vec<ConnectionId>, EngineUnavailable> {
        let renew = async |channel: &ChannelName, members: &[&Member]| {
            self.store.renew(channel, members).await
        };
        self.each_channel(entries, renew).await?;
        Ok(Vec::new())
    }

    async fn release(&self, entries: &MemberEntries) -> Result<(), EngineUnavailable> {
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

/// The members by channel, in the order of each channel's first member.
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
    /// As if the time of a renewal had passed.
    pub async fn renew_all(&self) -> bool {
        self.0.renew_all().await
    }
}
