//! Orders over Redis pub/sub: one channel that all nodes hear, one for each node's replies.
//!
//! The number of nodes is what Redis counts as subscribers in the moment of the PUBLISH. Plain
//! subscribers alone: somebody who watches with PSUBSCRIBE is no node.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout};

use super::message::{self, Ordered, Reply, Unread};
use super::{Order, Reached, SendError, Threads};
use crate::protocol::{ChannelName, ReservedChannels, random_hex};
use crate::redis_link::{Backoff, Commands, Heard, PubSub, RedisFailure};
use crate::telemetry::control::{OrderOutcome, order_received};
use crate::telemetry::engine as facts;

/// From the PUBLISH to the last reply.
const REPLIES_DEADLINE: Duration = Duration::from_secs(2);

/// Orders of this node that wait for replies; more are refused.
const MAX_WAITING: usize = 1024;

/// Orders that this node carries out at once, and messages that wait for it; more are dropped, and so
/// not answered.
const MAX_EXECUTING: usize = 64;
const QUEUE_LENGTH: usize = 256;

/// How often the connection is asked for a sign of life.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// The connection's name in logs and metrics.
const NAME: &str = "control";

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
    commands: Commands,
    /// Names this node among those that run at the moment.
    node: String,
    to_all: ChannelName,
    /// Orders and replies reach this node; written by the supervisor alone.
    live: AtomicBool,
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
    pub fn new(commands: Commands, key_prefix: &str) -> Result<Self, String> {
        let to_all = ChannelName::new(&format!("{key_prefix}control"))
            .map_err(|wrong| format!("key_prefix: {wrong}"))?;
        Ok(Self {
            commands,
            node: random_hex(8),
            to_all,
            live: AtomicBool::new(false),
            waiting: Mutex::default(),
        })
    }

    pub fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    pub fn reserved_channels(&self) -> ReservedChannels {
        ReservedChannels::beginning_with(self.to_all.as_str())
    }

    pub async fn send(&self, order: Order) -> Result<Reached, SendError> {
        // Without replies nobody would know what was done.
        if !self.is_live() {
            return Err(SendError::EngineDown);
        }
        let id = random_hex(16);
        let ordered = Ordered { id: id.clone(), from: self.node.clone(), order };
        let json = ordered.to_json().ok_or(SendError::TooLarge)?;
        let mut waiting = self.wait(id)?;
        let asked = self.publish(&json).await.map_err(|_| SendError::EngineDown)?;
        if asked == 0 {
            return Err(SendError::EngineDown);
        }
        let all = waiting.tally.wait_for(|tally| tally.replies >= asked);
        // Lost replies end the wait as well.
        let _or_what_there_is = timeout(REPLIES_DEADLINE, all).await.map(drop);
        let Tally { affected, complete, .. } = *waiting.tally.borrow();
        Ok(Reached { affected, answered: complete, asked })
    }

    /// How many nodes hear it.
    async fn publish(&self, json: &str) -> Result<u64, RedisFailure> {
        let channel = self.to_all.as_str();
        let mut pipeline = ::redis::pipe();
        pipeline.atomic().cmd("PUBSUB").arg("NUMSUB").arg(channel);
        pipeline.cmd("PUBLISH").arg(channel).arg(json);
        let ((_channel, nodes), _receivers): ((String, u64), u64) =
            self.commands.pipeline(&pipeline).await?;
        Ok(nodes)
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

    fn replied(&self, reply: &Reply) {
        if let Some(tally) = self.waiting().get(&reply.id) {
            tally.send_modify(|tally| {
                tally.affected = tally.affected.saturating_add(reply.affected);
                tally.replies += 1;
                tally.complete += u64::from(reply.complete);
            });
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<Tally>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channel of a node's replies.
    fn to_node(&self, node: &str) -> Result<ChannelName, Lost> {
        ChannelName::new(&format!("{}:{node}", self.to_all)).map_err(|_| Lost("no channel's name"))
    }
}

/// Why a connection was given up.
struct Lost(&'static str);

impl From<RedisFailure> for Lost {
    fn from(failure: RedisFailure) -> Self {
        match failure {
            RedisFailure::Unavailable => Self("no answer"),
            RedisFailure::Refused(_) => Self("an error as answer"),
        }
    }
}

/// One message from Redis.
struct Message {
    /// It came by the channel that all nodes hear.
    to_all: bool,
    payload: Vec<u8>,
}

/// A connection that is subscribed.
struct Subscribed {
    pubsub: PubSub,
    messages: mpsc::Receiver<Message>,
    lost: mpsc::Receiver<&'static str>,
}

/// This node's part: hears orders and replies until it is dropped.
pub(super) async fn supervise(client: ::redis::Client, link: Arc<Link>, threads: Threads) {
    let executing = Arc::new(Semaphore::new(MAX_EXECUTING));
    let node = Node { link, threads, executing };
    let mut backoff = Backoff::new();
    let (mut attempt, mut lost_at) = (0, None::<Instant>);
    loop {
        match node.link.connect(&client).await {
            Ok(mut subscribed) => {
                (attempt, backoff) = (0, Backoff::new());
                node.link.live.store(true, Ordering::Release);
                facts::redis_connected(NAME, lost_at.map(|since| since.elapsed()));
                let Lost(why) = node.serve(&mut subscribed).await;
                node.link.live.store(false, Ordering::Release);
                facts::redis_lost(NAME, why);
                lost_at = Some(Instant::now());
                // Their replies are lost.
                node.link.waiting().clear();
            }
            Err(Lost(why)) => {
                facts::redis_connect_failed(NAME, attempt, why);
                attempt += 1;
            }
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

impl Link {
    async fn connect(&self, client: &::redis::Client) -> Result<Subscribed, Lost> {
        let (queue, messages) = mpsc::channel(QUEUE_LENGTH);
        let (give_up, lost) = mpsc::channel(1);
        let to_all = self.to_all.clone();
        let mut pubsub = PubSub::connect(client, move |heard| match heard {
            Heard::Message { payload, .. } if payload.len() > message::MAX_BYTES => {
                order_received(OrderOutcome::TooLarge);
            }
            Heard::Message { channel, payload } => {
                let to_all = channel == to_all.as_str().as_bytes();
                if queue.try_send(Message { to_all, payload }).is_err() {
                    order_received(OrderOutcome::Dropped);
                }
            }
            Heard::Disconnected => {
                let _told_already = give_up.try_send("connection closed");
            }
        })
        .await?;
        // Replies first: an order of this node may be answered as soon as the other is subscribed.
        pubsub.subscribe(&[self.to_node(&self.node)?]).await?;
        pubsub.subscribe(std::slice::from_ref(&self.to_all)).await?;
        Ok(Subscribed { pubsub, messages, lost })
    }
}

/// What carries out orders here.
#[derive(Clone)]
struct Node {
    link: Arc<Link>,
    threads: Threads,
    executing: Arc<Semaphore>,
}

impl Node {
    async fn serve(&self, subscribed: &mut Subscribed) -> Lost {
        let mut ping = tokio::time::interval(PING_INTERVAL);
        ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(why) = subscribed.lost.recv() => return Lost(why),
                Some(message) = subscribed.messages.recv() => {
                    if let Err(unread) = self.take(&message) {
                        order_received(unread.into());
                    }
                }
                _ = ping.tick() => if let Err(failure) = subscribed.pubsub.ping().await {
                    return failure.into();
                },
            }
        }
    }

    fn take(&self, Message { to_all, payload }: &Message) -> Result<(), Unread> {
        if *to_all {
            self.begin(Ordered::read(payload)?);
        } else {
            self.link.replied(&Reply::read(payload)?);
        }
        Ok(())
    }

    /// Carries an order out on a task of its own, which ends by itself.
    fn begin(&self, ordered: Ordered) {
        let Ok(permit) = Arc::clone(&self.executing).try_acquire_owned() else {
            return order_received(OrderOutcome::Dropped);
        };
        let node = self.clone();
        tokio::spawn(async move {
            node.execute(ordered).await;
            drop(permit);
        });
    }

    async fn execute(&self, ordered: Ordered) {
        let Ordered { id, from, order } = ordered;
        let done = self.threads.execute(order).await;
        let outcome = if done.complete { OrderOutcome::Done } else { OrderOutcome::Incomplete };
        order_received(outcome);
        let reply = Reply { id, affected: done.affected, complete: done.complete };
        let Ok(channel) = self.link.to_node(&from) else { return };
        let mut publish = ::redis::cmd("PUBLISH");
        publish.arg(channel.as_str()).arg(reply.to_json());
        let _the_sender_waits_in_vain = self.link.commands.query::<u64>(&publish).await;
    }
}

impl From<Unread> for OrderOutcome {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::TooLarge => Self::TooLarge,
            Unread::Unknown => Self::Unknown,
            Unread::Malformed => Self::Malformed,
        }
    }
}
