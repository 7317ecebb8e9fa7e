//! Which nodes are alive, and what this node takes over from those that are not.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::earlier_members::{Addressed, SENDER_DELAY};
use super::group_membership::HeldMessage;
use super::{Layer, NO_HISTORY, PAUSE, Wire};
use crate::broker::channels::Change;
use crate::broker::history::{Heartbeat, ListenerState};
use crate::protocol::ChannelName;
use crate::redis_link::{ConnectionError, EngineUnavailable};
use crate::retry::retry_forever;
use crate::telemetry;

/// The interval between heartbeats of this node. Several may fail before the node counts as dead.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);

/// A node that has sent no heartbeat for this long counts as dead.
const NODE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the connection to the history may take to open before an attempt to read the layer fails.
const CONNECT_WAIT: Duration = Duration::from_secs(1);

/// The most channels that this node takes over from a stopping node at once.
const MAX_OFFERED: usize = 1000;

/// How long this node subscribes a channel that it takes over. After that, the group stays joined like that of a
/// channel whose last client has left.
const TAKEOVER_PIN: Duration = Duration::from_secs(5);

/// How long another node has to take over what a dead node left, before the next one tries.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a message may take from a mailbox into the history. The messages of a dead node are checked after that.
const IMPORT_DELAY: Duration = Duration::from_secs(1);

/// The pause between two looks at channels that are being taken over.
const TAKEOVER_POLL: Duration = Duration::from_millis(50);

/// The backend removes messages that are as old as the layer's `expiry`. Those of a dead node count as lost this much
/// earlier, so that none is removed while it is read.
const EXPIRY_MARGIN: Duration = Duration::from_secs(1);

impl Layer {
    /// Sends heartbeats and takes over what other nodes leave, for as long as it is polled.
    pub(super) async fn run_heartbeat(self) {
        let mut ticks = tokio::time::interval(HEARTBEAT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let is_leaving = self.0.leaving_since.get().is_some();
            let most_offered = if is_leaving { 0 } else { MAX_OFFERED };
            // After several failures, other nodes consider this one dead.
            let heartbeat = retry_forever(PAUSE, || self.send_heartbeat(most_offered)).await;
            if heartbeat.was_unknown && !self.0.membership.borrow().names().is_empty() {
                // Another node has removed the registrations of this one, or Redis has lost them. Heartbeats go on.
                let layer = self.clone();
                tokio::task::spawn_local(async move { layer.renew_everything().await });
            }
            self.pin_for_takeover(heartbeat.offered);
            self.report_overflows();
            if self.0.leaving_since.get().is_none() {
                self.follow_dead_nodes().await;
            }
        }
    }

    /// Makes this node known to the others. The connection to the history may have just begun to open.
    pub(super) async fn announce(&self) -> Result<(), ConnectionError> {
        self.0.redis.wait_up(CONNECT_WAIT).await;
        self.send_heartbeat(0).await.map_err(|_| NO_HISTORY)?;
        Ok(())
    }

    pub(super) async fn send_heartbeat(
        &self,
        most_offered: usize,
    ) -> Result<Heartbeat, EngineUnavailable> {
        // Memberships last as long.
        let memory = self.0.settings.group_expiry;
        let asked_at = Instant::now();
        let heartbeat = self.0.redis.node_heartbeat(&self.0.node, memory, most_offered).await?;
        self.0.nodes.replace(heartbeat.nodes.clone());
        self.0.nodes_at.set(asked_at);
        Ok(heartbeat)
    }

    /// The nodes whose registrations count at the last heartbeat, without `unreadable`.
    pub(super) fn valid_nodes(&self, state: ListenerState, unreadable: &[String]) -> Vec<String> {
        let age = match (state, self.0.leaving_since.get()) {
            // Only a heartbeat since then shows that a node is there to take over. An earlier one may have been its last.
            (ListenerState::Leaving, Some(since)) => {
                self.0.nodes_at.get().saturating_duration_since(since)
            }
            (ListenerState::Leaving, None) => NODE_TIMEOUT,
            // What a dead node has not read is in its mailbox.
            _ if matches!(self.0.wire, Wire::Core { .. }) => self.readable_for(),
            _ => NODE_TIMEOUT,
        };
        let nodes = self.0.nodes.borrow();
        let valid = nodes.iter().filter(|(node, since)| *since < age && !unreadable.contains(node));
        valid.map(|(node, _)| node.clone()).collect()
    }

