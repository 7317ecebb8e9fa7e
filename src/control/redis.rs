//! This node's part over Redis pub/sub: one channel that all nodes hear, one for each node's replies.
//!
//! The number of nodes is what Redis counts as subscribers in the moment of the PUBLISH. Commands and
//! replies leave by the connection that hears them, so a node that is asked can answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::link::Link;
use super::message::{self, CommandEnvelope, Reply, Unread};
use super::{Found, Threads};
use crate::redis_link::{Backoff, Heard, Lost, PubSub};
use crate::telemetry;
use crate::telemetry::admin::{CommandOutcome, command_received};

/// Commands that this node carries out at once, and messages that wait for it; more are dropped, and so
/// not answered.
const MAX_EXECUTING: usize = 64;
const QUEUE_LENGTH: usize = 256;

/// How often the connection is asked for a sign of life.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// The connection's name in logs and metrics.
const NAME: &str = "control";

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

/// This node's part: hears commands and replies until it is dropped.
pub(super) async fn supervise(client: ::redis::Client, link: Arc<Link>, threads: Threads) {
    telemetry::engine::redis_configured(NAME);
    let executing = Arc::new(Semaphore::new(MAX_EXECUTING));
    let node = Node { link, threads, executing };
    let mut backoff = Backoff::new();
    let (mut attempt, mut lost_at) = (0, None::<Instant>);
    loop {
        match Subscribed::connect(&client, &node.link).await {
            Ok(mut subscribed) => {
                (attempt, backoff) = (0, Backoff::new());
                let sender = subscribed.pubsub.sender();
                node.link.sender.store(Some(Arc::new(sender)));
                telemetry::engine::redis_connected(NAME, lost_at.map(|since| since.elapsed()));
                let Lost(why) = node.serve(&mut subscribed).await;
                node.link.sender.store(None);
                telemetry::engine::redis_lost(NAME, why);
                lost_at = Some(Instant::now());
                // Their replies are lost.
                node.link.give_up_waiting();
            }
            Err(Lost(why)) => {
                telemetry::engine::redis_connect_failed(NAME, attempt, why);
                attempt += 1;
            }
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

impl Subscribed {
    async fn connect(client: &::redis::Client, link: &Link) -> Result<Self, Lost> {
        let replies = link.to_node(&link.node).map_err(|_| Lost("no name for a channel"))?;
        let (queue, messages) = mpsc::channel(QUEUE_LENGTH);
        let (give_up, lost) = mpsc::channel(1);
        let to_all = link.to_all.clone();
        let mut pubsub = PubSub::connect(client, move |heard| match heard {
            Heard::Message { channel, payload } => {
                let to_all = channel == to_all.as_str().as_bytes();
                let most = if to_all { message::MAX_BYTES } else { message::MAX_REPLY_BYTES };
                if payload.len() > most {
                    return command_received(CommandOutcome::TooLarge);
                }
                if queue.try_send(Message { to_all, payload }).is_err() {
                    command_received(CommandOutcome::Dropped);
                }
            }
            Heard::Disconnected => {
                let _told_already = give_up.try_send("connection closed");
            }
        })
        .await?;
        // Replies first: a command of this node may be answered as soon as the other is subscribed.
        pubsub.subscribe(&[replies]).await?;
        pubsub.subscribe(std::slice::from_ref(&link.to_all)).await?;
        Ok(Self { pubsub, messages, lost })
    }
}

/// What carries out commands here.
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
                        command_received(unread.into());
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
            self.begin(CommandEnvelope::read(payload)?);
        } else {
            self.link.replied(Reply::read(payload)?);
        }
        Ok(())
    }

    /// Carries a command out on a task of its own, which ends by itself.
    fn begin(&self, envelope: CommandEnvelope) {
        let Ok(permit) = Arc::clone(&self.executing).try_acquire_owned() else {
            return command_received(CommandOutcome::Dropped);
        };
        let node = self.clone();
        tokio::spawn(async move {
            node.execute(envelope).await;
            drop(permit);
        });
    }

    async fn execute(&self, envelope: CommandEnvelope) {
        let CommandEnvelope { id, from, command } = envelope;
        let done = self.threads.execute(command).await;
        let outcome = if done.complete { CommandOutcome::Done } else { CommandOutcome::Incomplete };
        command_received(outcome);
        let data = done.found.as_ref().map(Found::to_json);
        let reply = Reply { id, affected: done.affected, complete: done.complete, data };
        let Ok(channel) = self.link.to_node(&from) else { return };
        if let Some(sender) = self.link.sender.load_full() {
            let _or_the_sender_waits_in_vain = sender.publish(&channel, &reply.to_json()).await;
        }
    }
}

impl From<Unread> for CommandOutcome {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::TooLarge => Self::TooLarge,
            Unread::Unknown => Self::Unknown,
            Unread::Malformed => Self::Malformed,
        }
    }
}
