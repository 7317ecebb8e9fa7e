//! Reads a `RedisPubSubChannelLayer`, in which groups are Redis channels that are distributed over the hosts.

use std::cell::RefCell;
use std::sync::Arc;

use redis::Client;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::importer::{Importer, Incoming};
use super::{Layer, Wire};
use crate::channel_layer::{GroupChannels, host_of};
use crate::config::ChannelsLayer;
use crate::protocol::ChannelName;
use crate::redis_link::{ConnectionError, Health, MonitoredLink, PubSub, RedisFailure, client};
use crate::telemetry;

/// The most messages that wait to be imported, and the most bytes of them. Beyond either limit the subscription
/// counts as broken.
const MAX_QUEUED: usize = 8 * 1024;
const MAX_QUEUED_BYTES: usize = 32 << 20;

/// The most groups in one SUBSCRIBE.
const GROUPS_PER_COMMAND: usize = 512;

/// A message in the importer's queue, with its permit for the queue's bytes.
struct QueuedMessage {
    incoming: Incoming,
    _bytes: OwnedSemaphorePermit,
}

/// The connections of one subscription to the hosts, in the order of the hosts. The core layer has none.
#[derive(Default)]
pub(in crate::broker) struct Links(Vec<PubSub>);

/// The hosts and channel names of the groups, and the queue of their messages.
pub(super) struct Groups {
    clients: Vec<Client>,
    names: GroupChannels,
    sender: mpsc::Sender<QueuedMessage>,
    receiver: RefCell<Option<mpsc::Receiver<QueuedMessage>>>,
    bytes: Arc<Semaphore>,
}

impl Groups {
    pub fn new(settings: &ChannelsLayer) -> Result<Self, String> {
        let (sender, receiver) = mpsc::channel(MAX_QUEUED);
        Ok(Self {
            clients: settings.hosts.iter().map(client).collect::<Result<_, _>>()?,
            names: GroupChannels::new(&settings.prefix),
            sender,
            receiver: RefCell::new(Some(receiver)),
            bytes: Arc::new(Semaphore::new(MAX_QUEUED_BYTES)),
        })
    }

    /// Opens a connection to each host.
    pub async fn connect(&self, health: &Health) -> Result<Links, ConnectionError> {
        let mut links = Vec::with_capacity(self.clients.len());
        for client in &self.clients {
            let (overflow, sender) = (health.clone(), self.sender.clone());
            let (bytes, names) = (Arc::clone(&self.bytes), self.names.clone());
            let link = PubSub::connect(client, health, move |channel, payload| {
                let Some(channel) = names.channel(&channel) else { return };
                if !put(&sender, &bytes, channel, payload) {
                    overflow.give_up("messages arrived faster than they were imported");
                }
            });
            links.push(link.await?);
        }
        Ok(Links(links))
    }

    /// Subscribes the groups of `channels`. Returns those that Redis refuses.
    pub async fn subscribe(
        &self,
        links: &mut Links,
        channels: &[ChannelName],
    ) -> Result<Vec<ChannelName>, ConnectionError> {
        let mut refused = Vec::new();
        for (link, channels) in self.by_host(links, channels) {
            for chunk in channels.chunks(GROUPS_PER_COMMAND) {
                let names: Vec<String> =
                    chunk.iter().map(|one| self.names.redis_channel(one)).collect();
                match link.subscribe(&names).await {
                    Ok(()) => continue,
                    Err(failure @ RedisFailure::Unavailable) => return Err(failure.into()),
                    // One forbidden channel fails the whole command, so each is tried by itself.
                    Err(RedisFailure::Refused(_)) => {}
                }
                for (channel, name) in chunk.iter().zip(names) {
                    match link.subscribe(&[name]).await {
                        Ok(()) => {}
                        Err(failure @ RedisFailure::Unavailable) => return Err(failure.into()),
                        Err(RedisFailure::Refused(error)) => {
                            telemetry::engine::subscription_refused(&error);
                            refused.push(channel.clone());
                        }
                    }
                }
            }
        }
        Ok(refused)
    }

    pub async fn unsubscribe(
        &self,
        links: &mut Links,
        channels: &[ChannelName],
    ) -> Result<(), ConnectionError> {
        for (link, channels) in self.by_host(links, channels) {
            for chunk in channels.chunks(GROUPS_PER_COMMAND) {
                let names: Vec<String> =
                    chunk.iter().map(|one| self.names.redis_channel(one)).collect();
                link.unsubscribe(&names).await?;
            }
        }
        Ok(())
    }

    fn by_host<'a>(
        &self,
        Links(links): &'a mut Links,
        channels: &[ChannelName],
    ) -> Vec<(&'a mut PubSub, Vec<ChannelName>)> {
        let hosts = links.len();
        let mut all: Vec<_> = links.iter_mut().map(|link| (link, Vec::new())).collect();
        for channel in channels {
            if let Some((_, channels)) =
                all.get_mut(host_of(&self.names.redis_channel(channel), hosts))
            {
                channels.push(channel.clone());
            }
        }
        all
    }
}

impl Links {
    pub fn links(&self) -> impl Iterator<Item = MonitoredLink> {
        self.0.iter().map(PubSub::link)
    }
}

/// Puts a message into the queue without waiting. Returns whether there was room.
fn put(
    sender: &mpsc::Sender<QueuedMessage>,
    bytes: &Arc<Semaphore>,
    channel: ChannelName,
    payload: Vec<u8>,
) -> bool {
    let share = payload.len().min(MAX_QUEUED_BYTES) as u32;
    let Ok(bytes) = Arc::clone(bytes).try_acquire_many_owned(share) else { return false };
    let incoming = Incoming { payload, score: None, channel: Some(channel) };
    sender.try_send(QueuedMessage { incoming, _bytes: bytes }).is_ok()
}

impl Layer {
    /// Imports the messages of all hosts, for as long as it is polled.
    pub(super) async fn import_messages(self, mut importer: Importer) {
        let Wire::PubSub(groups) = &self.0.wire else { return };
        let Some(mut receiver) = groups.receiver.borrow_mut().take() else { return };
        let mut ready = Vec::new();
        loop {
            let due = importer.next_due();
            tokio::select! {
                count = receiver.recv_many(&mut ready, GROUPS_PER_COMMAND) => {
                    if count == 0 {
                        return;
                    }
                }
                () = sleep_until(due) => {}
            }
            importer.import_all(ready.drain(..).map(|queued| queued.incoming)).await;
        }
    }
}

async fn sleep_until(due: Option<std::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
