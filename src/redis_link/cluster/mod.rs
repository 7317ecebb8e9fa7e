//! A Redis Cluster: which node has which slots, with a supervised link for commands to each master.
//!
//! This module owns the map of slots and when it is read again: every [`PERIOD`], and soon after a node was lost, came
//! back or answered that a slot has moved, one read at a time. Where nodes contradict each other about a slot, the one
//! with the highest epoch has it, which is the rule of the cluster itself. What is sent where is in `routing`. Invariant:
//! a link leads to a node that says it is a master, as everywhere; and what a dead node has fails at once, while the other
//! nodes are used as before.

mod map;
mod refresh;
mod routing;
mod view;

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use redis::Client;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use map::SlotMap;
pub(super) use refresh::find_masters;
pub(super) use routing::Loader;

use super::open::{self, COMMAND_DEADLINE};
use super::probe::Needs;
use crate::config::RedisUrl;
use crate::shutdown::Shutdown;

/// The interval between reads of the map while nothing changes.
const PERIOD: Duration = Duration::from_secs(10);

/// The interval while a node that has slots cannot be reached, or a slot has no node.
const PERIOD_UNSETTLED: Duration = Duration::from_millis(250);

/// The shortest time between two reads.
const MIN_PAUSE: Duration = Duration::from_millis(50);

/// The most nodes that are asked for the map at the same time.
const MAX_ASKED: usize = 5;

/// How long the other nodes are waited for once one has answered.
const OTHERS: Duration = Duration::from_millis(200);

/// How long the other nodes have to confirm that one is still a master.
const CONFIRMATION: Duration = Duration::from_millis(500);

/// How long the start waits for the nodes that do not answer before those that do are used without them.
const PATIENCE: Duration = Duration::from_secs(2);

/// The slots that a node has, as far as its probe needs to know.
#[derive(Clone)]
pub(super) struct NodeSlots(Arc<AtomicU32>);

impl NodeSlots {
    fn none() -> Self {
        Self(Arc::new(AtomicU32::new(u32::MAX)))
    }

    fn set(&self, slot: Option<u16>) {
        self.0.store(slot.map_or(u32::MAX, u32::from), Ordering::Relaxed);
    }

    /// One of the slots; `None` if the node has none.
    pub fn any(&self) -> Option<u16> {
        u16::try_from(self.0.load(Ordering::Relaxed)).ok()
    }
}

/// A master that has slots.
#[derive(Clone)]
pub struct Shard {
    /// Host and port, which identify it.
    pub address: Arc<str>,
    /// Prepares connections to it.
    pub client: Client,
}

/// The nodes of a cluster and their slots, as they are known now. Clones share their state.
#[derive(Clone)]
pub struct Topology(Arc<State>);

struct State {
    url: RedisUrl,
    name: Box<str>,
    shutdown: Shutdown,
    map: ArcSwap<SlotMap>,
    /// Counts the changes of `map`.
    version: watch::Sender<u64>,
    needs: Mutex<BTreeMap<&'static str, Needs>>,
    refresh: Notify,
    /// Whether the cluster can be used: see [`Topology::update_up`].
    up: watch::Sender<bool>,
    /// Why the map could not be read at the last attempt.
    problem: ArcSwapOption<String>,
    began: Instant,
    /// From which node on the map is read next.
    turn: AtomicUsize,
}

/// The links for commands to all masters of a cluster. They end when this is dropped.
pub(super) struct ClusterCommands {
    topology: Topology,
    _supervisor_guard: DropGuard,
}

impl ClusterCommands {
    /// Starts to look for the nodes on the current runtime.
    pub fn start(url: &RedisUrl, name: &str, shutdown: &Shutdown) -> Result<Self, String> {
        // What is wrong with the URL is wrong for every node.
        for seed in url.seeds() {
            open::client(&seed)?;
        }
        let topology = Topology(Arc::new(State {
            url: url.clone(),
            name: name.into(),
            shutdown: shutdown.clone(),
            map: ArcSwap::from_pointee(SlotMap::empty()),
            version: watch::Sender::new(0),
            needs: Mutex::default(),
            refresh: Notify::new(),
            up: watch::Sender::new(false),
            problem: ArcSwapOption::empty(),
            began: Instant::now(),
            turn: AtomicUsize::new(0),
        }));
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let (supervised, killed) = (topology.clone(), shutdown.clone());
        let part = shutdown.clone().essential("redis cluster", async move {
            tokio::select! {
                () = supervised.keep_current() => {}
                () = stop.cancelled() => {}
                () = killed.killed() => {}
            }
            supervised.0.up.send_replace(false);
        });
        tokio::spawn(part);
        Ok(Self { topology, _supervisor_guard: guard })
    }

    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    pub fn declare(&self, user: &'static str, needs: Needs) {
        self.topology.0.needs().insert(user, needs.clone());
        for node in &self.map().nodes {
            node.commands.declare(user, needs.clone());
        }
    }

