//! The nodes of a cluster and their slots, as they were read.

use std::sync::Arc;

use redis::Client;
use tokio::time::Instant;

use super::view::Master;
use super::{NodeSlots, Shard};
use crate::redis_link::server::ServerCommands;
use crate::redis_link::slots::SLOTS;

/// In [`SlotMap::slots`]: no node has the slot.
const NOBODY: u16 = u16::MAX;

/// A master, with its link for commands.
pub(super) struct Node {
    /// Host and port as the cluster has them.
    pub address: Arc<str>,
    pub host: String,
    pub port: u16,
    /// The same with the name of the host, if it has announced one.
    named: Option<String>,
    pub client: Client,
    pub commands: ServerCommands,
    pub slots: NodeSlots,
    /// Is part of its label. No other node has it at the same time.
    pub number: usize,
    pub began: Instant,
}

impl Node {
    pub fn new(
        master: &Master,
        client: Client,
        commands: ServerCommands,
        slots: NodeSlots,
        number: usize,
    ) -> Self {
        let Master { host, port, hostname, .. } = master;
        let named = hostname.as_ref().map(|name| format!("{name}:{port}"));
        Self {
            address: format!("{host}:{port}").into(),
            host: host.clone(),
            port: *port,
            named,
            client,
            commands,
            slots,
            number,
            began: Instant::now(),
        }
    }

    pub fn is_at(&self, host: &str, port: u16) -> bool {
        self.host == host && self.port == port
    }

    /// Its label in logs and metrics.
    pub fn name(&self) -> &'static str {
        self.commands.shared.name
    }

    pub fn shard(&self) -> Shard {
        Shard { address: Arc::clone(&self.address), client: self.client.clone() }
    }
}

/// Which node has which slot.
pub(super) struct SlotMap {
    /// Those with slots first.
    pub nodes: Vec<Arc<Node>>,
    /// How many of them have slots.
    owners: usize,
    /// For each slot the place of its node, or [`NOBODY`].
    slots: Box<[u16]>,
}

impl PartialEq for SlotMap {
    fn eq(&self, other: &Self) -> bool {
        let is_same = |(one, other): (&Arc<Node>, &Arc<Node>)| Arc::ptr_eq(one, other);
        self.owners == other.owners
            && self.nodes.len() == other.nodes.len()
            && self.nodes.iter().zip(&other.nodes).all(is_same)
            && self.slots == other.slots
    }
}

impl SlotMap {
    pub fn empty() -> Self {
        Self { nodes: Vec::new(), owners: 0, slots: vec![NOBODY; usize::from(SLOTS)].into() }
    }

    /// `nodes` are those of `masters`, in the same order.
    pub fn new(nodes: Vec<Arc<Node>>, masters: &[Master]) -> Self {
        let mut slots = vec![NOBODY; usize::from(SLOTS)];
        for ((place, node), master) in (0..).zip(&nodes).zip(masters) {
            node.slots.set(master.ranges.first().map(|(first, _)| *first));
            for (first, last) in &master.ranges {
                slots[usize::from(*first)..=usize::from(*last)].fill(place);
            }
        }
        let owners = masters.iter().filter(|master| !master.ranges.is_empty()).count();
        Self { nodes, owners, slots: slots.into() }
    }

    pub fn owner(&self, slot: u16) -> Option<&Arc<Node>> {
        self.nodes.get(usize::from(*self.slots.get(usize::from(slot))?))
    }

    /// The nodes that have slots.
    pub fn owners(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.iter().take(self.owners)
    }

    /// The node at an address that a redirection names, by its address or its name.
    pub fn at(&self, address: &str) -> Option<&Arc<Node>> {
        let is_named =
            |node: &&Arc<Node>| *node.address == *address || node.named.as_deref() == Some(address);
        self.nodes.iter().find(is_named)
    }

    /// Whether every slot has a node.
    pub fn is_complete(&self) -> bool {
        !self.slots.contains(&NOBODY)
    }
}
