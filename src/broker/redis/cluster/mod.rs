//! The subscription of a Redis Cluster: sharded pub/sub, with one supervised connection to each master that has slots.
//!
//! The coordinator applies the changes of the threads and hands each channel to the shard that has its slot. A shard
//! subscribes what is wanted of its channels, and ends what is not. [`Homes`] knows where each channel is, or was,
//! subscribed: one that comes to a shard again, because its connection was lost, its slot has moved or a replica was
//! promoted, may have missed publications, which are read from its history; the clients of channels without one are
//! disconnected. Invariant: the channels of other shards are not affected by what happens to one.

mod shard;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use shard::ShardSubscription;

use super::CHANNELS_PER_COMMAND;
use crate::broker::canary::ShardCanaries;
use crate::broker::catch_up::CatchUps;
use crate::broker::core::{Intake, Parts};
use crate::protocol::ChannelName;
use crate::redis_link::{Shard, Topology, supervise};
use crate::shutdown::Shutdown;

/// The interval at which channels are tried again whose slot is on its way, and at which channels without a shard look for
/// one.
const RETRY: Duration = Duration::from_millis(100);

/// Where each channel is subscribed, or was before its connection was lost. Shared by all shards, on the engine thread.
type Homes = Rc<RefCell<HashMap<ChannelName, Home>>>;

struct Home {
    /// The address of the shard.
    shard: Arc<str>,
    /// Whether the shard has confirmed the subscription, and has not ended it.
    is_live: bool,
}

/// What all shards share.
#[derive(Clone)]
struct Common {
    topology: Topology,
    catch_ups: CatchUps,
    homes: Homes,
    intake: Intake,
    max_publication_bytes: usize,
    /// The addresses of the shards that are connected and have all their channels.
    live_shards: Rc<RefCell<BTreeSet<Arc<str>>>>,
    /// Whether there is one: the channels of a dead shard do not keep clients from those of the others.
    live: Arc<AtomicBool>,
    /// Takes channels that a shard does not have.
    elsewhere: mpsc::UnboundedSender<ChannelName>,
    canaries: Option<ShardCanaries>,
}

/// Subscribes the channels of the cluster until the process is killed.
pub(super) async fn run(
    mut parts: Parts,
    topology: Topology,
    canaries: Option<ShardCanaries>,
    shutdown: Shutdown,
) {
    // At most each channel of the node, once for each time that it is handed on.
    let (elsewhere, mut handed_on) = mpsc::unbounded_channel();
    let common = Common {
        topology: topology.clone(),
        catch_ups: parts.catch_ups.clone(),
        homes: Homes::default(),
        intake: parts.intake.clone(),
        max_publication_bytes: parts.max_publication_bytes,
        live_shards: Rc::default(),
        live: Arc::clone(&parts.live),
        elsewhere,
        canaries,
    };
    let mut coordinator =
        Coordinator { common, shards: HashMap::new(), unassigned: HashSet::new(), shutdown };
    let mut map_changes = topology.subscribe_changes();
    let mut retry = tokio::time::interval(RETRY);
    retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut changes = Vec::new();
    coordinator.follow_map();
    loop {
        tokio::select! {
            () = coordinator.shutdown.killed() => return,
            changed = map_changes.changed() => match changed {
                Ok(()) => coordinator.follow_map(),
                Err(_) => return,
            },
            Some(channel) = handed_on.recv() => coordinator.hand_out(channel),
            _ = retry.tick(), if !coordinator.unassigned.is_empty() => coordinator.find_homes(),
            count = parts.changes.recv_many(&mut changes, CHANNELS_PER_COMMAND) => {
                if count == 0 {
                    return;
                }
                let changed: HashSet<ChannelName> = {
                    let mut channels = coordinator.common.catch_ups.channels.lock();
                    changes.drain(..).filter_map(|change| channels.apply(change)).collect()
                };
                changed.into_iter().for_each(|channel| coordinator.hand_out(channel));
            }
        }
    }
}

