//! What senders and the node's supervisor share: the way out, and who waits for replies.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use tokio::time::timeout;

use super::message::{Ordered, Reply};
use super::{Order, Reached, SendError};
use crate::protocol::{ChannelName, InvalidChannel, ReservedChannels, random_hex};
use crate::redis_link::Voice;

/// From the PUBLISH to the last reply.
const REPLIES_DEADLINE: Duration = Duration::from_secs(2);

/// Orders of this node that wait for replies; more are refused.
const MAX_WAITING: usize = 1024;

/// What the nodes have said to one order so far.
#[derive(Clone, Copy, Default)]
struct Tally {
    affected: u64,
    replies: u64,
    /// Replies of nodes that carried it out in full.
    complete: u64,
}

/// What senders and the supervisor share.
pub(super) struct Link {
    /// `Some` exactly while orders and replies reach this node; written by the supervisor alone.
    pub voice: ArcSwapOption<Voice>,
    /// Names this node among those that run at the moment.
    pub node: String,
    pub to_all: ChannelName,
    /// By the order's id; at most [`MAX_WAITING`].
    waiting: Mutex<HashMap<String, watch::Sender<Tally>>>,
}

/// An order that waits for replies; its entry goes with it.
struct Waiting<'a> {
    link: &'a Link,
    id: String,
    tally: watch::Receiver<Tally>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.link.waiting().remove(&self.id);
    }
}

impl Link {
    pub fn new(key_prefix: &str) -> Result<Self, String> {
        let to_all = ChannelName::new(&format!("{key_prefix}control"))
            .map_err(|wrong| format!("key_prefix: {wrong}"))?;
        Ok(Self {
            voice: ArcSwapOption::empty(),
            node: random_hex(8),
            to_all,
            waiting: Mutex::default(),
        })
    }

    pub fn is_live(&self) -> bool {
        self.voice.load().is_some()
    }

    pub fn reserved_channels(&self) -> ReservedChannels {
        ReservedChannels::beginning_with(self.to_all.as_str())
    }

    pub async fn send(&self, order: Order) -> Result<Reached, SendError> {
        // Without replies nobody would know what was done.
        let voice = self.voice.load_full().ok_or(SendError::EngineDown)?;
        let id = random_hex(16);
        let ordered = Ordered { id: id.clone(), from: self.node.clone(), order };
        let json = ordered.to_json().ok_or(SendError::TooLarge)?;
        let mut waiting = self.wait(id)?;
        let asked = voice.publish(&self.to_all, &json).await.map_err(|_| SendError::EngineDown)?;
        if asked == 0 {
            return Err(SendError::EngineDown);
        }
        let all = waiting.tally.wait_for(|tally| tally.replies >= asked);
        // Lost replies end the wait as well.
        let _or_what_there_is = timeout(REPLIES_DEADLINE, all).await.map(drop);
        let Tally { affected, complete, .. } = *waiting.tally.borrow();
        Ok(Reached { affected, answered: complete, asked })
    }

    fn wait(&self, id: String) -> Result<Waiting<'_>, SendError> {
        let mut waiting = self.waiting();
        if waiting.len() >= MAX_WAITING {
            return Err(SendError::EngineDown);
        }
        let (sender, tally) = watch::channel(Tally::default());
        waiting.insert(id.clone(), sender);
        drop(waiting);
        Ok(Waiting { link: self, id, tally })
    }

    pub fn replied(&self, reply: &Reply) {
        if let Some(tally) = self.waiting().get(&reply.id) {
            tally.send_modify(|tally| {
                tally.affected = tally.affected.saturating_add(reply.affected);
                tally.replies += 1;
                tally.complete += u64::from(reply.complete);
            });
        }
    }

    /// Whoever waits is told what there is.
    pub fn give_up_waiting(&self) {
        self.waiting().clear();
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<Tally>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channel of a node's replies.
    pub fn to_node(&self, node: &str) -> Result<ChannelName, InvalidChannel> {
        ChannelName::new(&format!("{}:{node}", self.to_all))
    }
}
