//! Reads a `RedisPubSubChannelLayer`, in which groups are Redis channels that are distributed over the hosts. Each
//! connection also carries the messages by which the nodes agree about the numbers of the groups' messages.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::alignment::AlignmentMessage;
use super::importer::{Importer, Incoming, Payload};
use super::{Layer, Wire};
use crate::channel_layer::{GroupChannels, host_of};
use crate::config::ChannelsLayer;
use crate::protocol::ChannelName;
use crate::redis_link::{
    ConnectionError, Health, MonitoredLink, Primary, PubSub, PubSubSender, RedisFailure,
};
use crate::telemetry;

/// The most messages that wait to be imported, and the most bytes of them. Beyond either limit the subscription
/// counts as broken.
const MAX_QUEUED: usize = 8 * 1024;
const MAX_QUEUED_BYTES: usize = 32 << 20;

/// The most groups in one SUBSCRIBE.
const GROUPS_PER_COMMAND: usize = 512;

/// An entry of the importer's queue, with its permit for the queue's bytes.
struct QueuedMessage {
    payload: Payload,
    _bytes: Option<OwnedSemaphorePermit>,
}

/// The connections of one subscription to the hosts, in the order of the hosts. The core layer has none.
#[derive(Default)]
pub(in crate::broker) struct Links(Vec<PubSub>);

/// The hosts and channel names of the groups, and the queue of their messages. Cheap to clone.
#[derive(Clone)]
pub(super) struct Groups(Rc<Inner>);

struct Inner {
    hosts: Vec<Primary>,
    names: GroupChannels,
    /// The Redis channel for messages between the nodes, on each host.
    alignment_channel: String,
    /// For each host, while it is connected.
    senders: RefCell<Vec<PubSubSender>>,
    sender: mpsc::Sender<QueuedMessage>,
    receiver: RefCell<Option<mpsc::Receiver<QueuedMessage>>>,
    bytes: Arc<Semaphore>,
}

impl Groups {
    pub fn new(settings: &ChannelsLayer, alignment_channel: String) -> Result<Self, String> {
        let (sender, receiver) = mpsc::channel(MAX_QUEUED);
        Ok(Self(Rc::new(Inner {
            hosts: settings.hosts.iter().map(Primary::named).collect::<Result<_, _>>()?,
            names: GroupChannels::new(&settings.prefix),
            alignment_channel,
            senders: RefCell::default(),
            sender,
            receiver: RefCell::new(Some(receiver)),
            bytes: Arc::new(Semaphore::new(MAX_QUEUED_BYTES)),
        })))
    }

    /// Opens a connection to each host.
    pub async fn connect(&self, health: &Health) -> Result<Links, ConnectionError> {
        let inner = &*self.0;
        // Messages of the new connections are counted anew.
        self.enqueue(Payload::Interrupted).await;
        let mut links = Vec::with_capacity(inner.hosts.len());
        for host in &inner.hosts {
            let (overflow, sender) = (health.clone(), inner.sender.clone());
            let (bytes, names) = (Arc::clone(&inner.bytes), inner.names.clone());
            let alignment_channel = inner.alignment_channel.clone();
            let link = PubSub::connect_to(host, health, move |channel, payload| {
                let size = payload.len();
                let payload = if channel == alignment_channel.as_bytes() {
                    let Ok(message) = serde_json::from_slice(payload) else { return };
                    Payload::Alignment(message)
                } else {
                    let Some(channel) = names.channel(channel) else { return };
                    let payload = payload.to_vec();
                    Payload::Message(Incoming { payload, score: None, channel: Some(channel) })
                };
                if !put(&sender, &bytes, payload, size) {
                    overflow.give_up("messages arrived faster than they were imported");
                }
            });
            let mut link = link.await?;
            link.subscribe(std::slice::from_ref(&inner.alignment_channel)).await?;
            links.push(link);
        }
        Ok(Links(links))
    }

    /// Lets messages be sent to the other nodes from now on.
    pub fn set_senders(&self, Links(links): &Links) {
        self.0.senders.replace(links.iter().map(PubSub::sender).collect());
    }

    /// Waits for room in the importer's queue.
    async fn enqueue(&self, payload: Payload) {
        // The importer only ends with the process.
        let _ = self.0.sender.send(QueuedMessage { payload, _bytes: None }).await;
    }

