//! Makes sure that nothing before this node's messages is missing, and that all nodes number the same messages alike.
//!
//! A node that starts to listen to a group has a copy of each message from then on. Earlier messages may be on their
//! way to the history through another node. With the core layer they are in that node's mailbox, where this node reads
//! them. The messages of a pub/sub layer have no identity: the nodes count them. All nodes on one Redis see the
//! messages and a marker in one order, so a node that counts already tells the new one its count at the marker, once it
//! has appended what came before. Where no other node can say what came before, the history gets a new epoch.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::group_membership::HeldMessage;
use super::groups::Groups;
use super::listener::is_broken;
use super::{Layer, PAUSE, Wire};
use crate::broker::history::{ListenerState, MessageNumber, Registered};
use crate::channel_layer::{MailboxNames, Memberships};
use crate::protocol::ChannelName;
use crate::redis_link::EngineUnavailable;
use crate::retry::retry_forever;

/// How long a node waits for the answer to a marker before it sends another.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// The most channels that one marker is for.
const CHANNELS_PER_MARKER: usize = 512;

/// A message between the nodes, on the Redis of the groups.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum AlignmentMessage {
    /// `node` asks which number the last message of each channel before this marker has.
    Marker { node: String, number: u64, channels: Vec<String> },
    /// The answer: the origin and the number of that message.
    Counts { node: String, number: u64, counts: Vec<(String, String, i64)> },
}

impl Layer {
    /// Registers this node as a listener of `channels`, and gets from other nodes what came before its own messages.
    /// Returns the channels whose history continues under a new epoch, or whose registration Redis refuses.
    pub(super) async fn align(
        &self,
        channels: Vec<ChannelName>,
        state: ListenerState,
    ) -> Result<Vec<ChannelName>, EngineUnavailable> {
        if channels.is_empty() {
            return Ok(Vec::new());
        }
        match &self.0.wire {
            Wire::Core { memberships, names } => {
                self.align_by_mailboxes(memberships, names, channels, state).await
            }
            Wire::PubSub(_) => {
                let (broken, rest) = self.start_counting(channels, state).await?;
                if !rest.is_empty() {
                    let layer = self.clone();
                    tokio::task::spawn_local(
                        async move { layer.align_by_markers(rest, state).await },
                    );
                }
                Ok(broken)
            }
        }
    }

