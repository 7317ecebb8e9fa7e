//! The wire of a Django Channels layer: an intake in front of the engine, for what a backend's
//! `group_send` brings.
//!
//! A channel that somebody hears is a group that this node is a member of. What comes for a channel with
//! a history is appended to it, once however many nodes bring it, and is delivered from there like every
//! publication; what comes for a channel without one goes straight into this node's intake. Invariants:
//! a channel is confirmed to no socket before its group is joined; nothing here waits for a client; and a
//! time in which messages may have been missed is told to the clients, by a new epoch or by closing them.
//!
//! `membership` knows the groups, `importer` takes what was read, `mailbox` and `groups` read either layer.

mod group_membership;
mod groups;
mod importer;
mod mailbox;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use self::group_membership::GroupMembership;
use self::groups::Groups;
pub(super) use self::groups::Links;
use self::importer::Importer;
use super::core::Parts;
use super::history::{History, ListenerState, RedisHistory};
use super::thread::ToThread;
use crate::channel_layer::{MailboxNames, Memberships, Serializer};
use crate::config::{ChannelsLayer, ChannelsWire, RedisUrl};
use crate::protocol::ChannelName;
use crate::redis_link::{Commands, Lost, RedisFailure};
use crate::shutdown::Shutdown;
use crate::telemetry;

/// Between two words that this node is alive; several within the time after which it counts as gone.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// A node that joins a group where another one is waits this long with what it reads, so that the other,
/// which has read what came before, appends first.
const DEFERRAL: Duration = Duration::from_secs(1);

/// While the engine does not answer.
const PAUSE: Duration = Duration::from_millis(100);

/// What a membership says to hold until it is renewed, in renewals.
const RENEWALS: u32 = 3;

/// A channel layer as this node reads it. Cheap to clone, on the engine thread.
#[derive(Clone)]
pub(super) struct Layer(Rc<Inner>);

struct Inner {
    settings: ChannelsLayer,
    wire: Wire,
    serializer: Serializer,
    history: History,
    /// The histories in Redis, over a connection that outlives the gateway's others, to take leave.
    redis: RedisHistory,
    membership: RefCell<GroupMembership>,
    /// Names this node among those that append.
    node: String,
    /// Whether messages reach this node; shared with readiness checks.
    up: Arc<AtomicBool>,
    /// When the layer was last known to reach this node.
    heard: Cell<Instant>,
    threads: Rc<[mpsc::Sender<ToThread>]>,
    channels: Rc<RefCell<super::channels::Channels>>,
    /// Of the connections that outlive the gateway's others.
    _connections: Shutdown,
}

enum Wire {
    Core { names: MailboxNames, memberships: Memberships },
    PubSub(Groups),
}

impl Layer {
    /// `Err` names the host that is wrong. Starts connections; [`Layer::spawn`] starts reading.
    pub fn new(
        settings: &ChannelsLayer,
        engine_url: &RedisUrl,
        parts: &Parts,
    ) -> Result<Self, String> {
        let up = Arc::clone(&parts.layer_up);
        let connections = Shutdown::new();
        let history = parts.catch_ups.history.clone();
        let Some(redis) = history.in_redis() else {
            return Err("a channel layer needs the Redis engine".to_owned());
        };
        let commands = Commands::start(engine_url, "channel_layer_history", &connections)?;
        let redis = redis.over(commands);
        let wire = match settings.wire {
            ChannelsWire::Core => {
                let names = MailboxNames::random(&settings.prefix, settings.hosts.len());
                let memberships = Memberships::start(settings, names.clone(), &connections)?;
                Wire::Core { names, memberships }
            }
            ChannelsWire::PubSub => Wire::PubSub(Groups::new(settings)?),
        };
        up.store(false, Ordering::Release);
        Ok(Self(Rc::new(Inner {
            serializer: serializer(settings),
            settings: settings.clone(),
            wire,
            history,
            redis,
            membership: RefCell::default(),
            node: uuid::Uuid::new_v4().simple().to_string(),
            up,
            heard: Cell::new(Instant::now()),
            threads: Rc::clone(&parts.catch_ups.threads),
            channels: Rc::clone(&parts.catch_ups.channels),
            _connections: connections,
        })))
    }

    /// Starts what reads the layer and keeps the memberships, until `killed`.
    pub fn spawn(&self, parts: &Parts, shutdown: &Shutdown) {
        let importer = Importer::new(self, parts.intake.clone(), parts.max_publication_bytes);
        let until_killed = |task: std::pin::Pin<Box<dyn Future<Output = ()>>>| {
            let shutdown = shutdown.clone();
            tokio::task::spawn_local(async move {
                tokio::select! {
                    () = task => {}
                    () = shutdown.killed() => {}
                }
            });
        };
        match &self.0.wire {
            Wire::Core { .. } => {
                until_killed(Box::pin(self.clone().read_mailbox(importer)));
                until_killed(Box::pin(self.clone().keep_memberships()));
            }
            Wire::PubSub(_) => {
                until_killed(Box::pin(self.clone().import_messages(importer)));
                until_killed(Box::pin(self.clone().keep_attendance()));
            }
        }
        until_killed(Box::pin(self.clone().stay_alive()));
    }