    /// How long the messages of a dead node can be read.
    fn readable_for(&self) -> Duration {
        self.0.settings.expiry.saturating_sub(EXPIRY_MARGIN).max(NODE_TIMEOUT)
    }

    pub(super) fn is_alive(&self, node: &str) -> bool {
        self.0.nodes.borrow().iter().any(|(other, since)| other == node && *since < NODE_TIMEOUT)
    }

    /// Whether another node can take over the channels of this one.
    pub(super) fn has_other_nodes(&self) -> bool {
        let nodes = self.0.nodes.borrow();
        nodes.iter().any(|(node, since)| *node != self.0.node && *since < NODE_TIMEOUT)
    }

    /// Subscribes `channels` for a while, so that this node joins their groups.
    fn pin_for_takeover(&self, mut channels: Vec<ChannelName>) {
        channels.retain(|channel| !self.0.membership.borrow().contains(channel));
        if channels.is_empty() {
            return;
        }
        telemetry::channel_layer::channels_taken_over(channels.len());
        let Some(changes) = self.0.changes.upgrade() else { return };
        for channel in &channels {
            // The core only ends with the process.
            let _ = changes.send(Change::Pin(channel.clone()));
        }
        tokio::task::spawn_local(async move {
            tokio::time::sleep(TAKEOVER_PIN).await;
            for channel in channels {
                let _ = changes.send(Change::Unpin(channel));
            }
        });
    }

    async fn follow_dead_nodes(&self) {
        let dead: Vec<_> = {
            let nodes = self.0.nodes.borrow();
            let dead = nodes.iter().filter(|(_, since)| *since >= NODE_TIMEOUT);
            dead.map(|(node, since)| (node.clone(), *since)).collect()
        };
        for (node, since) in dead {
            let claim = self.0.redis.claim_node(&node, &self.0.node, TAKEOVER_TIMEOUT);
            if matches!(claim.await, Ok(true)) {
                let layer = self.clone();
                tokio::task::spawn_local(async move {
                    // If this fails, a node tries again when the claim has expired.
                    let _ = layer.follow_node(&node, since).await;
                });
            }
        }
    }

    /// Takes over the channels of a dead node, as far as its messages can still be read, and removes it from the layer.
    async fn follow_node(&self, node: &str, since: Duration) -> Result<(), EngineUnavailable> {
        let groups = self.0.redis.groups_of(node).await?;
        telemetry::channel_layer::node_died(groups.len());
        if let Wire::Core { memberships, names } = &self.0.wire {
            let channels = self.with_history(groups.iter());
            if since < self.readable_for() {
                let is_missing =
                    |channel: &&ChannelName| !self.0.membership.borrow().contains(channel);
                let missing: Vec<_> = channels.iter().filter(is_missing).cloned().collect();
                if !missing.is_empty() {
                    self.pin_for_takeover(missing.clone());
                    self.wait_until_listening(&missing).await;
                }
            }
            memberships.remove_members_of(node, &groups).await?;
            // What is still sent to the dead node alone comes now, and what is sent to others as well is appended.
            tokio::time::sleep(SENDER_DELAY + IMPORT_DELAY).await;
            if since < self.readable_for() {
                let (left, _) = self.read_mailbox_of(memberships, names, node).await?;
                let lost = self.unknown_channels(left).await?;
                self.report_gap(lost, ListenerState::Lost).await;
            }
            memberships.remove_mailbox_of(node).await?;
        }
        self.0.redis.remove_node(node).await
    }

    /// The channels with messages that nobody has appended.
    async fn unknown_channels(
        &self,
        messages: Vec<Addressed>,
    ) -> Result<Vec<ChannelName>, EngineUnavailable> {
        let mut channels = BTreeSet::new();
        for (channel, HeldMessage { imported, .. }) in messages {
            let is_of_history = self.0.history.keeps(&channel) && !channels.contains(&channel);
            if is_of_history && !self.0.redis.is_appended(&channel, &imported.id).await? {
                channels.insert(channel);
            }
        }
        Ok(channels.into_iter().collect())
    }

    /// Waits until this node gets the messages of `channels` and has all earlier ones, for a limited time.
    async fn wait_until_listening(&self, channels: &[ChannelName]) {
        let listening = async {
            loop {
                let (held, counted) = self.0.membership.borrow().partition_held(channels.to_vec());
                if held.is_empty() && counted.len() == channels.len() {
                    return;
                }
                tokio::time::sleep(TAKEOVER_POLL).await;
            }
        };
        // A channel that Redis refuses is never joined.
        let _ = tokio::time::timeout(TAKEOVER_PIN, listening).await;
    }
}
