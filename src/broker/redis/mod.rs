//! The Redis engine's subscription: one pub/sub connection, supervised.
//!
//! [`super::channels::Channels`] holds the channels that should be subscribed; `subscribed` holds those that Redis has confirmed.
//! After each batch of changes the difference is requested and awaited, so SUBSCRIBE and UNSUBSCRIBE of a channel
//! never overtake each other. A connection that breaks, stalls or cannot keep up is dropped: all channels are
//! subscribed again on the next one, and the publications missed in between are read from the histories. The
//! clients of channels without a history are disconnected.

mod cluster;
mod notify;
mod subscribe;

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::{BoxFuture, Either};
use tokio::time::MissedTickBehavior;

use super::canary::Canary;
use super::channels::{Change, SharedChannels};
use super::core::{Core, Parts, accept};
use super::history::History;
use super::layer::{Layer, Links};
use crate::config::{ChannelsLayer, RedisUrl};
use crate::protocol::ChannelName;
use crate::redis_link::{
    Commands, ConnectionError, ConnectionEvent, Health, MonitoredLink, Primary, PubSub,
    RedisFailure, Supervised, supervise,
};
use crate::shutdown::Shutdown;
use crate::telemetry;

/// The most channels of one SUBSCRIBE.
const CHANNELS_PER_COMMAND: usize = 512;

/// How long the process waits at its end until it has left the channel layer.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// The interval at which this node leaves the groups of the channel layer that are due.
const LEAVE_INTERVAL: Duration = Duration::from_secs(2);

impl Core {
    /// Runs the Redis engine until the process is killed, and then leaves the channel layer, if there is one. `history` is
    /// on the server, or the cluster, at `url`.
    ///
    /// # Errors
    /// A URL is not valid.
    pub fn run_redis(
        mut self,
        url: &RedisUrl,
        layer: Option<&ChannelsLayer>,
        history: History,
        shutdown: Shutdown,
    ) -> Result<impl Future<Output = ()> + use<>, String> {
        let topology = history.commands().and_then(Commands::topology).cloned();
        if let Some(topology) = topology.filter(|_| url.is_cluster()) {
            let canaries = self.shard_canaries.take();
            let (parts, distribution) = self.split(history);
            return Ok(Either::Left(async move {
                tokio::task::spawn_local(shutdown.essential("distribution", distribution));
                cluster::run(parts, topology, canaries, shutdown).await;
            }));
        }
        let primary = Primary::named(url)?;
        let canary = self.canary.take();
        let (parts, distribution) = self.split(history);
        let layer = layer.map(|settings| Layer::new(settings, url, &parts)).transpose()?;
        Ok(Either::Right(async move {
            tokio::task::spawn_local(shutdown.essential("distribution", distribution));
            if let Some(layer) = &layer {
                layer.spawn(&parts, &shutdown);
            }
            let mut subscription = RedisSubscription {
                primary,
                channels: parts.catch_ups.channels.clone(),
                parts,
                layer,
                links: Links::default(),
                subscribed: HashSet::new(),
                canary,
                connections: 0,
            };
            supervise(&mut subscription, &shutdown).await;
            if let Some(layer) = &subscription.layer {
                let leaving = layer.close(&mut subscription.links);
                // What is not removed in time expires in Redis.
                let _ = tokio::time::timeout(LEAVE_TIMEOUT, leaving).await;
            }
        }))
    }
}

struct RedisSubscription {
    primary: Primary,
    channels: SharedChannels,
    parts: Parts,
    layer: Option<Layer>,
    /// The connections to the channel layer's hosts.
    links: Links,
    /// The channels that Redis has confirmed on the current connection.
    subscribed: HashSet<ChannelName>,
    canary: Option<Canary>,
    /// How many connections have been opened so far.
    connections: u64,
}

impl Supervised for RedisSubscription {
    type Connection = PubSub;

    /// Opens a connection on which every channel of [`SharedChannels`] is confirmed.
    async fn connect(&mut self, health: &Health) -> Result<PubSub, ConnectionError> {
        let mut pubsub = self.open(health).await?;
        // The gap is reported before anything can be received again, so that no client gets a publication from
        // after the gap.
        self.connections += 1;
        let catch_up = if self.connections > 1 { self.report_gap().await } else { Vec::new() };
        while let Ok(change) = self.parts.changes.try_recv() {
            self.channels.lock().apply(change);
        }
        if let Some(layer) = &self.layer {
            self.links = layer.connect(health).await?;
        }
        let all: Vec<_> = self.channels.lock().names().cloned().collect();
        self.subscribe(&mut pubsub, all).await?;
        let subscribed: Vec<_> = self.subscribed.iter().cloned().collect();
        self.parts.catch_ups.confirm(subscribed).await;
        for (channel, number) in catch_up {
            self.parts.catch_ups.start(channel, number);
        }
        self.parts.live.store(true, Ordering::Release);
        self.subscribe_canary(&mut pubsub).await?;
        Ok(pubsub)
    }

