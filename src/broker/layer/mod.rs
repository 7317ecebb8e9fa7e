//! Reads a Django Channels layer: an intake in front of the engine for the messages of a backend's
//! `group_send`.
//!
//! Each channel that has listeners on this node is a group that this node is a member of. A message for a
//! channel with a history is appended to it once, no matter how many nodes import it, and is then delivered like
//! every publication; a message for a channel without one goes straight into this node's intake.
//! Invariants: a channel is not confirmed to sockets before its group is joined; nothing here waits for a
//! client; and whenever messages may have been missed, clients see it by a new epoch or are disconnected.
//!
//! `group_membership` knows the groups, `listener` registers this node as a listener of their channels,
//! `alignment` gets from other nodes what came before, `earlier_members` what comes late, `importer` appends or delivers the messages, `mailbox` and
//! `groups` each read one kind of layer. `nodes` takes over what a dead node leaves, `handover` leaves in good order.

mod alignment;
mod earlier_members;
mod group_membership;
mod groups;
mod handover;
mod importer;
mod listener;
mod mailbox;
mod nodes;
mod other_types;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};

use self::earlier_members::EarlierMembers;
use self::group_membership::GroupMembership;
use self::groups::Groups;
pub(super) use self::groups::Links;
use self::importer::Importer;
use super::catch_up::EndReader;
use super::channels::Change;
use super::core::Parts;
use super::history::{History, ListenerState, RedisHistory};
use super::layer_reads::LayerReads;
use super::thread::ToThread;
use crate::channel_layer::{MailboxNames, Memberships, Serializer};
use crate::config::{ChannelsLayer, ChannelsWire, RedisUrl};
use crate::protocol::ChannelName;
use crate::redis_link::{Commands, ConnectionError, Health, RedisFailure};
use crate::shutdown::Shutdown;
use crate::telemetry;

/// The pause between two attempts while the engine does not answer.
const PAUSE: Duration = Duration::from_millis(100);

/// The reader of a channel layer. Cheap to clone, on the engine thread.
#[derive(Clone)]
pub(super) struct Layer(Rc<Inner>);

struct Inner {
    settings: ChannelsLayer,
    wire: Wire,
    serializer: Serializer,
    history: History,
    /// The histories in Redis, over a connection that outlives the gateway's other connections, since this node is
    /// unregistered at the end.
    redis: RedisHistory,
    membership: RefCell<GroupMembership>,
    /// The other nodes to which messages of this node's groups may still go alone.
    earlier_members: RefCell<EarlierMembers>,
    /// Identifies this node among the nodes that append.
    node: String,
    /// The nodes that are known, and how long ago the last heartbeat of each was.
    nodes: RefCell<Vec<(String, Duration)>>,
    /// The time to which the ages in `nodes` refer.
    nodes_at: Cell<Instant>,
    /// When this node began to stop.
    leaving_since: Cell<Option<Instant>>,
    /// The number of the last marker that this node sent.
    markers: Cell<u64>,
    /// Notified when messages that were held can be appended.
    released: Notify,
    /// Changes when another node has answered a marker.
    counted: watch::Sender<()>,
    /// Whether messages reach this node; shared with readiness checks.
    up: Arc<AtomicBool>,
    /// How far the mailbox has been read.
    reads: Arc<LayerReads>,
    /// When the mailbox was last read.
    last_read: Cell<Instant>,
    threads: Rc<[mpsc::Sender<ToThread>]>,
    channels: super::channels::SharedChannels,
    changes: mpsc::WeakUnboundedSender<Change>,
    max_publication_bytes: usize,
    /// Tells which reply a message ends, so that its end is recorded when it is appended.
    end_reader: EndReader,
    /// The shutdown signal of the connections that outlive the gateway's others. It is never triggered: the
    /// connections end with their last user.
    _connections: Shutdown,
}

enum Wire {
    Core { names: MailboxNames, memberships: Memberships },
    PubSub(Groups),
}