    /// Whether any node that has slots can be used and accepts what was declared.
    pub fn check(&self) -> Result<(), String> {
        let map = self.map();
        if !*self.topology.0.up.borrow() {
            let problem = self.topology.0.problem.load_full();
            let first = || map.owners().find_map(|node| Some((node, node.commands.check().err()?)));
            return Err(match problem {
                Some(problem) => format!("the cluster cannot be used: {problem}"),
                None => match first() {
                    Some((node, problem)) => format!("{}: {problem}", node.address),
                    None => "the nodes of the cluster are not known yet".to_owned(),
                },
            });
        }
        let mut first = None;
        for node in map.owners() {
            match node.commands.check() {
                Ok(()) => return Ok(()),
                Err(problem) => first = first.or(Some((node, problem))),
            }
        }
        first.map_or(Ok(()), |(node, problem)| Err(format!("{}: {problem}", node.address)))
    }

    pub fn record_refusal(&self, reason: &str) {
        // The node is not known here, and the metric is that of the first.
        if let Some(node) = self.map().nodes.first() {
            node.commands.record_refusal(reason);
        }
    }

    fn map(&self) -> Arc<SlotMap> {
        self.topology.0.map.load_full()
    }
}

impl State {
    fn needs(&self) -> MutexGuard<'_, BTreeMap<&'static str, Needs>> {
        self.needs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Topology {
    /// Makes the map be read again soon: it may be out of date.
    pub fn suspect(&self) {
        self.0.refresh.notify_one();
    }

    pub fn subscribe_up(&self) -> watch::Receiver<bool> {
        self.0.up.subscribe()
    }

    /// Reports each change of the map.
    pub fn subscribe_changes(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }

    /// The masters that have slots.
    pub fn shards(&self) -> Vec<Shard> {
        self.0.map.load().owners().map(|node| node.shard()).collect()
    }

    /// The address of the master that has the channel `name` of sharded pub/sub; `None` if no node has its slot.
    pub fn shard_of(&self, name: &str) -> Option<Arc<str>> {
        let map = self.0.map.load();
        map.owner(super::slots::slot_of(name.as_bytes())).map(|node| Arc::clone(&node.address))
    }

    /// What stands in braces in names that belong to the shard at `address`; `None` if it has no slots.
    pub fn tag_of_shard(&self, address: &str) -> Option<String> {
        let slot = self.0.map.load().at(address)?.slots.any()?;
        Some(super::slots::tag_of_slot(slot))
    }

    /// Waits a short time until `slot` has a node.
    pub(super) async fn owner_of(&self, slot: u16) -> Option<Client> {
        let mut changes = self.subscribe_changes();
        let deadline = Instant::now() + COMMAND_DEADLINE;
        loop {
            if let Some(node) = self.0.map.load().owner(slot) {
                return Some(node.client.clone());
            }
            self.suspect();
            timeout_at(deadline, changes.changed()).await.ok()?.ok()?;
        }
    }

    /// Keeps links for commands of the current thread to all masters, until the process is killed or this is dropped.
    pub async fn serve_thread(self, shutdown: Shutdown) {
        type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

        let mut changes = self.subscribe_changes();
        let mut serving: Vec<(Arc<str>, Serving)> = Vec::new();
        loop {
            let map = self.0.map.load_full();
            serving.retain(|(address, _)| map.nodes.iter().any(|node| node.address == *address));
            for node in &map.nodes {
                if serving.iter().all(|(address, _)| *address != node.address) {
                    let link = node.commands.serve_thread(&shutdown);
                    serving.push((Arc::clone(&node.address), Box::pin(link)));
                }
            }
            drop(map);
            let all = poll_fn(|cx| {
                serving.retain_mut(|(_, link)| link.as_mut().poll(cx).is_pending());
                Poll::<()>::Pending
            });
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = shutdown.killed() => return,
                () = all => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