    /// Must be called when the connections are lost.
    pub fn disconnected(&self) {
        self.0.senders.borrow_mut().clear();
    }

    /// Sends a message to the other nodes on the host of each of `channels`. Nothing is sent to a host that is not
    /// connected; the receivers ask again.
    pub async fn send_to_hosts(
        &self,
        channels: &[ChannelName],
        message: impl Fn(Vec<ChannelName>) -> AlignmentMessage,
    ) {
        let senders = self.0.senders.borrow().clone();
        let by_host = self.by_host(senders.iter().collect(), channels);
        for (sender, channels) in by_host {
            if channels.is_empty() {
                continue;
            }
            let json = serde_json::to_string(&message(channels)).expect("texts and numbers");
            let _ = sender.publish_text(&self.0.alignment_channel, &json).await;
        }
    }

    /// Subscribes the groups of `channels`. Returns those that Redis refuses.
    pub async fn subscribe(
        &self,
        links: &mut Links,
        channels: &[ChannelName],
    ) -> Result<Vec<ChannelName>, ConnectionError> {
        let mut refused = Vec::new();
        let all = channels;
        for (link, channels) in self.by_host(links.0.iter_mut().collect(), channels) {
            for chunk in channels.chunks(GROUPS_PER_COMMAND) {
                let names: Vec<String> =
                    chunk.iter().map(|one| self.0.names.redis_channel(one)).collect();
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
        let is_refused = |channel: &&ChannelName| refused.contains(channel);
        let subscribed = all.iter().filter(|channel| !is_refused(channel)).cloned().collect();
        self.enqueue(Payload::Subscribed(subscribed)).await;
        Ok(refused)
    }

    pub async fn unsubscribe(
        &self,
        links: &mut Links,
        channels: &[ChannelName],
    ) -> Result<(), ConnectionError> {
        for (link, channels) in self.by_host(links.0.iter_mut().collect(), channels) {
            for chunk in channels.chunks(GROUPS_PER_COMMAND) {
                let names: Vec<String> =
                    chunk.iter().map(|one| self.0.names.redis_channel(one)).collect();
                link.unsubscribe(&names).await?;
            }
        }
        Ok(())
    }

    /// Distributes `channels` over the hosts; each of `hosts` stands for one.
    fn by_host<T>(
        &self,
        hosts: Vec<T>,
        channels: &[ChannelName],
    ) -> impl Iterator<Item = (T, Vec<ChannelName>)> + use<T> {
        let count = hosts.len();
        let mut all: Vec<_> = hosts.into_iter().map(|host| (host, Vec::new())).collect();
        for channel in channels {
            let host = host_of(&self.0.names.redis_channel(channel), count);
            if let Some((_, channels)) = all.get_mut(host) {
                channels.push(channel.clone());
            }
        }
        all.into_iter()
    }
}

impl Links {
    pub fn links(&self) -> impl Iterator<Item = MonitoredLink> {
        self.0.iter().map(PubSub::link)
    }
}

/// Puts a payload of `size` bytes into the queue without waiting. Returns whether there was room.
fn put(
    sender: &mpsc::Sender<QueuedMessage>,
    bytes: &Arc<Semaphore>,
    payload: Payload,
    size: usize,
) -> bool {
    let share = size.min(MAX_QUEUED_BYTES) as u32;
    let Ok(bytes) = Arc::clone(bytes).try_acquire_many_owned(share) else { return false };
    sender.try_send(QueuedMessage { payload, _bytes: Some(bytes) }).is_ok()
}

impl Layer {
    /// Imports the messages of all hosts, for as long as it is polled.
    pub(super) async fn import_messages(self, mut importer: Importer) {
        let Wire::PubSub(groups) = &self.0.wire else { return };
        let Some(mut receiver) = groups.0.receiver.borrow_mut().take() else { return };
        let mut ready = Vec::new();
        loop {
            tokio::select! {
                count = receiver.recv_many(&mut ready, GROUPS_PER_COMMAND) => {
                    if count == 0 {
                        return;
                    }
                }
                () = self.0.released.notified() => {}
            }
            importer.import_all(ready.drain(..).map(|queued| queued.payload)).await;
        }
    }
}