impl Layer {
    /// Starts the connections; [`Layer::spawn`] starts reading.
    ///
    /// # Errors
    /// A text that names the host whose URL is not valid.
    pub fn new(
        settings: &ChannelsLayer,
        engine_url: &RedisUrl,
        parts: &Parts,
    ) -> Result<Self, String> {
        let (up, reads) = (Arc::clone(&parts.layer_up), Arc::clone(&parts.layer_reads));
        let connections = Shutdown::new();
        let history = parts.catch_ups.history.clone();
        let Some(redis) = history.in_redis() else {
            return Err("a channel layer needs the Redis engine".to_owned());
        };
        let commands = Commands::start(engine_url, "channel_layer_history", &connections)?;
        let redis = redis.with_commands(commands);
        let names = MailboxNames::random(&settings.prefix, settings.hosts.len());
        let node = names.node().to_owned();
        let wire = match settings.wire {
            ChannelsWire::Core => {
                let memberships = Memberships::start(settings, names.clone(), &connections)?;
                Wire::Core { names, memberships }
            }
            ChannelsWire::PubSub => Wire::PubSub(Groups::new(settings, redis.alignment_channel())?),
        };
        up.store(false, Ordering::Release);
        Ok(Self(Rc::new(Inner {
            serializer: serializer(settings),
            settings: settings.clone(),
            wire,
            history,
            redis,
            membership: RefCell::default(),
            earlier_members: RefCell::default(),
            node,
            nodes: RefCell::default(),
            nodes_at: Cell::new(Instant::now()),
            leaving_since: Cell::new(None),
            markers: Cell::new(0),
            released: Notify::new(),
            counted: watch::Sender::new(()),
            up,
            reads,
            last_read: Cell::new(Instant::now()),
            threads: Rc::clone(&parts.catch_ups.threads),
            channels: parts.catch_ups.channels.clone(),
            changes: parts.changes_sender.clone(),
            max_publication_bytes: parts.max_publication_bytes,
            end_reader: Rc::clone(&parts.end_reader),
            _connections: connections,
        })))
    }

