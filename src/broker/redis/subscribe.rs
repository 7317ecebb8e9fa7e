//! Subscribes and unsubscribes until Redis has confirmed what [`super::Channels`] wants, and tells the threads.

use std::collections::HashSet;

use super::{CHANNELS_PER_COMMAND, Change, RedisSubscription, ToThread};
use crate::protocol::ChannelName;
use crate::redis_link::{ConnectionError, PubSub, RedisFailure};
use crate::telemetry;

impl RedisSubscription {
    /// Applies `changes`, and subscribes and unsubscribes what differs then.
    pub(super) async fn apply(
        &mut self,
        pubsub: &mut PubSub,
        changes: &mut Vec<Change>,
    ) -> Result<(), ConnectionError> {
        let changed: HashSet<ChannelName> = {
            let mut channels = self.channels.borrow_mut();
            changes.drain(..).filter_map(|change| channels.apply(change)).collect()
        };
        let (wanted, unwanted): (Vec<_>, Vec<_>) =
            changed.into_iter().partition(|channel| self.channels.borrow().is_wanted(channel));
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
        for some in channels.chunks(CHANNELS_PER_COMMAND) {
            match pubsub.subscribe(some).await {
                Ok(()) => self.subscribed.extend(some.iter().cloned()),
                Err(failure @ RedisFailure::Unavailable) => return Err(failure.into()),
                // One forbidden channel fails the whole command: find out which.
                Err(RedisFailure::Refused(_)) => self.subscribe_singly(pubsub, some).await?,
            }
            self.join_layer(some).await?;
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

    /// Tells the threads and tails of `channel` that Redis refuses it.
    async fn refuse(&self, channel: &ChannelName) {
        self.parts.catch_ups.tails.refuse(channel);
        for (thread, ticket) in self.listeners_of(channel) {
            let refused = ToThread::Refused(channel.clone(), ticket);
            // A thread that has ended has no listeners.
            let _ = self.threads[thread].send(refused).await;
        }
    }

    /// Tells each thread which of its channels are live.
    pub(super) async fn confirm(&self, channels: Vec<ChannelName>) {
        let mut confirmed: Vec<Vec<_>> = self.threads.iter().map(|_| Vec::new()).collect();
        for channel in channels {
            self.parts.catch_ups.tails.confirm(&channel);
            for (thread, ticket) in self.listeners_of(&channel) {
                confirmed[thread].push((channel.clone(), ticket));
            }
        }
        for (thread, confirmed) in self.threads.iter().zip(confirmed) {
            if !confirmed.is_empty() {
                // A thread that has ended has no listeners.
                let _ = thread.send(ToThread::Confirmed(confirmed)).await;
            }
        }
    }

    /// The threads that listen to `channel`, each with its ticket.
    fn listeners_of(&self, channel: &ChannelName) -> Vec<(usize, u64)> {
        let channels = self.channels.borrow();
        channels.listeners(channel).iter().map(|l| (l.thread, l.ticket)).collect()
    }
}