    /// Joins the groups of `channels` that this node is not in. Returns those that Redis refuses.
    pub async fn join(
        &self,
        links: &mut Links,
        channels: &[ChannelName],
    ) -> Result<Vec<ChannelName>, Lost> {
        let new = self.0.membership.borrow_mut().join(channels);
        if new.is_empty() {
            return Ok(Vec::new());
        }
        match self.join_new(links, &new).await {
            Ok(refused) => {
                let mut membership = self.0.membership.borrow_mut();
                membership.forget(&refused);
                membership.joined(&new);
                Ok(refused)
            }
            Err(lost) => {
                // Some may have been joined. Who still wants them joins again.
                self.0.membership.borrow_mut().leave_at(&new, Instant::now());
                Err(lost)
            }
        }
    }

    async fn join_new(
        &self,
        links: &mut Links,
        new: &[ChannelName],
    ) -> Result<Vec<ChannelName>, Lost> {
        let refused = match &self.0.wire {
            Wire::Core { memberships, .. } => {
                let joined = memberships.join(new).await.map_err(|_| Lost(NO_ANSWER))?;
                let refused = joined.into_iter().filter_map(|joined| match joined.is_new {
                    Err(RedisFailure::Refused(error)) => {
                        telemetry::engine::subscription_refused(&error);
                        Some(Ok(joined.channel))
                    }
                    Err(RedisFailure::Unavailable) => Some(Err(Lost(NO_ANSWER))),
                    Ok(_) => None,
                });
                refused.collect::<Result<Vec<_>, _>>()?
            }
            Wire::PubSub(groups) => groups.subscribe(links, new).await?,
        };
        let kept = self.with_history(new.iter().filter(|channel| !refused.contains(channel)));
        let told: Vec<_> =
            kept.into_iter().map(|channel| (channel, ListenerState::Unbroken)).collect();
        let registered =
            self.register_listener(&told).await.map_err(|_| Lost("no answer of the history"))?;
        let until = Instant::now() + DEFERRAL;
        for ((channel, _), registered) in told.iter().zip(registered) {
            if registered.is_ok_and(|registered| registered.others > 0) {
                self.0.membership.borrow_mut().defer(channel, until);
            }
        }
        Ok(refused)
    }

    /// Nobody here hears `channels` any more. The groups of those with a history are left only when the
    /// history would be over: until then its clients may come back, and are to find what they missed.
    pub async fn leave(&self, links: &mut Links, channels: &[ChannelName]) -> Result<(), Lost> {
        let now = Instant::now();
        let at_once = {
            let mut membership = self.0.membership.borrow_mut();
            channels
                .iter()
                .filter(|channel| match self.0.history.rule(channel) {
                    Some(rule) => {
                        membership.leave_at(std::slice::from_ref(channel), now + rule.ttl);
                        false
                    }
                    None => true,
                })
                .cloned()
                .collect::<Vec<_>>()
        };
        self.leave_now(links, &at_once).await
    }

    async fn leave_now(&self, links: &mut Links, channels: &[ChannelName]) -> Result<(), Lost> {
        if channels.is_empty() {
            return Ok(());
        }
        self.0.membership.borrow_mut().forget(channels);
        let left = match &self.0.wire {
            Wire::Core { memberships, .. } => {
                memberships.leave(channels).await.map_err(|_| Lost(NO_ANSWER))
            }
            Wire::PubSub(groups) => groups.unsubscribe(links, channels).await,
        };
        let kept = self.with_history(channels.iter());
        if !kept.is_empty() {
            let _or_the_node_shows_to_be_gone =
                self.0.redis.unregister_listener(&self.0.node, &kept).await;
        }
        left
    }

    /// The groups that were to be left by now.
    pub async fn leave_due(&self, links: &mut Links) -> Result<(), Lost> {
        let due = self.0.membership.borrow().due(Instant::now());
        self.leave_now(links, &due).await
    }

    /// Takes leave of the layer: no backend sends to this node any more.
    pub async fn close(&self, links: &mut Links) {
        self.0.up.store(false, Ordering::Release);
        let all = self.0.membership.borrow().names();
        let _or_they_are_forgotten_in_time = self.leave_now(links, &all).await;
        let _or_it_is_silent_soon = self.0.redis.die(&self.0.node).await;
        if let Wire::Core { memberships, .. } = &self.0.wire {
            let _or_it_expires = memberships.remove_mailbox().await;
        }
    }

