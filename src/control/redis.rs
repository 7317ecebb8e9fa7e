//! Commands over Redis pub/sub. All nodes subscribe to one channel for commands, and each node to its own channel
//! for replies.
//!
//! The number of nodes is the number of subscribers at the time of the PUBLISH. Commands and replies are sent over
//! the connection that receives them, so a node that receives a command can also reply.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::MissedTickBehavior;

use super::link::Link;
use super::message::{self, CommandEnvelope, ReadError, Reply};
use super::{ListPart, Threads, nodes};
use crate::redis_link::{
    ConnectionError, ConnectionEvent, Health, MonitoredLink, Primary, PubSub, PubSubSender,
    Supervised, supervise as supervise_connection,
};
use crate::shutdown::Shutdown;
use crate::telemetry::admin::{CommandOutcome, command_received};

/// The most commands that this node executes at a time. Further commands are dropped and so not answered.
const MAX_EXECUTING: usize = 64;

/// The most messages that wait to be handled. Further messages are dropped.
const QUEUE_LENGTH: usize = 256;

/// The connection's name in logs and metrics.
const NAME: &str = "control";

/// One message from Redis.
struct Message {
    /// Whether the message is a command. Otherwise it is a reply.
    is_command: bool,
    payload: Vec<u8>,
}

/// A connection that is subscribed to both channels.
struct Subscribed {
    pubsub: PubSub,
    messages: mpsc::Receiver<Message>,
}

/// Receives commands and replies for this node until the process is killed.
pub(super) async fn supervise(
    primary: Primary,
    link: Arc<Link>,
    threads: Threads,
    shutdown: Shutdown,
) {
    crate::telemetry::engine::redis_configured(NAME);
    let executing = Arc::new(Semaphore::new(MAX_EXECUTING));
    let mut node = Node { primary, executor: Executor { link, threads, executing } };
    supervise_connection(&mut node, &shutdown).await;
}

struct Node {
    primary: Primary,
    executor: Executor,
}

impl Supervised for Node {
    type Connection = Subscribed;

    async fn connect(&mut self, health: &Health) -> Result<Subscribed, ConnectionError> {
        let link = &self.executor.link;
        let replies =
            link.replies_channel(&link.node).map_err(|_| "the reply channel has no valid name")?;
        let (queue, messages) = mpsc::channel(QUEUE_LENGTH);
        let commands_channel = link.commands_channel.clone();
        let on_message = move |channel: &[u8], payload: &[u8]| {
            let is_command = channel == commands_channel.as_str().as_bytes();
            let max_bytes = if is_command { message::MAX_BYTES } else { message::MAX_REPLY_BYTES };
            if payload.len() > max_bytes {
                return command_received(CommandOutcome::TooLarge);
            }
            if queue.try_send(Message { is_command, payload: payload.to_vec() }).is_err() {
                command_received(CommandOutcome::Dropped);
            }
        };
        let mut pubsub = PubSub::connect_to(&self.primary, health, on_message).await?;
        // Replies are subscribed first: a command can be sent as soon as the commands channel is subscribed.
        pubsub.subscribe(&[replies]).await?;
        // A node counts as soon as it can miss a command.
        link.nodes.renew(&pubsub.sender()).await?;
        pubsub.subscribe(std::slice::from_ref(&link.commands_channel)).await?;
        // The sender is published before the connection is reported, so that commands can be sent after the report.
        link.sender.store(Some(Arc::new(pubsub.sender())));
        Ok(Subscribed { pubsub, messages })
    }

    fn links_to_check(&self, subscribed: &Subscribed) -> Vec<MonitoredLink> {
        vec![subscribed.pubsub.link()]
    }

    async fn serve(
        &mut self,
        mut subscribed: Subscribed,
        mut lost: BoxFuture<'_, ConnectionError>,
    ) -> ConnectionError {
        let mut renewals = tokio::time::interval(nodes::INTERVAL);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                error = &mut lost => return error,
                _ = renewals.tick() => self.executor.renew(subscribed.pubsub.sender()),
                Some(message) = subscribed.messages.recv() => {
                    if let Err(error) = self.executor.handle(&message) {
                        command_received(error.into());
                    }
                }
            }
        }
    }

    fn disconnected(&mut self) {
        self.executor.link.sender.store(None);
        // The pending replies are lost.
        self.executor.link.give_up_waiting();
    }

    fn record(&self, event: ConnectionEvent<'_>) {
        event.record(NAME);
    }
}

/// Executes commands on this node. Clones share their state.
#[derive(Clone)]
struct Executor {
    link: Arc<Link>,
    threads: Threads,
    executing: Arc<Semaphore>,
}

impl Executor {
    fn handle(&self, Message { is_command, payload }: &Message) -> Result<(), ReadError> {
        if *is_command {
            self.spawn(CommandEnvelope::read(payload)?);
        } else {
            self.link.add_reply(Reply::read(payload)?);
        }
        Ok(())
    }

    /// Records that this node is alive, on its own task.
    fn renew(&self, sender: PubSubSender) {
        let link = Arc::clone(&self.link);
        tokio::spawn(async move {
            // A failure that matters ends the connection, and the next renewal comes soon.
            let _ = link.nodes.renew(&sender).await;
        });
    }

    /// Executes a command on its own task.
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
        let result = self.threads.execute(command).await;
        let outcome =
            if result.complete { CommandOutcome::Done } else { CommandOutcome::Incomplete };
        command_received(outcome);
        let data = result.list.as_ref().map(ListPart::to_json);
        let node = Some(self.link.node.clone());
        let reply = Reply { id, affected: result.affected, complete: result.complete, node, data };
        let Ok(channel) = self.link.replies_channel(&from) else { return };
        if let Some(sender) = self.link.sender.load_full() {
            // Without the reply, the sender counts this node as one that did not answer.
            let _ = sender.publish(&channel, &reply.to_json()).await;
        }
    }
}

impl From<ReadError> for CommandOutcome {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::TooLarge => Self::TooLarge,
            ReadError::Unknown => Self::Unknown,
            ReadError::Malformed => Self::Malformed,
        }
    }
}
