//! One shard of the cluster: its connection, and which of its channels are subscribed.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::super::CHANNELS_PER_COMMAND;
use super::{Common, Home, RETRY};
use crate::broker::canary::Canary;
use crate::broker::core::accept;
use crate::protocol::ChannelName;
use crate::redis_link::{
    ConnectionError, ConnectionEvent, Health, MonitoredLink, PubSub, RedisFailure, Shard,
    Supervised,
};
use crate::telemetry;

/// The channels of one shard. The connection's task and the coordinator tell it which of them to look at.
pub(super) struct ShardSubscription {
    common: Common,
    shard: Shard,
    changed: mpsc::UnboundedReceiver<ChannelName>,
    /// Takes channels whose subscription the shard has ended, at most once for each subscription.
    on_moved: mpsc::UnboundedSender<ChannelName>,
    moved: mpsc::UnboundedReceiver<ChannelName>,
    /// Channels that this shard should have, and cannot subscribe at the moment.
    pending: HashSet<ChannelName>,
    /// The canary on the current connection, for the task that receives its publications.
    canary: Arc<ArcSwapOption<Canary>>,
    /// Whether there is to be one, or one in another slot.
    needs_canary: bool,
}

impl ShardSubscription {
    /// `changed` takes the channels to look at.
    pub fn new(
        common: Common,
        shard: Shard,
        changed: mpsc::UnboundedReceiver<ChannelName>,
    ) -> Self {
        let (on_moved, moved) = mpsc::unbounded_channel();
        Self {
            common,
            shard,
            changed,
            on_moved,
            moved,
            pending: HashSet::new(),
            canary: Arc::default(),
            needs_canary: false,
        }
    }
}

impl Drop for ShardSubscription {
    fn drop(&mut self) {
        self.common.lost(&self.shard.address);
    }
}

impl Supervised for ShardSubscription {
    type Connection = PubSub;

    /// Opens a connection on which every wanted channel of the shard's slots is confirmed, or is to be tried again.
    async fn connect(&mut self, health: &Health) -> Result<PubSub, ConnectionError> {
        let mut pubsub = self.open(health).await?;
        self.forget_signals();
        let mine: Vec<ChannelName> = {
            let channels = self.common.catch_ups.channels.lock();
            let is_mine = |channel: &&ChannelName| self.common.is_of(channel, &self.shard.address);
            channels.names().filter(is_mine).cloned().collect()
        };
        let is_unwanted = |channel: &ChannelName, home: &Home| {
            home.shard == self.shard.address && !self.common.is_wanted(channel)
        };
        self.common.homes.borrow_mut().retain(|channel, home| !is_unwanted(channel, home));
        self.subscribe(&mut pubsub, mine).await?;
        self.common.live_shards.borrow_mut().insert(Arc::clone(&self.shard.address));
        self.common.live.store(true, Ordering::Release);
        // After all channels, so that it arrives only once these are subscribed.
        self.begin_canary(&mut pubsub).await?;
        Ok(pubsub)
    }

    fn links_to_check(&self, pubsub: &PubSub) -> Vec<MonitoredLink> {
        vec![pubsub.link()]
    }

    async fn serve(
        &mut self,
        mut pubsub: PubSub,
        mut lost: BoxFuture<'_, ConnectionError>,
    ) -> ConnectionError {
        let mut retry = tokio::time::interval(RETRY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changed = Vec::new();
        let mut canary = self.run_canary();
        loop {
            tokio::select! {
                error = &mut lost => return error,
                count = self.changed.recv_many(&mut changed, CHANNELS_PER_COMMAND) => {
                    if count == 0 {
                        return "the node is no master any more".into();
                    }
                }
                Some(channel) = self.moved.recv() => self.end(channel),
                () = &mut canary => {}
                _ = retry.tick(), if self.needs_canary || !self.pending.is_empty() => {
                    changed.extend(self.pending.drain());
                }
            }
            while let Ok(channel) = self.moved.try_recv() {
                self.end(channel);
            }
            if let Err(error) = self.look_at(&mut pubsub, &mut changed).await {
                return error;
            }
            if self.needs_canary {
                if let Err(error) = self.begin_canary(&mut pubsub).await {
                    return error;
                }
                canary = self.run_canary();
            }
        }
    }

    fn disconnected(&mut self) {
        self.common.lost(&self.shard.address);
        self.pending.clear();
        self.canary.store(None);
    }

    fn record(&self, event: ConnectionEvent<'_>) {
        let shard = &*self.shard.address;
        let shards = self.common.topology.shards().len();
        let live = self.common.live_shards.borrow().len();
        match event {
            ConnectionEvent::Connected { .. } => {
                let homes = self.common.homes.borrow();
                let channels = homes.values().filter(|home| *home.shard == *shard).count();
                telemetry::engine::shard_live(shard, channels, live >= shards);
            }
            ConnectionEvent::ConnectFailed { attempt, reason } => {
                telemetry::engine::shard_failed(shard, attempt, reason);
            }
            ConnectionEvent::Lost { reason } => telemetry::engine::shard_lost(shard, reason),
        }
        if !matches!(event, ConnectionEvent::Connected { .. }) {
            self.common.topology.suspect();
        }
    }

    /// Takes the signals during the pause, which the next attempt makes void.
    async fn pause(&mut self, pause: Duration) {
        let pause = tokio::time::sleep(pause);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => return,
                Some(_) = self.changed.recv() => {}
                Some(_) = self.moved.recv() => {}
            }
        }
    }
}

