//! Registers this node as a listener of channels' groups in the histories, so that the nodes know whether one of
//! them has received everything, and reports a gap if none has.

use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::{Layer, PAUSE, Wire};
use crate::broker::history::{ListenerState, Registered, Registration};
use crate::broker::thread::ToThread;
use crate::protocol::ChannelName;
use crate::redis_link::{Answers, EngineUnavailable};
use crate::retry::retry_forever;
use crate::telemetry;

/// The lifetime of a registration, in renewal intervals.
const RENEWALS: u32 = 3;

/// The most channels that are registered in one write.
const CHANNELS_PER_WRITE: usize = 500;

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
        let broken = if state == ListenerState::Lost {
            let register = || self.register(&with_history, state, "", &[]);
            let registered = retry_forever(PAUSE, register).await;
            with_history
                .into_iter()
                .zip(registered)
                .filter_map(|(channel, registered)| is_broken(&registered).then_some(channel))
                .collect()
        } else {
            self.0.membership.borrow_mut().hold(&with_history);
            retry_forever(PAUSE, || self.align(with_history.clone(), state)).await
        };
        self.send_gap(broken).await;
    }

    /// Disconnects the clients of `channels` on this node.
    pub(super) async fn send_gap(&self, channels: Vec<ChannelName>) {
        let mut gaps: Vec<Vec<_>> = self.0.threads.iter().map(|_| Vec::new()).collect();
        for channel in channels {
            for listener in self.0.channels.lock().listeners(&channel) {
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

    /// Registers this node. `origin` is from where the messages are counted if this node is the first, and empty if
    /// they are not counted. `unreadable` nodes do not count.
    pub(super) async fn register(
        &self,
        channels: &[ChannelName],
        state: ListenerState,
        origin: &str,
        unreadable: &[String],
    ) -> Result<Answers<Registered>, EngineUnavailable> {
        if channels.is_empty() {
            return Ok(Vec::new());
        }
        // Without a heartbeat of its own, this node would not count for the others.
        self.send_heartbeat(0).await?;
        let valid = self.valid_nodes(state, unreadable);
        let registration = Registration {
            node: &self.0.node,
            ttl: self.registration_ttl(),
            state,
            origin,
            valid: &valid,
        };
        let mut answers = Vec::with_capacity(channels.len());
        for channels in channels.chunks(CHANNELS_PER_WRITE) {
            answers.extend(self.0.redis.register_listener(channels, registration).await?);
        }
        Ok(answers)
    }

    /// Renews the registrations of this node. Aligns those that had been lost.
    pub(super) async fn renew_registrations(&self) {
        let all = self.with_history(self.0.membership.borrow().confirmed().iter());
        // Channels whose messages are held are being aligned.
        let (_, listening) = self.0.membership.borrow().partition_held(all);
        let origin = self.new_origin();
        let registered = self.register(&listening, ListenerState::Listening, &origin, &[]).await;
        let (mut broken, mut unregistered) = (Vec::new(), Vec::new());
        for (channel, registered) in listening.into_iter().zip(registered.into_iter().flatten()) {
            let Ok(registered) = registered else { continue };
            if !registered.others.is_empty() {
                unregistered.push(channel);
                continue;
            }
            if registered.is_first && !origin.is_empty() {
                self.0.membership.borrow_mut().number_from(&channel, &origin);
            }
            if registered.new_epoch {
                broken.push(channel);
            }
        }
        self.send_gap(broken).await;
        self.0.membership.borrow_mut().hold(&unregistered);
        // What cannot be aligned now is tried again: the messages of these channels are held until then.
        let align = || self.align(unregistered.clone(), ListenerState::Joining);
        self.send_gap(retry_forever(PAUSE, align).await).await;
    }

    /// An origin for numbers of messages; empty if the layer's messages have ids.
    pub(super) fn new_origin(&self) -> String {
        match self.0.wire {
            Wire::Core { .. } => String::new(),
            Wire::PubSub(_) => crate::protocol::random_hex(8),
        }
    }

    pub(super) async fn renew_registrations_periodically(self) {
        let mut ticks = tokio::time::interval(self.0.settings.refresh);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.renew_registrations().await;
        }
    }

    /// How long what is known about appended messages is remembered.
    pub(super) fn registration_ttl(&self) -> Duration {
        self.0.settings.refresh * RENEWALS
    }
}

/// Whether messages may be missing from the history.
pub(super) fn is_broken<E>(registered: &Result<Registered, E>) -> bool {
    registered.as_ref().map_or(true, |registered| registered.new_epoch)
}