    /// Starts the tasks that read the layer and renew the memberships, until the process is killed.
    pub fn spawn(&self, parts: &Parts, shutdown: &Shutdown) {
        let importer = Importer::new(self, parts.intake.clone());
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
                tokio::task::spawn_local(self.clone().read_mailbox(importer, shutdown.clone()));
                until_killed(Box::pin(self.clone().renew_memberships_periodically()));
            }
            Wire::PubSub(_) => {
                until_killed(Box::pin(self.clone().import_messages(importer)));
                until_killed(Box::pin(self.clone().renew_registrations_periodically()));
            }
        }
        until_killed(Box::pin(self.clone().run_heartbeat()));
        until_killed(Box::pin(self.clone().hand_over(shutdown.clone())));
    }

    /// Joins the groups of `channels` that this node is not in. Returns those that Redis refuses.
    pub async fn join(
        &self,
        links: &mut Links,
        channels: &[ChannelName],
    ) -> Result<Vec<ChannelName>, ConnectionError> {
        let new = self.0.membership.borrow_mut().join(channels);
        if new.is_empty() {
            return Ok(Vec::new());
        }
        match self.join_new(links, &new).await {
            Ok(refused) => {
                let mut membership = self.0.membership.borrow_mut();
                membership.remove(&refused);
                membership.confirm(&new);
                self.0.released.notify_one();
                Ok(refused)
            }
            Err(error) => {
                // Some groups may have been joined. Those that are still wanted are joined again later. Until then,
                // none of their messages are held.
                let mut membership = self.0.membership.borrow_mut();
                membership.remove(&new);
                membership.join(&new);
                membership.schedule_leave(&new, Instant::now());
                self.0.released.notify_one();
                Err(error)
            }
        }
    }

    async fn join_new(
        &self,
        links: &mut Links,
        new: &[ChannelName],
    ) -> Result<Vec<ChannelName>, ConnectionError> {
        let refused = match &self.0.wire {
            Wire::Core { memberships, .. } => {
                let joined = memberships.join(new).await.map_err(|_| NO_ANSWER)?;
                let refused = joined.into_iter().filter_map(|joined| match joined.is_new {
                    Err(RedisFailure::Refused(error)) => {
                        telemetry::engine::subscription_refused(&error);
                        Some(Ok(joined.channel))
                    }
                    Err(RedisFailure::Unavailable) => Some(Err(ConnectionError::from(NO_ANSWER))),
                    Ok(_) => None,
                });
                refused.collect::<Result<Vec<_>, _>>()?
            }
            Wire::PubSub(groups) => groups.subscribe(links, new).await?,
        };
        let joined: Vec<_> =
            new.iter().filter(|channel| !refused.contains(channel)).cloned().collect();
        if !joined.is_empty() {
            let recorded = self.0.redis.record_groups(&self.0.node, &joined);
            recorded.await.map_err(|_| NO_HISTORY)?;
            let with_history = self.with_history(joined.iter());
            self.align(with_history, ListenerState::Joining).await.map_err(|_| NO_HISTORY)?;
        }
        Ok(refused)
    }

    /// Must be called when `channels` no longer have listeners on this node. The group of a channel with a history is
    /// left only after the history would have expired, because until then clients may come back and resume.
    pub async fn leave(
        &self,
        links: &mut Links,
        channels: &[ChannelName],
    ) -> Result<(), ConnectionError> {
        let now = Instant::now();
        let at_once = {
            let mut membership = self.0.membership.borrow_mut();
            channels
                .iter()
                .filter(|channel| match self.0.history.rule(channel) {
                    Some(rule) => {
                        membership.schedule_leave(std::slice::from_ref(channel), now + rule.ttl);
                        false
                    }
                    None => true,
                })
                .cloned()
                .collect::<Vec<_>>()
        };
        self.leave_now(links, &at_once).await
    }

    async fn leave_now(
        &self,
        links: &mut Links,
        channels: &[ChannelName],
    ) -> Result<(), ConnectionError> {
        if channels.is_empty() {
            return Ok(());
        }
        self.0.membership.borrow_mut().remove(channels);
        // None of their messages are held any more.
        self.0.released.notify_one();
        // Nobody must rely on this node for messages that it does not get. A registration that is not removed counts
        // only while the node sends heartbeats.
        let _ = self.0.redis.unregister_listener(&self.0.node, channels).await;
        match &self.0.wire {
            Wire::Core { memberships, .. } => {
                memberships.leave(channels).await.map_err(|_| NO_ANSWER.into())
            }
            Wire::PubSub(groups) => groups.unsubscribe(links, channels).await,
        }
    }

    /// Leaves the groups whose scheduled leave is due.
    pub async fn leave_due(&self, links: &mut Links) -> Result<(), ConnectionError> {
        let due = self.0.membership.borrow().due_to_leave(Instant::now());
        self.leave_now(links, &due).await
    }

    /// Opens the connections to the hosts of a pub/sub layer. They belong to the subscription and are lost with it.
    pub async fn connect(&self, health: &Health) -> Result<Links, ConnectionError> {
        let Wire::PubSub(groups) = &self.0.wire else { return Ok(Links::default()) };
        let mut links = groups.connect(health).await?;
        let all = self.0.membership.borrow().names();
        let refused = groups.subscribe(&mut links, &all).await?;
        groups.set_senders(&links);
        // Once this node is ready, the others must know it.
        self.announce().await?;
        self.0.membership.borrow_mut().remove(&refused);
        self.0.up.store(true, Ordering::Release);
        // Redis keeps no messages for a subscriber that is disconnected.
        let layer = self.clone();
        tokio::task::spawn_local(async move { layer.report_gap(all, ListenerState::Missed).await });
        Ok(links)
    }

    /// Must be called when the subscription, and with it the connections of [`Layer::connect`], are lost.
    pub fn disconnected(&self) {
        if let Wire::PubSub(groups) = &self.0.wire {
            self.0.up.store(false, Ordering::Release);
            groups.disconnected();
        }
    }

    fn with_history<'a>(
        &self,
        channels: impl Iterator<Item = &'a ChannelName>,
    ) -> Vec<ChannelName> {
        channels.filter(|channel| self.0.history.keeps(channel)).cloned().collect()
    }
}

const NO_ANSWER: &str = "no answer from the channel layer";
const NO_HISTORY: &str = "no answer from the history";

/// How much the clocks of a backend and of this node may differ. A message of the core layer is refused if it is
/// older than the layer's `expiry` plus this time.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(10);

fn serializer(settings: &ChannelsLayer) -> Serializer {
    let (prefix, ttl) = match settings.wire {
        ChannelsWire::Core => {
            (settings.random_prefix_length, Some(settings.expiry + MAX_CLOCK_DIFFERENCE))
        }
        ChannelsWire::PubSub => (0, None),
    };
    Serializer::new(settings.serializer)
        .with_prefix(prefix)
        .with_keys(&settings.symmetric_encryption_keys, ttl)
        .with_type(settings.keep_type)
}