impl ShardSubscription {
    async fn open(&self, health: &Health) -> Result<PubSub, ConnectionError> {
        let (intake, max_bytes) = (self.common.intake.clone(), self.common.max_publication_bytes);
        let overflow = health.clone();
        let canary = Arc::clone(&self.canary);
        let on_message = move |channel: &[u8], payload: &[u8]| {
            if canary.load().as_ref().is_some_and(|canary| canary.accept(channel, payload)) {
                return;
            }
            if payload.len() > max_bytes {
                return telemetry::delivery::publication_too_large(payload.len());
            }
            if accept(&intake, channel, payload).is_err() {
                overflow.give_up("publications arrived faster than they were delivered");
            }
        };
        let moved = self.on_moved.clone();
        let on_moved = move |channel: &[u8]| {
            let name = std::str::from_utf8(channel).ok().and_then(|n| ChannelName::new(n).ok());
            if let Some(channel) = name {
                // The receiver lives as long as the connection is supervised.
                let _ = moved.send(channel);
            }
        };
        PubSub::connect_sharded(&self.shard.client, health, on_message, on_moved).await
    }

    /// What was to be looked at on the connection before: all channels are.
    fn forget_signals(&mut self) {
        while self.changed.try_recv().is_ok() {}
        while self.moved.try_recv().is_ok() {}
        self.pending.clear();
    }

    /// Subscribes the canary of the shard, in a slot that it has.
    async fn begin_canary(&mut self, pubsub: &mut PubSub) -> Result<(), ConnectionError> {
        let shard = &self.shard.address;
        let tag = self.common.topology.tag_of_shard(shard);
        let (Some(canaries), Some(tag)) = (&self.common.canaries, tag) else {
            // Without slots it is about to be no shard.
            self.needs_canary = false;
            return Ok(());
        };
        let canary = canaries.begin(shard, &tag, pubsub.health());
        let canary = canary.ok_or("the channel of the canary has no valid name")?;
        self.canary.store(Some(Arc::new(canary.clone())));
        self.needs_canary = false;
        match pubsub.subscribe_each(&[canary.channel()]).await?.pop() {
            Some(Ok(())) => canary.subscribed(1),
            Some(Err(RedisFailure::Refused(error))) if is_passing(&error) => {
                self.common.topology.suspect();
                self.needs_canary = true;
            }
            Some(Err(RedisFailure::Refused(error))) => {
                telemetry::engine::subscription_refused(&error);
                canary.subscribe_refused();
            }
            Some(Err(RedisFailure::Unavailable)) | None => {
                return Err(RedisFailure::Unavailable.into());
            }
        }
        Ok(())
    }

    /// Sends the canary of the current connection, for as long as it is polled.
    fn run_canary(&self) -> Pin<Box<dyn Future<Output = ()>>> {
        let canary = self.canary.load_full();
        let commands = self.common.catch_ups.history.commands().cloned();
        Box::pin(async move {
            if let (Some(canary), Some(commands)) = (canary, commands) {
                canary.run(&commands).await;
            }
            std::future::pending().await
        })
    }

    /// The shard has ended the subscription of `channel`, since it does not have the slot any more.
    fn end(&mut self, channel: ChannelName) {
        let canary = self.canary.load();
        if canary.as_ref().is_some_and(|canary| canary.channel() == channel.as_str()) {
            self.common.topology.suspect();
            self.needs_canary = true;
            return;
        }
        if let Some(home) = self.common.homes.borrow_mut().get_mut(&channel)
            && home.shard == self.shard.address
        {
            home.is_live = false;
        }
        self.common.topology.suspect();
        self.pending.insert(channel);
    }

