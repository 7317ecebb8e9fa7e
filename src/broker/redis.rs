//! The Redis engine's subscription: one pub/sub connection, supervised here.
//!
//! What should be subscribed is in [`Channels`]; what Redis has confirmed is in `subscribed`. After each
//! batch of changes the difference is asked for and awaited, so SUBSCRIBE and UNSUBSCRIBE of a channel
//! never overtake each other. A connection that breaks, stalls or cannot keep up is given up whole: all
//! channels are subscribed anew on the next one, and what was missed meanwhile is read from the histories;
//! the clients of channels without one are sent away.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;

use super::canary::Canary;
use super::channels::{Change, Channels, Gap};
use super::core::{Core, Parts, accept};
use super::history::History;
use super::layer::{Layer, Links};
use super::thread::ToThread;
use crate::config::{ChannelsLayer, RedisUrl};
use crate::protocol::ChannelName;
use crate::redis_link::{Backoff, Heard, Lost, PubSub, RedisFailure};
use crate::shutdown::Shutdown;
use crate::telemetry;

/// Channels of one SUBSCRIBE.
const CHANNELS_PER_COMMAND: usize = 512;

/// At the end, for the channel layer.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often the connection is asked for a sign of life.
const PING_INTERVAL: Duration = Duration::from_secs(2);

impl Core {
    /// Serves the Redis engine until killed, and then takes leave of the channel layer, if there is one.
    /// `Err` = a URL is wrong.
    pub fn run_redis(
        mut self,
        url: &RedisUrl,
        layer: Option<&ChannelsLayer>,
        history: History,
        shutdown: Shutdown,
    ) -> Result<impl Future<Output = ()> + use<>, String> {
        let client = crate::redis_link::pubsub_client(url)?;
        let canary = self.canary.take();
        let (parts, distribution) = self.split(history);
        let layer = layer.map(|settings| Layer::new(settings, url, &parts)).transpose()?;
        Ok(async move {
            tokio::task::spawn_local(distribution);
            if let Some(layer) = &layer {
                layer.spawn(&parts, &shutdown);
            }
            let mut supervisor = Supervisor {
                client,
                channels: Rc::clone(&parts.catch_ups.channels),
                threads: Rc::clone(&parts.catch_ups.threads),
                parts,
                layer,
                links: Links::default(),
                subscribed: HashSet::new(),
                canary,
                connections: 0,
            };
            tokio::select! {
                () = supervisor.run() => {}
                () = shutdown.killed() => {}
            }
            if let Some(layer) = &supervisor.layer {
                let leaving = layer.close(&mut supervisor.links);
                let _or_forgotten_in_time = tokio::time::timeout(LEAVE_TIMEOUT, leaving).await;
            }
        })
    }
}

struct Supervisor {
    client: redis::Client,
    channels: Rc<RefCell<Channels>>,
    threads: Rc<[mpsc::Sender<ToThread>]>,
    parts: Parts,
    layer: Option<Layer>,
    /// The layer's, beside the connection.
    links: Links,
    /// What Redis has confirmed on the present connection.
    subscribed: HashSet<ChannelName>,
    canary: Option<Canary>,
    /// As many as there were.
    connections: u64,
}

impl Supervisor {
    async fn run(&mut self) {
        let mut backoff = Backoff::new();
        loop {
            match self.connect().await {
                Ok((mut pubsub, mut lost)) => {
                    backoff.reset();
                    let Lost(why) = self.serve(&mut pubsub, &mut lost).await;
                    telemetry::engine::subscription_lost(why);
                }
                Err(Lost(why)) => telemetry::engine::subscription_failed(why),
            }
            self.parts.live.store(false, Ordering::Release);
            self.canary.iter().for_each(Canary::disconnected);
            self.links = Links::default();
            self.layer.iter().for_each(Layer::disconnected);
            self.subscribed.clear();
            self.wait(backoff.next()).await;
        }
    }

