//! The state that senders of commands share with the connection's supervisor: the connection to publish on, and
//! the commands that wait for replies.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::time::timeout;

use super::message::{CommandEnvelope, Reply};
use super::nodes::Nodes;
use super::{NodeCommand, Reached, SendError};
use crate::protocol::{ChannelName, InvalidChannel, random_hex};
use crate::redis_link::PubSubSender;

/// How long a command waits for its replies after the PUBLISH.
const REPLIES_DEADLINE: Duration = Duration::from_secs(2);

/// The most commands of this node that wait for replies. Further commands are refused.
const MAX_WAITING: usize = 1024;

/// The most bytes of the lists in the replies to one command. A reply beyond this does not count.
const MAX_LISTS_BYTES: usize = 64 << 20;

/// The sum of the replies to one command so far.
#[derive(Default)]
struct Summary {
    affected: u64,
    /// The number of nodes that executed it in full.
    complete: u64,
    /// Those of them that say who they are.
    nodes: Vec<String>,
    /// The lists of the nodes, at most [`MAX_LISTS_BYTES`].
    lists: Vec<Box<RawValue>>,
    lists_bytes: usize,
}

/// What came of a command.
pub(super) struct Sent {
    pub reached: Reached,
    pub lists: Vec<Box<RawValue>>,
    /// Nodes that should have executed it and have not, as far as they are known.
    pub missing: Vec<String>,
}

/// The state that the senders and the supervisor share.
pub(super) struct Link {
    /// `Some` while commands and replies reach this node. Only the supervisor writes it.
    pub sender: ArcSwapOption<PubSubSender>,
    /// Identifies this node among those that run at the moment.
    pub node: String,
    /// The channel that all nodes subscribe to.
    pub commands_channel: ChannelName,
    pub nodes: Nodes,
    pub is_cluster: bool,
    /// The commands that wait for replies, by id; at most [`MAX_WAITING`].
    waiting: Mutex<HashMap<String, WaitingEntry>>,
}

/// The supervisor's side of a command that waits for replies.
struct WaitingEntry {
    summary: Arc<Mutex<Summary>>,
    /// How many replies have arrived.
    replies: watch::Sender<u64>,
}

/// The sender's side of a command that waits for replies. Dropping it removes the supervisor's entry.
struct Waiting<'a> {
    link: &'a Link,
    id: String,
    summary: Arc<Mutex<Summary>>,
    replies: watch::Receiver<u64>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.link.waiting().remove(&self.id);
    }
}

impl Link {
    /// `node` identifies this node among those that run at the moment. In a cluster, one node has all that belongs to
    /// commands: the channels and the list of nodes are in one slot.
    pub fn new(key_prefix: &str, node: &str, is_cluster: bool) -> Result<Self, String> {
        let name = if is_cluster { "{control}" } else { "control" };
        let commands_channel = ChannelName::new(&format!("{key_prefix}{name}"))
            .map_err(|error| format!("key_prefix: {error}"))?;
        let nodes = Nodes::new(format!("{commands_channel}:nodes"), node);
        Ok(Self {
            is_cluster,
            nodes,
            sender: ArcSwapOption::empty(),
            node: node.to_owned(),
            commands_channel,
            waiting: Mutex::default(),
        })
    }

    pub fn is_live(&self) -> bool {
        self.sender.load().is_some()
    }

    pub async fn send(&self, command: NodeCommand) -> Result<Sent, SendError> {
        // Without a connection no reply could be received, so the command is not sent.
        let sender = self.sender.load_full().ok_or(SendError::EngineUnavailable)?;
        let id = random_hex(16);
        let envelope = CommandEnvelope { id: id.clone(), from: self.node.clone(), command };
        let json = envelope.to_json().ok_or(SendError::TooLarge)?;
        let mut waiting = self.register_waiting(id)?;
        // Nodes that are alive but do not receive the command are counted as well: their connection may be broken, or
        // lead to another server.
        let alive = self.nodes.renew(&sender).await.map_err(|_| SendError::EngineUnavailable)?;
        let asked = sender
            .publish(&self.commands_channel, &json)
            .await
            .map_err(|_| SendError::EngineUnavailable)?;
        if asked == 0 {
            return Err(SendError::EngineUnavailable);
        }
        // Only those that receive the command can reply.
        let all = waiting.replies.wait_for(|replies| *replies >= asked);
        // The wait also ends at the deadline or when the connection is lost. The replies so far count.
        let _ = timeout(REPLIES_DEADLINE, all).await.map(drop);
        let summary = std::mem::take(&mut *lock(&waiting.summary));
        let reached = Reached {
            affected: summary.affected,
            answered: summary.complete,
            asked: asked.max(alive),
        };
        let missing = match reached.is_complete() || summary.nodes.len() as u64 != summary.complete
        {
            true => Vec::new(),
            false => self.known_without(&summary.nodes),
        };
        Ok(Sent { reached, lists: summary.lists, missing })
    }

    /// The nodes that were alive within the last minute, without these, in the order of their names.
    pub fn known_without(&self, nodes: &[String]) -> Vec<String> {
        let mut known = self.nodes.known();
        known.retain(|node| !nodes.contains(node));
        known.sort_unstable();
        known
    }

    fn register_waiting(&self, id: String) -> Result<Waiting<'_>, SendError> {
        let mut waiting = self.waiting();
        if waiting.len() >= MAX_WAITING {
            return Err(SendError::EngineUnavailable);
        }
        let summary = Arc::<Mutex<Summary>>::default();
        let (sender, replies) = watch::channel(0);
        waiting.insert(id.clone(), WaitingEntry { summary: Arc::clone(&summary), replies: sender });
        drop(waiting);
        Ok(Waiting { link: self, id, summary, replies })
    }

    pub fn add_reply(&self, reply: Reply) {
        if let Some(entry) = self.waiting().get(&reply.id) {
            let mut summary = lock(&entry.summary);
            summary.affected = summary.affected.saturating_add(reply.affected);
            let bytes = reply.data.as_ref().map_or(0, |data| data.get().len());
            let has_room = summary.lists_bytes + bytes <= MAX_LISTS_BYTES;
            if reply.complete && has_room {
                summary.complete += 1;
                summary.nodes.extend(reply.node);
            }
            if has_room {
                summary.lists_bytes += bytes;
                summary.lists.extend(reply.data);
            }
            drop(summary);
            entry.replies.send_modify(|replies| *replies += 1);
        }
    }

    /// Makes all commands stop waiting. Their senders get the replies so far.
    pub fn give_up_waiting(&self) {
        self.waiting().clear();
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, WaitingEntry>> {
        lock(&self.waiting)
    }

    /// The channel that receives a node's replies.
    pub fn replies_channel(&self, node: &str) -> Result<ChannelName, InvalidChannel> {
        ChannelName::new(&format!("{}:{node}", self.commands_channel))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
