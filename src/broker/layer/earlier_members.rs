//! Reads what still goes to the mailboxes of earlier members of a group alone, after this node has joined it.
//!
//! A sender of the core layer reads the members of a group and then sends, so for a while its messages may go to the
//! earlier members alone, and they may have died. The sender's next message comes to this node as well. Invariant:
//! between taking messages out of its own mailbox and appending them, this node reads those mailboxes, in which
//! everything is that the same senders have sent before. So each sender's messages keep their order, no matter how long
//! it takes to send.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::group_membership::HeldMessage;
use super::{Layer, Wire};
use crate::broker::history::{ListenerState, Registered};
use crate::channel_layer::{
    MailboxMessage, MailboxNames, MailboxPosition, Memberships, Unconfirmed,
};
use crate::protocol::ChannelName;
use crate::redis_link::{Answers, EngineUnavailable, RedisFailure};

/// How long a sender may take between reading the members of a group and sending. Such a pause is one of its whole
/// process: its memory is collected, or its machine is busy.
const MAX_SENDER_PAUSE: Duration = Duration::from_secs(5);

/// How long a sender usually takes. A node that leaves, or removes a dead one, waits for so long.
pub(super) const SENDER_DELAY: Duration = Duration::from_millis(150);

/// The pause between two reads of an earlier member's mailbox while nothing comes to this node's own.
const READ_INTERVAL: Duration = Duration::from_millis(250);

/// The most messages that are known to have come. Beyond that, copies are left to the history, which knows all of them.
const MAX_KNOWN: usize = 16 * 1024;

/// A message of the layer, for a channel that this node is in the group of.
pub(super) type Addressed = (ChannelName, HeldMessage);

/// The nodes that were members before this one of groups that it has joined lately, and their messages. There are at
/// most as many as nodes are known, each with channels that this node has joined.
#[derive(Default)]
pub(super) struct EarlierMembers {
    members: HashMap<String, EarlierMember>,
    /// Messages that came to an earlier member, and may come to this node with its next ones. As they were sent to all
    /// mailboxes in one step, those that do not come to this node then never will. They are at most those of one read of
    /// each earlier member's mailbox.
    deferred: Vec<Addressed>,
    /// The ids of the messages that have come for channels of these nodes.
    known: HashSet<(ChannelName, String)>,
}

struct EarlierMember {
    position: MailboxPosition,
    /// Whether its messages have not been added to this node's yet.
    is_new: bool,
    /// When the mailbox was last read.
    read_at: Instant,
    /// The channels whose messages may go to this node alone, and until when.
    channels: HashMap<ChannelName, Instant>,
    /// The channels that were joined while its mailbox was full. If it is dead, the backend has dropped messages that
    /// nobody else has.
    overflowed: HashSet<ChannelName>,
}

impl EarlierMembers {
    /// Messages of `channel` may go to `node` alone for a while. Must be called before the messages are read that `node`
    /// has already.
    fn add(&mut self, node: &str, channel: &ChannelName, now: Instant) {
        let member = self.members.entry(node.to_owned()).or_insert_with(|| EarlierMember {
            position: MailboxPosition::default(),
            is_new: true,
            read_at: now,
            channels: HashMap::new(),
            overflowed: HashSet::new(),
        });
        member.channels.insert(channel.clone(), now + MAX_SENDER_PAUSE);
    }

    /// The mailbox of `node` was full when its messages of `channel` were read.
    fn record_overflow(&mut self, node: &str, channel: &ChannelName) {
        if let Some(member) = self.members.get_mut(node) {
            member.overflowed.insert(channel.clone());
        }
    }

    /// Takes the channels whose messages were dropped with those of a node that is not alive.
    fn take_overflowed(&mut self, is_alive: impl Fn(&str) -> bool) -> Vec<ChannelName> {
        let dead = self.members.iter_mut().filter(|(node, _)| !is_alive(node));
        let overflowed: HashSet<_> =
            dead.flat_map(|(_, member)| member.overflowed.drain()).collect();
        overflowed.into_iter().collect()
    }

    /// The mailbox of `node` was read to `position` for some channel. What was there before is read for each channel by
    /// itself.
    fn begin_at(&mut self, node: &str, position: MailboxPosition) {
        if let Some(member) = self.members.get_mut(node).filter(|member| member.is_new) {
            (member.position, member.is_new) = (position, false);
        }
    }

