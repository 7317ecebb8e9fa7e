//! Appends messages of the layer to the histories, or puts them into the intake.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::alignment::AlignmentMessage;
use super::earlier_members::Addressed;
use super::group_membership::{HeldMessage, ReadyMessages};
use super::other_types::OtherTypes;
use super::{Layer, PAUSE, Wire};
use crate::broker::Publication;
use crate::broker::core::Intake;
use crate::broker::history::{self, Import, ImportOutcome, Imported, ListenerState};
use crate::channel_layer::message::LayerMessage;
use crate::protocol::ChannelName;
use crate::retry::retry_forever;
use crate::telemetry;
use crate::telemetry::channel_layer::Outcome;

/// One import ends at this many bytes.
const IMPORT_BYTES: usize = 4 << 20;

/// How long the identity of a message is remembered. It is longer than the message can take to reach any node.
const IDENTITY_TTL: Duration = Duration::from_secs(120);

/// The pause between two attempts to put a publication into a full intake.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// A payload as it was read from the layer.
pub(super) struct Incoming {
    pub payload: Vec<u8>,
    /// When the message was sent, by the sender's clock. Only messages of the core layer have a score.
    pub score: Option<f64>,
    /// The channel that the message is for. `None` if the payload itself names the channels.
    pub channel: Option<ChannelName>,
}

/// What comes from a layer, in its order.
pub(super) enum Payload {
    Message(Incoming),
    /// A message that was read, for a channel.
    Addressed(Addressed),
    /// A message between the nodes.
    Alignment(AlignmentMessage),
    /// The connection was lost, and what follows comes from a new one.
    Interrupted,
    /// These groups were subscribed before.
    Subscribed(Vec<ChannelName>),
}

/// Appends or delivers messages in their order.
pub(super) struct Importer {
    layer: Layer,
    intake: Intake,
    other_types: OtherTypes,
}

/// A message that could be read.
pub(super) struct ReadMessage {
    /// The members that the message is for. Without any, it is for the group on whose channel it came.
    pub members: Vec<String>,
    pub message_type: Option<String>,
    pub imported: Imported,
}

impl Layer {
    /// Reads a message and identifies it; `None` if it cannot be read or is too large, which is counted here.
    pub(super) fn read_message(&self, payload: &[u8], score: Option<f64>) -> Option<ReadMessage> {
        let message = match self.0.serializer.read(payload) {
            Ok(message) => message,
            Err(bad) => {
                telemetry::channel_layer::message_unreadable(bad);
                return None;
            }
        };
        if message.json.len() > self.0.max_publication_bytes {
            telemetry::delivery::publication_too_large(message.json.len());
            return None;
        }
        let id = score.map_or(String::new(), |score| identity(score, &message.json));
        let LayerMessage { members, message_type, json } = message;
        Some(ReadMessage {
            members,
            message_type,
            imported: Imported { id, end: None, json: json.into() },
        })
    }

    /// Whether messages of this type are forwarded.
    pub(super) fn is_forwarded(&self, message_type: Option<&String>) -> bool {
        let types = &self.0.settings.types;
        types.is_empty() || message_type.is_some_and(|message_type| types.contains(message_type))
    }
}

impl Importer {
    pub fn new(layer: &Layer, intake: Intake) -> Self {
        Self { layer: layer.clone(), intake, other_types: OtherTypes::default() }
    }

    /// Imports messages, and returns when the engine has accepted all of them that need not wait for others, no matter
    /// how long that takes.
    pub async fn import_all(&mut self, payloads: impl Iterator<Item = Payload>) {
        let mut imports = Imports::default();
        self.add_released(&mut imports);
        for payload in payloads {
            match payload {
                Payload::Message(incoming) => {
                    for (channel, message) in self.address(incoming) {
                        self.dispatch(channel, message, &mut imports).await;
                    }
                }
                Payload::Addressed((channel, message)) => {
                    self.dispatch(channel, message, &mut imports).await;
                }
                Payload::Alignment(message) => {
                    // What came before is appended first.
                    self.import(std::mem::take(&mut imports)).await;
                    self.layer.receive_alignment(message);
                }
                Payload::Interrupted => {
                    self.import(std::mem::take(&mut imports)).await;
                    self.layer.0.membership.borrow_mut().interrupt();
                }
                Payload::Subscribed(channels) => {
                    self.layer.0.membership.borrow_mut().record_subscribed(&channels);
                }
            }
            if imports.bytes >= IMPORT_BYTES {
                self.import(std::mem::take(&mut imports)).await;
            }
        }
        self.import(imports).await;
    }

    /// Returns when no message is held any more.
    pub async fn import_held(&mut self) {
        while self.layer.0.membership.borrow().has_waiting() {
            self.layer.0.released.notified().await;
            self.import_all(std::iter::empty()).await;
        }
    }

