//! Subscribes and unsubscribes until Redis has confirmed the channels in [`super::SharedChannels`], and notifies the
//! threads.

use std::collections::HashSet;

use super::{CHANNELS_PER_COMMAND, Change, RedisSubscription, ToThread};
use crate::protocol::ChannelName;
use crate::redis_link::{ConnectionError, PubSub, RedisFailure};
use crate::telemetry;

impl RedisSubscription {
    /// Applies `changes`, and subscribes or unsubscribes the channels that they affect.
    pub(super) async fn apply(
        &mut self,
        pubsub: &mut PubSub,
        changes: &mut Vec<Change>,
    ) -> Result<(), ConnectionError> {
        let changed: HashSet<ChannelName> = {
            let mut channels = self.channels.lock();
            changes.drain(..).filter_map(|change| channels.apply(change)).collect()
        };
        let (wanted, unwanted): (Vec<_>, Vec<_>) =
            changed.into_iter().partition(|channel| self.channels.lock().is_wanted(channel));
        let unsubscribed: Vec<_> =
            unwanted.into_iter().filter(|channel| self.subscribed.remove(channel)).collect();
        if !unsubscribed.is_empty() {
            pubsub.unsubscribe(&unsubscribed).await?;
            if let Some(layer) = &self.layer {
                layer.leave(&mut self.links, &unsubscribed).await?;
            }
        }
        let new: Vec<_> =
            wanted.iter().filter(|channel| !self.subscribed.contains(*channel)).cloned().collect();
        self.subscribe(pubsub, new).await?;
        let confirmed =
            wanted.into_iter().filter(|channel| self.subscribed.contains(channel)).collect();
        self.confirm(confirmed).await;
        Ok(())
    }

    /// Subscribes `channels`, and joins their groups in the channel layer.
    pub(super) async fn subscribe(
        &mut self,
        pubsub: &mut PubSub,
        channels: Vec<ChannelName>,
    ) -> Result<(), ConnectionError> {
        for chunk in channels.chunks(CHANNELS_PER_COMMAND) {
            match pubsub.subscribe(chunk).await {
                Ok(()) => self.subscribed.extend(chunk.iter().cloned()),
                Err(failure @ RedisFailure::Unavailable) => return Err(failure.into()),
                // One forbidden channel fails the whole command, so each is tried by itself.
                Err(RedisFailure::Refused(_)) => self.subscribe_singly(pubsub, chunk).await?,
            }
            self.join_layer(chunk).await?;
        }
        Ok(())
    }

    async fn join_layer(&mut self, channels: &[ChannelName]) -> Result<(), ConnectionError> {
        let Some(layer) = &self.layer else { return Ok(()) };
        let subscribed = channels.iter().filter(|channel| self.subscribed.contains(*channel));
        let subscribed: Vec<_> = subscribed.cloned().collect();
        for refused in layer.join(&mut self.links, &subscribed).await? {
            self.subscribed.remove(&refused);
            self.refuse(&refused).await;
        }
        Ok(())
    }

    async fn subscribe_singly(
        &mut self,
        pubsub: &mut PubSub,
        channels: &[ChannelName],
    ) -> Result<(), ConnectionError> {
        for channel in channels {
            match pubsub.subscribe(std::slice::from_ref(channel)).await {
                Ok(()) => {
                    self.subscribed.insert(channel.clone());
                }
                Err(failure @ RedisFailure::Unavailable) => return Err(failure.into()),
                Err(RedisFailure::Refused(error)) => {
                    telemetry::engine::subscription_refused(&error);
                    self.refuse(channel).await;
                }
            }
        }
        Ok(())
    }

    /// Notifies the threads and tails of `channel` that Redis refuses the subscription.
    async fn refuse(&self, channel: &ChannelName) {
        self.parts.catch_ups.tails.refuse(channel);
        for (thread, join_id) in self.listeners_of(channel) {
            let refused = ToThread::Refused(channel.clone(), join_id);
            // A thread that has ended has no listeners.
            let _ = self.threads[thread].send(refused).await;
        }
    }

    /// Notifies each thread, and the tails, which of `channels` are subscribed.
    pub(super) async fn confirm(&self, channels: Vec<ChannelName>) {
        let mut confirmed: Vec<Vec<_>> = self.threads.iter().map(|_| Vec::new()).collect();
        for channel in channels {
            self.parts.catch_ups.tails.confirm(&channel);
            for (thread, join_id) in self.listeners_of(&channel) {
                confirmed[thread].push((channel.clone(), join_id));
            }
        }
        for (thread, confirmed) in self.threads.iter().zip(confirmed) {
            if !confirmed.is_empty() {
                // A thread that has ended has no listeners.
                let _ = thread.send(ToThread::Confirmed(confirmed)).await;
            }
        }
    }

    /// The threads that listen to `channel`, each with the id of its join.
    fn listeners_of(&self, channel: &ChannelName) -> Vec<(usize, u64)> {
        let channels = self.channels.lock();
        channels.listeners(channel).iter().map(|l| (l.thread, l.join_id)).collect()
    }
}