    /// What was read last may not have been appended, so everything is read again.
    pub fn rewind(&mut self) {
        self.deferred.clear();
        self.known.clear();
        for member in self.members.values_mut() {
            (member.position, member.is_new) = (MailboxPosition::default(), false);
        }
    }

    /// Whether there is nothing to read, and nothing to add.
    fn is_idle(&self) -> bool {
        self.members.is_empty() && self.deferred.is_empty()
    }

    /// How long this node may wait for messages in its own mailbox, if that is less than `longest`.
    pub fn pause(&self, longest: Duration) -> Duration {
        match self.deferred.is_empty() {
            _ if self.is_idle() => longest,
            true => longest.min(READ_INTERVAL),
            false => Duration::ZERO,
        }
    }

    /// The nodes to read before the messages in `own` are appended, or because it is time to.
    fn due(&mut self, own: &[Addressed], now: Instant) -> Vec<(String, MailboxPosition)> {
        self.members.retain(|_, member| {
            // The last read begins after the time is over.
            let read_at = member.read_at;
            member.channels.retain(|_, until| *until >= read_at);
            !(member.channels.is_empty() && member.overflowed.is_empty())
        });
        let is_due = |member: &EarlierMember| {
            now.saturating_duration_since(member.read_at) >= READ_INTERVAL
                || own.iter().any(|(channel, _)| member.channels.contains_key(channel))
        };
        let due = self.members.iter().filter(|(_, member)| is_due(member));
        due.map(|(node, member)| (node.clone(), member.position.clone())).collect()
    }

    /// Records that the mailbox of `node` was read to `position` by a read that began at `now`. `is_emptied` = the node
    /// itself takes messages, so that it has had all of them.
    fn record(&mut self, node: &str, position: MailboxPosition, now: Instant, is_emptied: bool) {
        if let Some(member) = self.members.get_mut(node) {
            (member.position, member.is_new, member.read_at) = (position, false, now);
            if is_emptied {
                member.overflowed.clear();
            }
        }
    }

    fn contains(&self, node: &str, channel: &ChannelName) -> bool {
        self.members.get(node).is_some_and(|member| member.channels.contains_key(channel))
    }

    /// Adds to the messages of this node's `own` mailbox those of the `earlier` members that must not come later, in the
    /// order in which they were sent. `is_all` = the mailbox had no more.
    fn merge(&mut self, own: &mut Vec<Addressed>, earlier: Vec<Addressed>, is_all: bool) {
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        let mut newest: HashMap<&ChannelName, f64> = HashMap::new();
        for (channel, held) in own.iter() {
            let newest = newest.entry(channel).or_insert(f64::NEG_INFINITY);
            *newest = newest.max(score(held));
            if self.members.values().any(|member| member.channels.contains_key(channel)) {
                self.known.insert(key(channel, held));
            }
        }
        let is_before_own = |(channel, held): &Addressed| {
            newest.get(channel).is_some_and(|newest| score(held) <= *newest)
        };
        let deferred = std::mem::take(&mut self.deferred).into_iter().map(|one| (one, is_all));
        let mut added = Vec::new();
        for (message, is_due) in deferred.chain(earlier.into_iter().map(|one| (one, false))) {
            let key = key(&message.0, &message.1);
            if self.known.contains(&key) {
                continue;
            }
            if is_due || is_before_own(&message) {
                self.known.insert(key);
                added.push(message);
            } else {
                self.deferred.push(message);
            }
        }
        if !added.is_empty() {
            own.append(&mut added);
            own.sort_by(|(_, one), (_, other)| score(one).total_cmp(&score(other)));
        }
        if self.is_idle() {
            self.known = HashSet::new();
        }
    }
}

fn score(held: &HeldMessage) -> f64 {
    held.score.unwrap_or_default()
}

fn key(channel: &ChannelName, held: &HeldMessage) -> (ChannelName, String) {
    (channel.clone(), held.imported.id.clone())
}