    /// Keeps the books while there is no connection.
    async fn wait(&mut self, pause: Duration) {
        let pause = tokio::time::sleep(pause);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => return,
                Some(change) = self.parts.changes.recv() => {
                    self.channels.borrow_mut().apply(change);
                }
            }
        }
    }

    /// A connection on which every channel of the books is confirmed.
    async fn connect(&mut self) -> Result<(PubSub, mpsc::Receiver<&'static str>), Lost> {
        let (give_up, lost) = mpsc::channel(1);
        let intake = self.parts.intake.clone();
        let max_bytes = self.parts.max_publication_bytes;
        let give_up_layer = give_up.clone();
        let canary = self.canary.clone();
        let mut pubsub = PubSub::connect(&self.client, move |heard| match heard {
            Heard::Message { channel, payload }
                if canary.as_ref().is_some_and(|canary| canary.take(&channel, &payload)) => {}
            Heard::Message { payload, .. } if payload.len() > max_bytes => {
                telemetry::delivery::publication_too_large(payload.len());
            }
            Heard::Message { channel, payload } => {
                if accept(&intake, &channel, payload.into()).is_err() {
                    let _told_already =
                        give_up.try_send("publications came faster than they go out");
                }
            }
            Heard::Disconnected => {
                let _told_already = give_up.try_send("connection closed");
            }
        })
        .await?;
        // Before anything can be heard again, so that nobody gets a publication from beyond the gap.
        self.connections += 1;
        let catch_up = if self.connections > 1 {
            let Gap { lost, catch_up } = self.channels.borrow_mut().gap();
            self.parts.catch_ups.tails.missed_all_but(&catch_up);
            for (thread, channels) in lost {
                let _thread_ended = self.threads[thread].send(ToThread::Missed(channels)).await;
            }
            catch_up
        } else {
            Vec::new()
        };
        while let Ok(change) = self.parts.changes.try_recv() {
            self.channels.borrow_mut().apply(change);
        }
        if let Some(layer) = &self.layer {
            self.links = layer.connect(&give_up_layer).await?;
        }
        let all: Vec<_> = self.channels.borrow().names().cloned().collect();
        self.subscribe(&mut pubsub, all).await?;
        let subscribed: Vec<_> = self.subscribed.iter().cloned().collect();
        self.confirm(subscribed).await;
        for (channel, number) in catch_up {
            self.parts.catch_ups.start(channel, number);
        }
        self.parts.live.store(true, Ordering::Release);
        self.listen_for_canary(&mut pubsub).await?;
        telemetry::engine::subscription_live(self.subscribed.len());
        Ok((pubsub, lost))
    }

    /// Last, so that it comes back only once every channel is heard.
    async fn listen_for_canary(&self, pubsub: &mut PubSub) -> Result<(), Lost> {
        let Some(canary) = &self.canary else { return Ok(()) };
        match pubsub.subscribe(&[canary.channel()]).await {
            Ok(()) => canary.subscribed(self.connections),
            Err(RedisFailure::Unavailable) => return Err(Lost("no answer to SUBSCRIBE")),
            Err(RedisFailure::Refused(error)) => {
                telemetry::engine::subscription_refused(&error);
                canary.refused();
            }
        }
        Ok(())
    }

    async fn serve(
        &mut self,
        pubsub: &mut PubSub,
        lost: &mut mpsc::Receiver<&'static str>,
    ) -> Lost {
        let mut ping = tokio::time::interval(PING_INTERVAL);
        ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut changes = Vec::new();
        loop {
            let result = tokio::select! {
                Some(why) = lost.recv() => return Lost(why),
                _ = ping.tick() => self.look_after(pubsub).await,
                count = self.parts.changes.recv_many(&mut changes, CHANNELS_PER_COMMAND), if changes.is_empty() => {
                    if count == 0 {
                        return Lost("the gateway ends");
                    }
                    self.follow(pubsub, &mut changes).await
                }
            };
            if let Err(lost) = result {
                return lost;
            }
        }
    }

    async fn look_after(&mut self, pubsub: &mut PubSub) -> Result<(), Lost> {
        pubsub.ping().await?;
        self.links.ping().await?;
        match &self.layer {
            Some(layer) => layer.leave_due(&mut self.links).await,
            None => Ok(()),
        }
    }

    /// Brings Redis to what the books say after `changes`.
    async fn follow(&mut self, pubsub: &mut PubSub, changes: &mut Vec<Change>) -> Result<(), Lost> {
        let touched: HashSet<ChannelName> = {
            let mut channels = self.channels.borrow_mut();
            changes.drain(..).filter_map(|change| channels.apply(change)).collect()
        };
        let (wanted, unwanted): (Vec<_>, Vec<_>) =
            touched.into_iter().partition(|channel| self.channels.borrow().is_wanted(channel));
        let gone: Vec<_> =
            unwanted.into_iter().filter(|channel| self.subscribed.remove(channel)).collect();
        if !gone.is_empty() {
            pubsub.unsubscribe(&gone).await?;
            if let Some(layer) = &self.layer {
                layer.leave(&mut self.links, &gone).await?;
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

    async fn subscribe(
        &mut self,
        pubsub: &mut PubSub,
        channels: Vec<ChannelName>,
    ) -> Result<(), Lost> {
        for some in channels.chunks(CHANNELS_PER_COMMAND) {
            match pubsub.subscribe(some).await {
                Ok(()) => self.subscribed.extend(some.iter().cloned()),
                Err(RedisFailure::Unavailable) => return Err(Lost("no answer to SUBSCRIBE")),
                // One forbidden channel fails the whole command: find out which.
                Err(RedisFailure::Refused(_)) => self.subscribe_singly(pubsub, some).await?,
            }
            self.join_layer(some).await?;
        }
        Ok(())
    }

    /// The groups of `channels` as well.
    async fn join_layer(&mut self, channels: &[ChannelName]) -> Result<(), Lost> {
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
    ) -> Result<(), Lost> {
        for channel in channels {
            match pubsub.subscribe(std::slice::from_ref(channel)).await {
                Ok(()) => {
                    self.subscribed.insert(channel.clone());
                }
                Err(RedisFailure::Unavailable) => return Err(Lost("no answer to SUBSCRIBE")),
                Err(RedisFailure::Refused(error)) => {
                    telemetry::engine::subscription_refused(&error);
                    self.refuse(channel).await;
                }
            }
        }
        Ok(())
    }

    async fn refuse(&self, channel: &ChannelName) {
        self.parts.catch_ups.tails.refused(channel);
        for (thread, ticket) in self.threads_of(channel) {
            let word = ToThread::Refused(channel.clone(), ticket);
            let _thread_ended = self.threads[thread].send(word).await;
        }
    }

    /// Tells each thread which of its channels are live.
    async fn confirm(&self, channels: Vec<ChannelName>) {
        let mut words: Vec<Vec<_>> = self.threads.iter().map(|_| Vec::new()).collect();
        for channel in channels {
            self.parts.catch_ups.tails.live(&channel);
            for (thread, ticket) in self.threads_of(&channel) {
                words[thread].push((channel.clone(), ticket));
            }
        }
        for (thread, word) in self.threads.iter().zip(words) {
            if !word.is_empty() {
                let _thread_ended = thread.send(ToThread::Confirmed(word)).await;
            }
        }
    }

    fn threads_of(&self, channel: &ChannelName) -> Vec<(usize, u64)> {
        let channels = self.channels.borrow();
        channels.listeners(channel).iter().map(|l| (l.thread, l.ticket)).collect()
    }
}