    /// Subscribes and unsubscribes until the shard has what is wanted of `changed`.
    async fn look_at(
        &mut self,
        pubsub: &mut PubSub,
        changed: &mut Vec<ChannelName>,
    ) -> Result<(), ConnectionError> {
        let (mut new, mut confirmed, mut unwanted) = (Vec::new(), Vec::new(), Vec::new());
        let changed: HashSet<ChannelName> = changed.drain(..).collect();
        for channel in changed {
            self.pending.remove(&channel);
            let (is_wanted, is_mine) =
                (self.common.is_wanted(&channel), self.common.is_of(&channel, &self.shard.address));
            let home = self.common.homes.borrow();
            let home = home.get(&channel).filter(|home| home.shard == self.shard.address);
            match (is_wanted && is_mine, home.map(|home| home.is_live)) {
                (true, Some(true)) => confirmed.push(channel),
                (true, _) => new.push(channel),
                (false, Some(is_live)) => unwanted.push((channel, is_live, is_wanted)),
                // Whoever has it looks at it.
                (false, None) if is_wanted && !is_mine => {
                    let _ = self.common.elsewhere.send(channel);
                }
                (false, None) => {}
            }
        }
        let mut ended = Vec::new();
        for (channel, is_live, is_wanted) in unwanted {
            if is_wanted {
                // The next home finds that it was subscribed.
                if let Some(home) = self.common.homes.borrow_mut().get_mut(&channel) {
                    home.is_live = false;
                }
                let _ = self.common.elsewhere.send(channel.clone());
            } else {
                self.common.homes.borrow_mut().remove(&channel);
            }
            if is_live {
                ended.push(channel);
            }
        }
        if !ended.is_empty() {
            pubsub.unsubscribe(&ended).await?;
        }
        self.subscribe(pubsub, new).await?;
        self.common.catch_ups.confirm(confirmed).await;
        Ok(())
    }

    /// Subscribes `channels`, which are not subscribed here. Those that were subscribed before are caught up.
    async fn subscribe(
        &mut self,
        pubsub: &mut PubSub,
        channels: Vec<ChannelName>,
    ) -> Result<(), ConnectionError> {
        for chunk in channels.chunks(CHANNELS_PER_COMMAND) {
            // The gap is reported before anything can be received again, so that no client gets a publication from after
            // the gap.
            let was_subscribed: Vec<&ChannelName> = {
                let homes = self.common.homes.borrow();
                chunk.iter().filter(|channel| homes.contains_key(*channel)).collect()
            };
            let catch_ups = &self.common.catch_ups;
            let gap = catch_ups.channels.lock().record_gap_of(was_subscribed.iter().copied());
            let caught_up: HashSet<&ChannelName> =
                gap.catch_up.iter().map(|(channel, _)| channel).collect();
            for channel in was_subscribed.iter().filter(|channel| !caught_up.contains(**channel)) {
                catch_ups.tails.report_gap(channel);
            }
            drop(caught_up);
            let catch_up = catch_ups.report_lost(gap).await;
            let outcomes = pubsub.subscribe_each(chunk).await?;
            let mut subscribed = Vec::with_capacity(chunk.len());
            for (channel, outcome) in chunk.iter().zip(outcomes) {
                match outcome {
                    Ok(()) => {
                        let home = Home { shard: Arc::clone(&self.shard.address), is_live: true };
                        self.common.homes.borrow_mut().insert(channel.clone(), home);
                        subscribed.push(channel.clone());
                    }
                    Err(failure @ RedisFailure::Unavailable) => return Err(failure.into()),
                    Err(RedisFailure::Refused(error)) if is_passing(&error) => {
                        self.common.topology.suspect();
                        self.pending.insert(channel.clone());
                    }
                    Err(RedisFailure::Refused(error)) => {
                        telemetry::engine::subscription_refused(&error);
                        self.common.catch_ups.refuse(channel).await;
                    }
                }
            }
            let is_live: HashSet<ChannelName> = subscribed.iter().cloned().collect();
            self.common.catch_ups.confirm(subscribed).await;
            for (channel, number) in catch_up {
                if is_live.contains(&channel) {
                    self.common.catch_ups.start(channel, number);
                }
            }
        }
        Ok(())
    }
}

/// Whether the refusal of a subscription says that the slot is elsewhere, or cannot be used at the moment.
fn is_passing(error: &::redis::RedisError) -> bool {
    matches!(error.code(), Some("MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN" | "MASTERDOWN"))
}
