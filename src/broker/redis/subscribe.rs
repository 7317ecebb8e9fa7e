//! Subscribes and unsubscribes until Redis has confirmed the channels in [`super::SharedChannels`].

use std::collections::HashSet;

use super::{CHANNELS_PER_COMMAND, Change, RedisSubscription};
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
        self.parts.catch_ups.confirm(confirmed).await;
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
            self.parts.catch_ups.refuse(&refused).await;
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
                    self.parts.catch_ups.refuse(channel).await;
                }
            }
        }
        Ok(())
    }
}
