//! What senders and the node's supervisor share: the way out, and who waits for replies.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::time::timeout;

use super::message::{CommandEnvelope, Reply};
use super::{NodeCommand, Reached, SendError};
use crate::protocol::{ChannelName, InvalidChannel, ReservedChannels, random_hex};
use crate::redis_link::PubSubSender;

/// From the PUBLISH to the last reply.
const REPLIES_DEADLINE: Duration = Duration::from_secs(2);

/// Commands of this node that wait for replies; more are refused.
const MAX_WAITING: usize = 1024;

/// What all nodes have found for one command; a node that comes beyond it counts as not answered.
const MAX_FOUND_BYTES: usize = 64 << 20;

/// What the nodes have said to one command so far.
#[derive(Default)]
struct Tally {
    affected: u64,
    /// Replies of nodes that carried it out in full.
    complete: u64,
    /// At most [`MAX_FOUND_BYTES`] of them.
    found: Vec<Box<RawValue>>,
    found_bytes: usize,
}

/// What senders and the supervisor share.
pub(super) struct Link {
    /// `Some` exactly while commands and replies reach this node; written by the supervisor alone.
    pub sender: ArcSwapOption<PubSubSender>,
    /// Names this node among those that run at the moment.
    pub node: String,
    pub to_all: ChannelName,
    /// By the command's id; at most [`MAX_WAITING`].
    waiting: Mutex<HashMap<String, Entry>>,
}

/// A command that waits for replies, for those who bring them.
struct Entry {
    tally: Arc<Mutex<Tally>>,
    /// How many have come.
    replies: watch::Sender<u64>,
}

/// A command that waits for replies; its entry goes with it.
struct Waiting<'a> {
    link: &'a Link,
    id: String,
    tally: Arc<Mutex<Tally>>,
    replies: watch::Receiver<u64>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.link.waiting().remove(&self.id);
    }
}

impl Link {
    /// `node` names this node among those that run at the moment.
    pub fn new(key_prefix: &str, node: &str) -> Result<Self, String> {
        let to_all = ChannelName::new(&format!("{key_prefix}control"))
            .map_err(|wrong| format!("key_prefix: {wrong}"))?;
        Ok(Self {
            sender: ArcSwapOption::empty(),
            node: node.to_owned(),
            to_all,
            waiting: Mutex::default(),
        })
    }

    pub fn is_live(&self) -> bool {
        self.sender.load().is_some()
    }

    pub fn reserved_channels(&self) -> ReservedChannels {
        ReservedChannels::with_prefix(self.to_all.as_str())
    }

    pub async fn send(
        &self,
        command: NodeCommand,
    ) -> Result<(Reached, Vec<Box<RawValue>>), SendError> {
        // Without replies nobody would know what was done.
        let sender = self.sender.load_full().ok_or(SendError::EngineUnavailable)?;
        let id = random_hex(16);
        let envelope = CommandEnvelope { id: id.clone(), from: self.node.clone(), command };
        let json = envelope.to_json().ok_or(SendError::TooLarge)?;
        let mut waiting = self.wait(id)?;
        let asked =
            sender.publish(&self.to_all, &json).await.map_err(|_| SendError::EngineUnavailable)?;
        if asked == 0 {
            return Err(SendError::EngineUnavailable);
        }
        let all = waiting.replies.wait_for(|replies| *replies >= asked);
        // Lost replies end the wait as well.
        let _or_what_there_is = timeout(REPLIES_DEADLINE, all).await.map(drop);
        let tally = std::mem::take(&mut *locked(&waiting.tally));
        let reached = Reached { affected: tally.affected, answered: tally.complete, asked };
        Ok((reached, tally.found))
    }

    fn wait(&self, id: String) -> Result<Waiting<'_>, SendError> {
        let mut waiting = self.waiting();
        if waiting.len() >= MAX_WAITING {
            return Err(SendError::EngineUnavailable);
        }
        let tally = Arc::<Mutex<Tally>>::default();
        let (sender, replies) = watch::channel(0);
        waiting.insert(id.clone(), Entry { tally: Arc::clone(&tally), replies: sender });
        drop(waiting);
        Ok(Waiting { link: self, id, tally, replies })
    }

    pub fn add_reply(&self, reply: Reply) {
        if let Some(entry) = self.waiting().get(&reply.id) {
            let mut tally = locked(&entry.tally);
            tally.affected = tally.affected.saturating_add(reply.affected);
            let bytes = reply.data.as_ref().map_or(0, |data| data.get().len());
            let has_room = tally.found_bytes + bytes <= MAX_FOUND_BYTES;
            tally.complete += u64::from(reply.complete && has_room);
            if has_room {
                tally.found_bytes += bytes;
                tally.found.extend(reply.data);
            }
            drop(tally);
            entry.replies.send_modify(|replies| *replies += 1);
        }
    }

    /// Whoever waits is told what there is.
    pub fn give_up_waiting(&self) {
        self.waiting().clear();
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        locked(&self.waiting)
    }

    /// The channel of a node's replies.
    pub fn to_node(&self, node: &str) -> Result<ChannelName, InvalidChannel> {
        ChannelName::new(&format!("{}:{node}", self.to_all))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
