//! This node's part over Redis pub/sub: one channel that all nodes subscribe to, one for each node's replies.
//!
//! The number of nodes is what Redis counts as subscribers in the moment of the PUBLISH. Commands and
//! replies are sent over the connection that receives them, so a node that gets a command can answer.

use std::sync::Arc;

use ::redis::aio::MultiplexedConnection;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc};

use super::link::Link;
use super::message::{self, CommandEnvelope, Reply, Unread};
use super::{Found, Threads};
use crate::redis_link::{
    ConnectionError, ConnectionEvent, Health, PubSub, Supervised, supervise as supervise_connection,
};
use crate::shutdown::Shutdown;
use crate::telemetry::admin::{CommandOutcome, command_received};

/// Commands that this node carries out at once, and messages that wait for it. More are dropped, and so
/// not answered.
const MAX_EXECUTING: usize = 64;
const QUEUE_LENGTH: usize = 256;

/// The connection's name in logs and metrics.
const NAME: &str = "control";

/// One message from Redis.
struct Message {
    /// Whether it came by the channel that all nodes subscribe to.
    to_all: bool,
    payload: Vec<u8>,
}

/// A connection that is subscribed.
struct Subscribed {
    pubsub: PubSub,
    messages: mpsc::Receiver<Message>,
}

/// Receives commands and replies for this node until the process is killed.
pub(super) async fn supervise(
    client: ::redis::Client,
    link: Arc<Link>,
    threads: Threads,
    shutdown: Shutdown,
) {
    crate::telemetry::engine::redis_configured(NAME);
    let executing = Arc::new(Semaphore::new(MAX_EXECUTING));
    let mut node = Node { client, executor: Executor { link, threads, executing } };
    supervise_connection(&mut node, &shutdown).await;
}

struct Node {
    client: ::redis::Client,
    executor: Executor,
}

impl Supervised for Node {
    type Connection = Subscribed;

    async fn connect(&mut self, health: &Health) -> Result<Subscribed, ConnectionError> {
        let link = &self.executor.link;
        let replies = link.to_node(&link.node).map_err(|_| "no name for a channel")?;
        let (queue, messages) = mpsc::channel(QUEUE_LENGTH);
        let to_all = link.to_all.clone();
        let mut pubsub = PubSub::connect(&self.client, health, move |channel, payload| {
            let to_all = channel == to_all.as_str().as_bytes();
            let max_bytes = if to_all { message::MAX_BYTES } else { message::MAX_REPLY_BYTES };
            if payload.len() > max_bytes {
                return command_received(CommandOutcome::TooLarge);
            }
            if queue.try_send(Message { to_all, payload }).is_err() {
                command_received(CommandOutcome::Dropped);
            }
        })
        .await?;
        // Replies first: a command of this node may be answered as soon as the other is subscribed.
        pubsub.subscribe(&[replies]).await?;
        pubsub.subscribe(std::slice::from_ref(&link.to_all)).await?;
        // Before the connection is reported: whoever reads the report can send commands.
        link.sender.store(Some(Arc::new(pubsub.sender())));
        Ok(Subscribed { pubsub, messages })
    }

    fn pinged(&self, subscribed: &Subscribed) -> Vec<MultiplexedConnection> {
        vec![subscribed.pubsub.link()]
    }

    async fn serve(
        &mut self,
        mut subscribed: Subscribed,
        mut lost: BoxFuture<'_, ConnectionError>,
    ) -> ConnectionError {
        loop {
            tokio::select! {
                error = &mut lost => return error,
                Some(message) = subscribed.messages.recv() => {
                    if let Err(unread) = self.executor.handle(&message) {
                        command_received(unread.into());
                    }
                }
            }
        }
    }

    fn disconnected(&mut self) {
        self.executor.link.sender.store(None);
        // The replies that are still expected are lost.
        self.executor.link.give_up_waiting();
    }

    fn record(&self, event: ConnectionEvent<'_>) {
        event.record(NAME);
    }
}

/// Carries out commands on this node. Clones are the same.
#[derive(Clone)]
struct Executor {
    link: Arc<Link>,
    threads: Threads,
    executing: Arc<Semaphore>,
}

impl Executor {
    fn handle(&self, Message { to_all, payload }: &Message) -> Result<(), Unread> {
        if *to_all {
            self.spawn(CommandEnvelope::read(payload)?);
        } else {
            self.link.add_reply(Reply::read(payload)?);
        }
        Ok(())
    }

    /// Carries a command out on a task of its own, which ends by itself.
    fn spawn(&self, envelope: CommandEnvelope) {
        let Ok(permit) = Arc::clone(&self.executing).try_acquire_owned() else {
            return command_received(CommandOutcome::Dropped);
        };
        let executor = self.clone();
        tokio::spawn(async move {
            executor.execute(envelope).await;
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
            // Without the reply the sender's node counts this one as not answered.
            let _ = sender.publish(&channel, &reply.to_json()).await;
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