    /// The pub/sub layer's links are part of the subscription: opened with it, lost with it.
    pub async fn connect(&self, give_up: &mpsc::Sender<&'static str>) -> Result<Links, Lost> {
        let Wire::PubSub(groups) = &self.0.wire else { return Ok(Links::default()) };
        let mut links = groups.connect(give_up).await?;
        let all = self.0.membership.borrow().names();
        let refused = groups.subscribe(&mut links, &all).await?;
        self.0.membership.borrow_mut().forget(&refused);
        self.0.up.store(true, Ordering::Release);
        // Nothing is kept for a subscriber that is away.
        let missed = self.clone();
        tokio::task::spawn_local(async move { missed.missed(all, ListenerState::Missed).await });
        Ok(links)
    }

    /// The subscription, and the links that [`Layer::connect`] gave, are lost.
    pub fn disconnected(&self) {
        if let Wire::PubSub(_) = &self.0.wire {
            self.0.up.store(false, Ordering::Release);
        }
    }

    /// Messages for `channels` may have been missed, here or by everybody.
    async fn missed(&self, channels: Vec<ChannelName>, how: ListenerState) {
        if channels.is_empty() {
            return;
        }
        telemetry::channel_layer::messages_missed(channels.len());
        let (kept, live): (Vec<_>, Vec<_>) =
            channels.into_iter().partition(|channel| self.0.history.keeps(channel));
        self.tell_missed(live).await;
        let told: Vec<_> = kept.into_iter().map(|channel| (channel, how)).collect();
        let registered = loop {
            match self.register_listener(&told).await {
                Ok(registered) => break registered,
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        };
        // Where another node was there as well, the history has it all.
        let broken = told.into_iter().zip(registered).filter_map(|((channel, _), registered)| {
            registered.map_or(true, |registered| registered.new_epoch).then_some(channel)
        });
        self.tell_missed(broken.collect()).await;
    }

    async fn tell_missed(&self, channels: Vec<ChannelName>) {
        let mut words: Vec<Vec<_>> = self.0.threads.iter().map(|_| Vec::new()).collect();
        for channel in channels {
            for listener in self.0.channels.borrow().listeners(&channel) {
                words[listener.thread].push(channel.clone());
            }
        }
        for (thread, word) in self.0.threads.iter().zip(words) {
            if !word.is_empty() {
                let _thread_ended = thread.send(ToThread::Missed(word)).await;
            }
        }
    }

    async fn register_listener(
        &self,
        told: &[(ChannelName, ListenerState)],
    ) -> Result<Vec<Result<super::history::Registered, RedisFailure>>, super::PublishError> {
        let within = self.0.settings.refresh * RENEWALS;
        self.0.redis.register_listener(&self.0.node, within, told).await
    }

    /// Renews what says that this node brings the messages of its channels.
    async fn renew_attendance(&self) {
        let all = self.0.membership.borrow().settled();
        let told: Vec<_> = self
            .with_history(all.iter())
            .into_iter()
            .map(|channel| (channel, ListenerState::Unbroken))
            .collect();
        let Ok(registered) = self.register_listener(&told).await else { return };
        let broken = told.into_iter().zip(registered).filter_map(|((channel, _), registered)| {
            registered.is_ok_and(|registered| registered.new_epoch).then_some(channel)
        });
        self.tell_missed(broken.collect()).await;
    }

    async fn keep_attendance(self) {
        let mut ticks = tokio::time::interval(self.0.settings.refresh);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.renew_attendance().await;
        }
    }

    async fn stay_alive(self) {
        let mut ticks = tokio::time::interval(ALIVE_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let _or_it_counts_as_gone = self.0.redis.node_heartbeat(&self.0.node).await;
        }
    }

    fn with_history<'a>(
        &self,
        channels: impl Iterator<Item = &'a ChannelName>,
    ) -> Vec<ChannelName> {
        channels.filter(|channel| self.0.history.keeps(channel)).cloned().collect()
    }
}

const NO_ANSWER: &str = "no answer of the channel layer";

/// The core layer refuses a message that is older than it keeps any, and a bit for the clocks.
const CLOCKS: Duration = Duration::from_secs(10);

fn serializer(settings: &ChannelsLayer) -> Serializer {
    let (prefix, ttl) = match settings.wire {
        ChannelsWire::Core => (settings.random_prefix_length, Some(settings.expiry + CLOCKS)),
        ChannelsWire::PubSub => (0, None),
    };
    Serializer::new(settings.serializer)
        .with_prefix(prefix)
        .with_keys(&settings.symmetric_encryption_keys, ttl)
        .with_type(settings.keep_type)
}