impl Layer {
    /// Reads the mailboxes of the nodes that are registered for `channels` from now on. Returns these nodes.
    pub(super) fn follow_earlier_members(
        &self,
        channels: &[ChannelName],
        registered: &Answers<Registered>,
    ) -> BTreeSet<String> {
        let mut earlier = self.0.earlier_members.borrow_mut();
        let (mut nodes, now) = (BTreeSet::new(), Instant::now());
        for (channel, registered) in channels.iter().zip(registered) {
            for node in registered.iter().flat_map(|registered| &registered.others) {
                earlier.add(node, channel, now);
                nodes.insert(node.clone());
            }
        }
        nodes
    }

    /// Adds to `messages`, which come from this node's own mailbox, those that earlier members alone have, in the order
    /// in which they were sent. `is_all` = the mailbox had no more.
    pub(super) async fn add_messages_of_earlier_members(
        &self,
        messages: &mut Vec<Addressed>,
        is_all: bool,
    ) -> Result<(), RedisFailure> {
        let Wire::Core { memberships, names } = &self.0.wire else { return Ok(()) };
        if self.0.earlier_members.borrow().is_idle() {
            return Ok(());
        }
        let now = Instant::now();
        let due = self.0.earlier_members.borrow_mut().due(messages, now);
        let unconfirmed = memberships.read_mailboxes_of(&due).await?;
        let mut earlier = self.0.earlier_members.borrow_mut();
        let mut others = Vec::new();
        for ((node, _), unconfirmed) in due.into_iter().zip(unconfirmed) {
            let Unconfirmed { messages, position, is_full } = unconfirmed;
            let read = self.address_messages_of(names, &node, messages);
            others.extend(read.into_iter().filter(|(channel, _)| {
                earlier.contains(&node, channel) && self.0.history.keeps(channel)
            }));
            earlier.record(&node, position, now, !is_full && self.is_alive(&node));
        }
        earlier.merge(messages, others, is_all);
        Ok(())
    }

    /// The mailboxes of these nodes were full when their messages of `channel` were read. That matters only for those that
    /// turn out to be dead: another one takes what is in its mailbox.
    pub(super) fn record_overflows<'a>(
        &self,
        channel: &ChannelName,
        nodes: impl Iterator<Item = &'a String>,
    ) {
        let mut earlier = self.0.earlier_members.borrow_mut();
        nodes.for_each(|node| earlier.record_overflow(node, channel));
    }

    /// Reports the channels that this node has joined while the mailbox of a node was full that has turned out to be dead.
    pub(super) fn report_overflows(&self) {
        let mut earlier = self.0.earlier_members.borrow_mut();
        let lost = earlier.take_overflowed(|node| self.is_alive(node));
        if !lost.is_empty() {
            let layer = self.clone();
            tokio::task::spawn_local(async move {
                layer.report_gap(lost, ListenerState::Lost).await;
            });
        }
    }

    /// Reads the messages in another node's mailbox, each with its channel, and whether the mailbox is full.
    pub(super) async fn read_mailbox_of(
        &self,
        memberships: &Memberships,
        names: &MailboxNames,
        node: &str,
    ) -> Result<(Vec<Addressed>, bool), EngineUnavailable> {
        let all = [(node.to_owned(), MailboxPosition::default())];
        let mut unconfirmed = memberships.read_mailboxes_of(&all).await?;
        let Unconfirmed { messages, is_full, position } =
            unconfirmed.pop().ok_or(EngineUnavailable)?;
        self.0.earlier_members.borrow_mut().begin_at(node, position);
        Ok((self.address_messages_of(names, node, messages), is_full))
    }

    /// The messages of another node's mailbox that are forwarded, each with its channel.
    fn address_messages_of(
        &self,
        names: &MailboxNames,
        node: &str,
        messages: Vec<MailboxMessage>,
    ) -> Vec<Addressed> {
        let (names, mut addressed) = (names.of_other(node), Vec::new());
        for MailboxMessage { payload, score } in messages {
            let score = Some(score);
            let Some(read) = self.read_message(&payload, score) else { continue };
            if self.is_forwarded(read.message_type.as_ref()) {
                for channel in read.members.iter().filter_map(|member| names.channel(member)) {
                    addressed
                        .push((channel, HeldMessage { score, imported: read.imported.clone() }));
                }
            }
        }
        addressed
    }
}

#[cfg(test)]
mod tests;