    fn links_to_check(&self, pubsub: &PubSub) -> Vec<MonitoredLink> {
        std::iter::once(pubsub.link()).chain(self.links.links()).collect()
    }

    async fn serve(
        &mut self,
        mut pubsub: PubSub,
        mut lost: BoxFuture<'_, ConnectionError>,
    ) -> ConnectionError {
        let mut leave = tokio::time::interval(LEAVE_INTERVAL);
        leave.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changes = Vec::new();
        loop {
            let result = tokio::select! {
                error = &mut lost => return error,
                _ = leave.tick() => match &self.layer {
                    Some(layer) => layer.leave_due(&mut self.links).await,
                    None => Ok(()),
                },
                count = self.parts.changes.recv_many(&mut changes, CHANNELS_PER_COMMAND), if changes.is_empty() => {
                    if count == 0 {
                        return "the gateway is stopping".into();
                    }
                    self.apply(&mut pubsub, &mut changes).await
                }
            };
            if let Err(error) = result {
                return error;
            }
        }
    }

    fn disconnected(&mut self) {
        self.parts.live.store(false, Ordering::Release);
        self.canary.iter().for_each(Canary::disconnected);
        self.links = Links::default();
        self.layer.iter().for_each(Layer::disconnected);
        self.subscribed.clear();
    }

    fn record(&self, event: ConnectionEvent<'_>) {
        match event {
            ConnectionEvent::Connected { .. } => {
                telemetry::engine::subscription_live(self.subscribed.len());
            }
            ConnectionEvent::ConnectFailed { attempt, reason } => {
                telemetry::engine::subscription_failed(attempt, reason);
            }
            ConnectionEvent::Lost { reason } => telemetry::engine::subscription_lost(reason),
        }
    }

    /// Applies changes during the pause, so that the channels are up to date at the next attempt.
    async fn pause(&mut self, pause: Duration) {
        let pause = tokio::time::sleep(pause);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => return,
                Some(change) = self.parts.changes.recv() => {
                    self.channels.lock().apply(change);
                }
            }
        }
    }
}

impl RedisSubscription {
    async fn open(&self, health: &Health) -> Result<PubSub, ConnectionError> {
        let intake = self.parts.intake.clone();
        let max_bytes = self.parts.max_publication_bytes;
        let overflow = health.clone();
        let canary = self.canary.clone();
        PubSub::connect_to(&self.primary, health, move |channel, payload| {
            if canary.as_ref().is_some_and(|canary| canary.accept(channel, payload)) {
                return;
            }
            if payload.len() > max_bytes {
                return telemetry::delivery::publication_too_large(payload.len());
            }
            if accept(&intake, channel, payload).is_err() {
                overflow.give_up("publications arrived faster than they were delivered");
            }
        })
        .await
    }

    /// Reports that publications of all channels may have been missed. Returns the channels to catch up from
    /// their histories, each with the number of its catch-up; the clients of the others are disconnected.
    async fn report_gap(&mut self) -> Vec<(ChannelName, u64)> {
        let gap = self.channels.lock().record_gap();
        self.parts.catch_ups.tails.report_gap_except(&gap.catch_up);
        self.parts.catch_ups.report_lost(gap).await
    }

    /// Subscribes the canary's channel. It is the last one, so that a canary arrives only once every channel is
    /// subscribed.
    async fn subscribe_canary(&self, pubsub: &mut PubSub) -> Result<(), ConnectionError> {
        let Some(canary) = &self.canary else { return Ok(()) };
        match pubsub.subscribe(&[canary.channel()]).await {
            Ok(()) => canary.subscribed(self.connections),
            Err(failure @ RedisFailure::Unavailable) => return Err(failure.into()),
            Err(RedisFailure::Refused(error)) => {
                telemetry::engine::subscription_refused(&error);
                canary.subscribe_refused();
            }
        }
        Ok(())
    }
}
