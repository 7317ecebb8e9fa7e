//! This node as a listener of channels' groups: registered with their histories, so that the nodes know
//! whether one of them read everything, and the report of a gap where none did.

use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::{Layer, PAUSE};
use crate::broker::history::{ListenerState, Registered};
use crate::broker::thread::ToThread;
use crate::protocol::ChannelName;
use crate::redis_link::{EngineUnavailable, RedisFailure};
use crate::retry::retry_forever;
use crate::telemetry;

/// From one heartbeat of this node to the next: several fit into the time after which it counts as dead.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// How many renewals a registration outlives.
const RENEWALS: u32 = 3;

/// What registering each channel came to; `Err` = Redis refuses it.
type Registrations = Vec<(ChannelName, Result<Registered, RedisFailure>)>;

impl Layer {
    /// Messages for `channels` may have been missed, by this node or by all, as `state` says. Clients of
    /// channels without a history are closed at once, those of the others where no other node appended.
    pub(super) async fn report_gap(&self, channels: Vec<ChannelName>, state: ListenerState) {
        if channels.is_empty() {
            return;
        }
        telemetry::channel_layer::messages_missed(channels.len());
        let (kept, live): (Vec<_>, Vec<_>) =
            channels.into_iter().partition(|channel| self.0.history.keeps(channel));
        self.send_gap(live).await;
        let register = || self.register_listener(kept.clone(), state);
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
        let within = self.0.settings.refresh * RENEWALS;
        let registered =
            self.0.redis.register_listener(&self.0.node, within, &channels, state).await?;
        Ok(channels.into_iter().zip(registered).collect())
    }

    /// Renews the registrations of this node. One that had to be made anew was lost meanwhile.
    pub(super) async fn renew_registrations(&self) {
        let all = self.with_history(self.0.membership.borrow().confirmed().iter());
        let registered = self.register_listener(all, ListenerState::Unbroken).await;
        let broken = registered.into_iter().flatten().filter_map(|(channel, registered)| {
            registered.is_ok_and(|registered| registered.new_epoch).then_some(channel)
        });
        self.send_gap(broken.collect()).await;
    }

    pub(super) async fn keep_registered(self) {
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
            // After several that fail, other nodes take this one for dead.
            let _ = self.0.redis.node_heartbeat(&self.0.node).await;
        }
    }
}
