//! Hands the groups of a stopping node over: it listens until other nodes do.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::earlier_members::SENDER_DELAY;
use super::{Layer, Links, Wire};
use crate::broker::history::ListenerState;
use crate::protocol::ChannelName;
use crate::shutdown::Shutdown;
use crate::telemetry;

/// How long a stopping node waits for the others.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause between two questions who listens.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The interval at which channels are offered again that no node has taken over.
const OFFER_INTERVAL: Duration = Duration::from_secs(2);

impl Layer {
    /// Waits for the drain, and then until other nodes listen to all groups of channels with a history. The drain
    /// waits for it, unless there is no other node.
    pub(super) async fn hand_over(self, shutdown: Shutdown) {
        let mut token = Some(shutdown.track());
        shutdown.draining().await;
        self.0.leaving_since.set(Some(Instant::now()));
        let deadline = Instant::now() + HANDOVER_TIMEOUT;
        let mut offered_at = None;
        loop {
            // Learns soon which of the others are alive. If it fails, the next one may not.
            let _ = self.send_heartbeat(0).await;
            let uncovered = self.uncovered_channels().await;
            if uncovered.is_empty() {
                let is_core = matches!(self.0.wire, Wire::Core { .. });
                if is_core && !self.0.membership.borrow().names().is_empty() {
                    // What is sent to this node alone until then is still appended.
                    tokio::time::sleep(SENDER_DELAY).await;
                }
                return;
            }
            if self.has_other_nodes() {
                if offered_at.is_none_or(|at: Instant| at.elapsed() >= OFFER_INTERVAL) {
                    offered_at = Some(Instant::now());
                    // What could not be offered is offered again.
                    let _ = self.0.redis.offer_channels(&uncovered).await;
                }
                if Instant::now() >= deadline && token.take().is_some() {
                    telemetry::channel_layer::handover_incomplete();
                }
            } else {
                // One may still start before this one has ended.
                token = None;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The channels with a history to which no other node listens. All of them if Redis does not answer.
    async fn uncovered_channels(&self) -> Vec<ChannelName> {
        let channels = self.with_history(self.0.membership.borrow().names().iter());
        match self.register(&channels, ListenerState::Leaving, "", &[]).await {
            Ok(registered) => {
                let pairs = channels.into_iter().zip(registered);
                let uncovered = pairs.filter(|(_, registered)| {
                    registered.as_ref().map_or(true, |registered| registered.others.is_empty())
                });
                uncovered.map(|(channel, _)| channel).collect()
            }
            Err(_) => channels,
        }
    }

    /// Leaves all groups and removes this node from the layer, so that backends no longer send to it. What no other
    /// node listens to stays where a node that starts soon finds it. What cannot be removed expires in Redis.
    pub async fn close(&self, links: &mut Links) {
        self.0.up.store(false, Ordering::Release);
        let uncovered = match self.0.wire {
            Wire::Core { .. } => self.uncovered_channels().await,
            Wire::PubSub(_) => Vec::new(),
        };
        let is_uncovered: HashSet<_> = uncovered.iter().collect();
        let mut covered = self.0.membership.borrow().names();
        covered.retain(|channel| !is_uncovered.contains(channel));
        let _ = self.leave_now(links, &covered).await;
        let Wire::Core { memberships, .. } = &self.0.wire else {
            let _ = self.0.redis.remove_node(&self.0.node).await;
            return;
        };
        if uncovered.is_empty() {
            // The mailbox expires by itself: until then, the others read what is still sent to this node alone.
            let _ = self.0.redis.remove_node(&self.0.node).await;
        } else {
            let _ = memberships.leave_after_expiry(&uncovered).await;
        }
    }
}