struct Coordinator {
    common: Common,
    /// The shards by their addresses.
    shards: HashMap<Arc<str>, ShardHandle>,
    /// Wanted channels whose slot has no shard.
    unassigned: HashSet<ChannelName>,
    shutdown: Shutdown,
}

struct ShardHandle {
    /// At most one entry for each change of a channel.
    channels: mpsc::UnboundedSender<ChannelName>,
    task: JoinHandle<()>,
}

impl Drop for ShardHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Coordinator {
    /// Has the shard of `channel` look at it.
    fn hand_out(&mut self, channel: ChannelName) {
        let shard = self.common.topology.shard_of(channel.as_str());
        let handle = shard.as_ref().and_then(|shard| self.shards.get(shard));
        let is_wanted = self.common.is_wanted(&channel);
        let mut homes = self.common.homes.borrow_mut();
        if let Some(home) = homes.get(&channel) {
            if !home.is_live && !is_wanted {
                homes.remove(&channel);
            } else if home.is_live
                && shard.as_ref() != Some(&home.shard)
                && let Some(former) = self.shards.get(&home.shard)
            {
                // The former home ends its subscription.
                let _ = former.channels.send(channel.clone());
            }
        }
        drop(homes);
        match handle {
            // The task only ends with the process, or once this handle is dropped.
            Some(handle) => {
                let _ = handle.channels.send(channel);
            }
            None if is_wanted => {
                self.common.topology.suspect();
                self.unassigned.insert(channel);
            }
            None => {}
        }
    }

    fn find_homes(&mut self) {
        std::mem::take(&mut self.unassigned).into_iter().for_each(|channel| self.hand_out(channel));
    }

    /// Starts and ends shards after a change of the map, and has all channels looked at whose slots may have moved.
    fn follow_map(&mut self) {
        let shards = self.common.topology.shards();
        let is_there = |address: &Arc<str>| shards.iter().any(|shard| shard.address == *address);
        let gone: Vec<_> =
            self.shards.keys().filter(|address| !is_there(address)).cloned().collect();
        for address in gone {
            self.shards.remove(&address);
            self.common.lost(&address);
        }
        for shard in shards {
            if !self.shards.contains_key(&shard.address) {
                let address = Arc::clone(&shard.address);
                let handle = self.start(shard);
                self.shards.insert(address, handle);
            }
        }
        let moved: Vec<ChannelName> = {
            let homes = self.common.homes.borrow();
            let has_moved = |(channel, home): &(&ChannelName, &Home)| {
                !home.is_live || !self.common.is_of(channel, &home.shard)
            };
            homes.iter().filter(has_moved).map(|(channel, _)| channel.clone()).collect()
        };
        moved.into_iter().for_each(|channel| self.hand_out(channel));
        self.find_homes();
    }

    fn start(&self, shard: Shard) -> ShardHandle {
        let (channels, changed) = mpsc::unbounded_channel();
        let mut subscription = ShardSubscription::new(self.common.clone(), shard, changed);
        let shutdown = self.shutdown.clone();
        let work = async move { supervise(&mut subscription, &shutdown).await };
        let task = tokio::task::spawn_local(self.shutdown.essential("broker of a shard", work));
        ShardHandle { channels, task }
    }
}

impl Common {
    fn is_wanted(&self, channel: &ChannelName) -> bool {
        self.catch_ups.channels.lock().is_wanted(channel)
    }

    fn is_of(&self, channel: &ChannelName, shard: &str) -> bool {
        self.topology.shard_of(channel.as_str()).is_some_and(|owner| *owner == *shard)
    }

    /// The connection to `shard` is lost, and with it all its subscriptions.
    fn lost(&self, shard: &Arc<str>) {
        for home in self.homes.borrow_mut().values_mut().filter(|home| home.shard == *shard) {
            home.is_live = false;
        }
        self.canaries.iter().for_each(|canaries| canaries.disconnected(shard));
        let mut live_shards = self.live_shards.borrow_mut();
        live_shards.remove(shard);
        self.live.store(!live_shards.is_empty(), Ordering::Release);
    }
}
