//! Registers this node as a listener of channels' groups in the histories, so that the nodes know whether one of
//! them has received everything, and reports a gap if none has.

use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::{Layer, PAUSE};
use crate::broker::history::{ListenerState, Registered};
use crate::broker::thread::ToThread;
use crate::protocol::ChannelName;
use crate::redis_link::{EngineUnavailable, RedisFailure};
use crate::retry::retry_forever;
use crate::telemetry;

/// The interval between heartbeats of this node. Several may fail before the node counts as dead.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// The lifetime of a registration, in renewal intervals.
const RENEWALS: u32 = 3;

/// The result of registering each channel; `Err` if Redis refuses it.
type Registrations = Vec<(ChannelName, Result<Registered, RedisFailure>)>;

impl Layer {
    /// Reports that messages for `channels` may have been missed, by this node or by all nodes as `state` says.
    /// Clients of channels without a history are disconnected at once; clients of the others are disconnected if no
    /// other node has appended the messages.
    pub(super) async fn report_gap(&self, channels: Vec<ChannelName>, state: ListenerState) {
        if channels.is_empty() {
            return;
        }
        telemetry::channel_layer::messages_missed(channels.len());
        let (with_history, without_history): (Vec<_>, Vec<_>) =
            channels.into_iter().partition(|channel| self.0.history.keeps(channel));
        self.send_gap(without_history).await;
        let register = || self.register_listener(with_history.clone(), state);
        let registered = retry_forever(PAUSE, register).await;
        let broken = registered.into_iter().filter_map(|(channel, registered)| {
            registered.map_or(true, |registered| registered.new_epoch).then_some(channel)
        });
        self.send_gap(broken.collect()).await;
    }

    async fn send_gap(&self, channels: Vec<ChannelName>) {
        let mut gaps: Vec<Vec<_>> = self.0.threads.iter().map(|_| Vec::new()).collect();
        for channel in channels {
            for listener in self.0.channels.borrow().listeners(&channel) {
                gaps[listener.thread].push(channel.clone());
            }
        }
        for (thread, gap) in self.0.threads.iter().zip(gaps) {
            if !gap.is_empty() {
                // A thread that has ended has no clients.
                let _ = thread.send(ToThread::Gap(gap)).await;
            }
        }
    }

    pub(super) async fn register_listener(
        &self,
        channels: Vec<ChannelName>,
        state: ListenerState,
    ) -> Result<Registrations, EngineUnavailable> {
        let ttl = self.0.settings.refresh * RENEWALS;
        let registered =
            self.0.redis.register_listener(&self.0.node, ttl, &channels, state).await?;
        Ok(channels.into_iter().zip(registered).collect())
    }

    /// Renews the registrations of this node, and reports a gap for those that had been lost.
    pub(super) async fn renew_registrations(&self) {
        let all = self.with_history(self.0.membership.borrow().confirmed().iter());
        let registered = self.register_listener(all, ListenerState::Unbroken).await;
        let broken = registered.into_iter().flatten().filter_map(|(channel, registered)| {
            registered.is_ok_and(|registered| registered.new_epoch).then_some(channel)
        });
        self.send_gap(broken.collect()).await;
    }

    pub(super) async fn renew_registrations_periodically(self) {
        let mut ticks = tokio::time::interval(self.0.settings.refresh);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.renew_registrations().await;
        }
    }

    pub(super) async fn run_heartbeat(self) {
        let mut ticks = tokio::time::interval(HEARTBEAT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // After several failures, other nodes consider this one dead.
            let _ = self.0.redis.node_heartbeat(&self.0.node).await;
        }
    }
}