    /// Reads the messages that the other nodes have not appended yet, and places them before this node's own.
    async fn align_by_mailboxes(
        &self,
        memberships: &Memberships,
        names: &MailboxNames,
        channels: Vec<ChannelName>,
        state: ListenerState,
    ) -> Result<Vec<ChannelName>, EngineUnavailable> {
        let mut unreadable = Vec::new();
        loop {
            let registered = self.register(&channels, state, "", &unreadable).await?;
            // What comes to them from here on is read before this node's own messages are appended.
            let nodes = self.follow_earlier_members(&channels, &registered);
            let mut messages: HashMap<ChannelName, Vec<HeldMessage>> = HashMap::new();
            let (mut overflowed, mut full) = (Vec::new(), Vec::new());
            for node in nodes {
                let (waiting, is_full) = self.read_mailbox_of(memberships, names, &node).await?;
                match is_full {
                    true if self.is_alive(&node) => full.push(node),
                    true => overflowed.push(node),
                    false => {}
                }
                for (channel, held) in waiting {
                    messages.entry(channel).or_default().push(held);
                }
            }
            if !overflowed.is_empty() {
                // The backend dropped messages that nobody else has.
                unreadable.extend(overflowed);
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let (mut broken, mut aligned) = (Vec::new(), Vec::new());
            for (channel, registered) in channels.into_iter().zip(registered) {
                let mut earlier = messages.remove(&channel).unwrap_or_default();
                earlier.sort_by(|one, other| one.imported.id.cmp(&other.imported.id));
                earlier.dedup_by(|one, other| one.imported.id == other.imported.id);
                self.0.membership.borrow_mut().release(&channel, earlier);
                if let Ok(Registered { others, .. }) = &registered {
                    self.record_overflows(
                        &channel,
                        others.iter().filter(|node| full.contains(node)),
                    );
                }
                if is_broken(&registered) {
                    broken.push(channel);
                } else if has_others(&registered) {
                    aligned.push(channel);
                }
            }
            self.0.released.notify_one();
            self.register(&aligned, ListenerState::Ready, "", &[]).await?;
            return Ok(broken);
        }
    }

    /// Numbers the messages of those `channels` that no other node counts. Returns the channels with a new epoch, and
    /// those that other nodes count.
    async fn start_counting(
        &self,
        channels: Vec<ChannelName>,
        state: ListenerState,
    ) -> Result<(Vec<ChannelName>, Vec<ChannelName>), EngineUnavailable> {
        let origin = self.new_origin();
        let registered = self.register(&channels, state, &origin, &[]).await?;
        let (mut broken, mut rest) = (Vec::new(), Vec::new());
        for (channel, registered) in channels.into_iter().zip(registered) {
            if has_others(&registered) {
                rest.push(channel);
                continue;
            }
            self.0.membership.borrow_mut().number_from(&channel, &origin);
            if is_broken(&registered) {
                broken.push(channel);
            }
        }
        self.0.released.notify_one();
        Ok((broken, rest))
    }

    /// Asks the other nodes for their counts until each channel is counted, by this node itself if the others have died.
    async fn align_by_markers(self, mut channels: Vec<ChannelName>, state: ListenerState) {
        let Wire::PubSub(groups) = &self.0.wire else { return };
        loop {
            let mut counted = self.0.counted.subscribe();
            for channels in channels.chunks(CHANNELS_PER_MARKER) {
                self.send_marker(groups, channels).await;
            }
            let answered = async {
                while self.0.membership.borrow().are_any_held(&channels) {
                    // The sender lives as long as the layer.
                    let _ = counted.changed().await;
                }
            };
            // Without an answer, another node may have died.
            let _ = tokio::time::timeout(ANSWER_TIMEOUT, answered).await;
            let (held, counted) = self.0.membership.borrow().partition_held(channels);
            let register = || self.register(&counted, ListenerState::Ready, "", &[]);
            retry_forever(PAUSE, register).await;
            if held.is_empty() {
                return;
            }
            let start = || self.start_counting(held.clone(), state);
            let (broken, rest) = retry_forever(PAUSE, start).await;
            self.send_gap(broken).await;
            channels = rest;
            if channels.is_empty() {
                return;
            }
        }
    }

    async fn send_marker(&self, groups: &Groups, channels: &[ChannelName]) {
        let number = self.0.markers.get() + 1;
        self.0.markers.set(number);
        let marker = |channels: Vec<ChannelName>| AlignmentMessage::Marker {
            node: self.0.node.clone(),
            number,
            channels: channels.iter().map(ToString::to_string).collect(),
        };
        groups.send_to_hosts(channels, marker).await;
    }

    /// Handles a message between the nodes. All messages of the layer that came before it were appended, as far as they
    /// are counted.
    pub(super) fn receive_alignment(&self, message: AlignmentMessage) {
        let Wire::PubSub(groups) = &self.0.wire else { return };
        let mut membership = self.0.membership.borrow_mut();
        let valid = |name: String| ChannelName::new(&name).ok();
        match message {
            AlignmentMessage::Marker { node, number, channels } if node == self.0.node => {
                for channel in channels.into_iter().filter_map(valid) {
                    membership.record_marker(&channel, number);
                }
            }
            AlignmentMessage::Marker { node, number, channels } => {
                let channels: Vec<_> = channels.into_iter().filter_map(valid).collect();
                let last = |channel: &ChannelName| {
                    let MessageNumber { origin, number } = membership.last_number(channel)?;
                    Some((channel.to_string(), origin, number))
                };
                let counts: Vec<_> = channels.iter().filter_map(last).collect();
                if let Some(channel) = channels.into_iter().next().filter(|_| !counts.is_empty()) {
                    let groups = groups.clone();
                    tokio::task::spawn_local(async move {
                        let answer = |_| AlignmentMessage::Counts {
                            node: node.clone(),
                            number,
                            counts: counts.clone(),
                        };
                        groups.send_to_hosts(&[channel], answer).await;
                    });
                }
            }
            AlignmentMessage::Counts { node, number, counts } if node == self.0.node => {
                for (channel, origin, last) in counts {
                    if let Some(channel) = valid(channel) {
                        membership.align(&channel, number, MessageNumber { origin, number: last });
                    }
                }
                self.0.counted.send_modify(|()| {});
                self.0.released.notify_one();
            }
            AlignmentMessage::Counts { .. } => {}
        }
    }
}

fn has_others<E>(registered: &Result<Registered, E>) -> bool {
    registered.as_ref().is_ok_and(|registered| !registered.others.is_empty())
}