    /// Reads a message, and returns it for each of its channels that this node is in the group of.
    pub fn address(&mut self, incoming: Incoming) -> Vec<Addressed> {
        let Incoming { payload, score, channel } = incoming;
        let Some(message) = self.layer.read_message(&payload, score) else { return Vec::new() };
        let ReadMessage { members, message_type, imported } = message;
        let mut channels: Vec<_> = match &self.layer.0.wire {
            Wire::Core { names, .. } => {
                members.iter().filter_map(|member| names.channel(member)).collect()
            }
            Wire::PubSub(_) => Vec::from_iter(channel),
        };
        channels.retain(|channel| self.layer.0.membership.borrow().contains(channel));
        let Some(first) = channels.first() else {
            telemetry::channel_layer::message_read(Outcome::NobodyHere);
            return Vec::new();
        };
        if !self.layer.is_forwarded(message_type.as_ref()) {
            telemetry::channel_layer::message_read(Outcome::OtherType);
            self.other_types.record(message_type.as_deref(), first);
            return Vec::new();
        }
        let held = || HeldMessage { score, imported: imported.clone() };
        channels.into_iter().map(|channel| (channel, held())).collect()
    }

    /// Delivers a message to this node's clients if the channel keeps no history. Otherwise adds it to `imports`, unless
    /// it must be held.
    async fn dispatch(&self, channel: ChannelName, message: HeldMessage, imports: &mut Imports) {
        let Some(rule) = self.layer.0.history.rule(&channel) else {
            telemetry::channel_layer::message_read(Outcome::Live);
            return self.deliver(channel, &message.imported.json).await;
        };
        let ready = self.layer.0.membership.borrow_mut().add(&channel, message);
        if let Some(ready) = ready {
            imports.add(&channel, rule, ready);
        }
    }

    /// Adds the messages that were held until now.
    fn add_released(&self, imports: &mut Imports) {
        for (channel, ready) in self.layer.0.membership.borrow_mut().take_ready() {
            if let Some(rule) = self.layer.0.history.rule(&channel) {
                imports.add(&channel, rule, ready);
            }
        }
    }

    /// Delivers a message to this node's own clients. The engine thread empties the intake without waiting for
    /// clients, so a full intake has room again soon.
    async fn deliver(&self, channel: ChannelName, json: &Bytes) {
        let delivery = history::encode_received(&channel, json, None);
        let received = Instant::now();
        let publication = Publication { channel, delivery, received };
        while self.intake.try_put(publication.clone()).is_err() {
            tokio::time::sleep(FULL_PAUSE).await;
        }
    }

    /// Appends messages to the histories, and retries until Redis answers. Each message is still appended only once.
    async fn import(&self, Imports { mut list, .. }: Imports) {
        if list.is_empty() {
            return;
        }
        let layer = &*self.layer.0;
        for Import { channel, publications, .. } in &mut list {
            for publication in publications {
                publication.end = (layer.end_reader)(channel, &publication.json);
            }
        }
        let memory = match layer.wire {
            Wire::Core { .. } => IDENTITY_TTL,
            Wire::PubSub(_) => self.layer.registration_ttl(),
        };
        let answers = retry_forever(PAUSE, || layer.redis.import(memory, &list)).await;
        let (mut refused, mut uncounted) = (Vec::new(), Vec::new());
        for (import, answer) in list.into_iter().zip(answers) {
            let count = import.publications.len();
            match answer {
                Ok(ImportOutcome::Appended(appended)) => {
                    let appended = appended.min(count);
                    telemetry::channel_layer::messages_read(Outcome::Appended, appended);
                    telemetry::channel_layer::messages_read(Outcome::Duplicate, count - appended);
                }
                Ok(ImportOutcome::OtherOrigin) => {
                    let mut membership = layer.membership.borrow_mut();
                    membership.put_back(&import.channel, import.publications);
                    uncounted.push(import.channel);
                }
                Err(_) => {
                    telemetry::channel_layer::messages_read(Outcome::Refused, count);
                    refused.push(import.channel);
                }
            }
        }
        self.report_gap(refused, ListenerState::Lost);
        self.report_gap(uncounted, ListenerState::Missed);
    }

    fn report_gap(&self, channels: Vec<ChannelName>, state: ListenerState) {
        if !channels.is_empty() {
            let layer = self.layer.clone();
            tokio::task::spawn_local(async move { layer.report_gap(channels, state).await });
        }
    }
}

/// The messages to append next, grouped by channel, in the order of each channel's first message.
#[derive(Default)]
struct Imports {
    list: Vec<Import>,
    index: HashMap<ChannelName, usize>,
    bytes: usize,
}

impl Imports {
    fn add(&mut self, channel: &ChannelName, rule: crate::config::History, ready: ReadyMessages) {
        let ReadyMessages { first, messages } = ready;
        self.bytes += messages.iter().map(|imported| imported.json.len()).sum::<usize>();
        if let Some(import) = self.index.get(channel).and_then(|at| self.list.get_mut(*at))
            && follows(import, first.as_ref())
        {
            import.publications.extend(messages);
            return;
        }
        self.index.insert(channel.clone(), self.list.len());
        let channel = channel.clone();
        self.list.push(Import { channel, rule, first, publications: messages });
    }
}

/// Whether a message with the number `next` follows those of `import`.
fn follows(import: &Import, next: Option<&history::MessageNumber>) -> bool {
    match (&import.first, next) {
        (None, None) => true,
        (Some(first), Some(next)) => {
            first.origin == next.origin
                && first.number + import.publications.len() as i64 == next.number
        }
        _ => false,
    }
}

/// Identifies a message on every node by its content and the time when it was sent, which is the same in all
/// mailboxes of a host.
fn identity(score: f64, json: &[u8]) -> String {
    let digest = Sha256::digest(json);
    let digest = digest.iter().take(8).map(|byte| format!("{byte:02x}"));
    std::iter::once(format!("{score}:")).chain(digest).collect()
}
