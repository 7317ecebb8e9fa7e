//! Appends messages of the layer to the histories, or puts them into the intake.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::other_types::OtherTypes;
use super::{Layer, PAUSE, Wire};
use crate::broker::Publication;
use crate::broker::core::Intake;
use crate::broker::history::{self, Import, Imported, ListenerState};
use crate::protocol::ChannelName;
use crate::retry::retry_forever;
use crate::telemetry;
use crate::telemetry::channel_layer::Outcome;

/// One import ends at this many bytes.
const IMPORT_BYTES: usize = 4 << 20;

/// The most messages of all channels that are deferred until another node has appended its own. Further messages
/// are not deferred.
const MAX_HELD: usize = 16 * 1024;

/// How long the identity of a message is remembered. It is longer than the message can take to reach any node.
const IDENTITY_TTL: Duration = Duration::from_secs(120);

/// If messages have no identity, only one node imports a channel. Another node takes its place after the first
/// has imported nothing for this long.
const READER_TTL: Duration = Duration::from_secs(3);

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

/// Appends or delivers messages in their order.
pub(super) struct Importer {
    layer: Layer,
    intake: Intake,
    max_bytes: usize,
    /// Messages of channels whose deferral has not ended.
    held: HashMap<ChannelName, Vec<Imported>>,
    held_count: usize,
    other_types: OtherTypes,
}

impl Importer {
    pub fn new(layer: &Layer, intake: Intake, max_bytes: usize) -> Self {
        Self {
            layer: layer.clone(),
            intake,
            max_bytes,
            held: HashMap::new(),
            held_count: 0,
            other_types: OtherTypes::default(),
        }
    }

    /// When the next deferral ends.
    pub fn next_due(&self) -> Option<Instant> {
        let membership = self.layer.0.membership.borrow();
        self.held.keys().filter_map(|channel| membership.deferred_until(channel)).min()
    }

    /// Imports messages, and returns when the engine has accepted all of them, no matter how long that takes.
    pub async fn import_all(&mut self, incoming: impl Iterator<Item = Incoming>) {
        let mut imports = Imports::default();
        self.release_due(&mut imports);
        for incoming in incoming {
            let Some((channels, json, id)) = self.read(incoming) else { continue };
            for channel in channels {
                self.dispatch(channel, &json, &id, &mut imports).await;
            }
            if imports.bytes >= IMPORT_BYTES {
                self.import(std::mem::take(&mut imports)).await;
            }
        }
        self.import(imports).await;
    }

    /// Returns the channels of this node that a message is for, its JSON and its identity; `None` if it is for none
    /// of them or cannot be read, which is counted here.
    fn read(&mut self, incoming: Incoming) -> Option<(Vec<ChannelName>, Bytes, String)> {
        let layer = &*self.layer.0;
        let message = match layer.serializer.read(&incoming.payload) {
            Ok(message) => message,
            Err(bad) => {
                telemetry::channel_layer::message_unreadable(bad);
                return None;
            }
        };
        if message.json.len() > self.max_bytes {
            telemetry::delivery::publication_too_large(message.json.len());
            return None;
        }
        let mut channels = match (&layer.wire, incoming.channel) {
            (Wire::Core { names, .. }, _) => {
                message.members.iter().filter_map(|member| names.channel(member)).collect()
            }
            (Wire::PubSub(_), channel) => Vec::from_iter(channel),
        };
        let membership = layer.membership.borrow();
        channels.retain(|channel| membership.contains(channel));
        if channels.is_empty() {
            telemetry::channel_layer::message_read(Outcome::NobodyHere);
            return None;
        }
        let types = &layer.settings.types;
        let is_wanted = |message_type: &String| types.contains(message_type);
        if !types.is_empty() && !message.message_type.as_ref().is_some_and(is_wanted) {
            telemetry::channel_layer::message_read(Outcome::OtherType);
            self.other_types.record(message.message_type.as_deref(), &channels[0]);
            return None;
        }
        let id = incoming.score.map_or(String::new(), |score| identity(score, &message.json));
        Some((channels, message.json.into(), id))
    }

    /// Delivers a message to this node's clients if the channel keeps no history. Otherwise adds it to `imports`, or
    /// holds it while the channel is deferred.
    async fn dispatch(
        &mut self,
        channel: ChannelName,
        json: &Bytes,
        id: &str,
        imports: &mut Imports,
    ) {
        let Some(rule) = self.layer.0.history.rule(&channel) else {
            telemetry::channel_layer::message_read(Outcome::Live);
            return self.deliver(channel, json).await;
        };
        let imported = Imported { id: id.to_owned(), json: json.clone() };
        let until = self.layer.0.membership.borrow().deferred_until(&channel);
        let deferred = until.is_some_and(|until| until > Instant::now());
        if deferred && self.held_count < MAX_HELD {
            self.held_count += 1;
            self.held.entry(channel).or_default().push(imported);
        } else {
            for earlier in self.release(&channel) {
                imports.add(&channel, rule, earlier);
            }
            imports.add(&channel, rule, imported);
        }
    }

    /// Ends the deferral of `channel` and returns its messages.
    fn release(&mut self, channel: &ChannelName) -> Vec<Imported> {
        self.layer.0.membership.borrow_mut().end_deferral(channel);
        let released = self.held.remove(channel).unwrap_or_default();
        self.held_count -= released.len();
        released
    }

    fn release_due(&mut self, imports: &mut Imports) {
        if self.held.is_empty() {
            return;
        }
        let now = Instant::now();
        let is_deferred = |channel: &ChannelName| {
            self.layer
                .0
                .membership
                .borrow()
                .deferred_until(channel)
                .is_some_and(|until| until > now)
        };
        let due: Vec<_> =
            self.held.keys().filter(|channel| !is_deferred(channel)).cloned().collect();
        for channel in due {
            let released = self.release(&channel);
            if let Some(rule) = self.layer.0.history.rule(&channel) {
                released.into_iter().for_each(|one| imports.add(&channel, rule, one));
            }
        }
    }

    /// Delivers a message to this node's own clients. The engine thread empties the intake without waiting for
    /// clients, so a full intake has room again soon.
    async fn deliver(&mut self, channel: ChannelName, json: &Bytes) {
        let delivery = history::encode_received(&channel, json, None);
        let received = Instant::now();
        let publication = Publication { channel, delivery, received };
        while self.intake.try_put(publication.clone()).is_err() {
            tokio::time::sleep(FULL_PAUSE).await;
        }
    }

    /// Appends messages to the histories, and retries until Redis answers. A message that has an identity is still
    /// appended only once.
    async fn import(&mut self, Imports { list, .. }: Imports) {
        if list.is_empty() {
            return;
        }
        let by_id = matches!(self.layer.0.wire, Wire::Core { .. });
        let guard = if by_id { IDENTITY_TTL } else { READER_TTL };
        let layer = &*self.layer.0;
        let import = || layer.redis.import(&layer.node, guard, &list);
        let answers = retry_forever(PAUSE, import).await;
        let mut refused = Vec::new();
        for (import, answer) in list.into_iter().zip(answers) {
            let count = import.publications.len();
            match answer {
                Ok(appended) => {
                    let appended = appended.min(count);
                    telemetry::channel_layer::messages_read(Outcome::Appended, appended);
                    telemetry::channel_layer::messages_read(Outcome::Duplicate, count - appended);
                }
                Err(_) => {
                    telemetry::channel_layer::messages_read(Outcome::Refused, count);
                    refused.push(import.channel);
                }
            }
        }
        if !refused.is_empty() {
            let layer = self.layer.clone();
            tokio::task::spawn_local(async move {
                layer.report_gap(refused, ListenerState::Lost).await
            });
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
    fn add(&mut self, channel: &ChannelName, rule: crate::config::History, imported: Imported) {
        self.bytes += imported.json.len();
        let at = *self.index.entry(channel.clone()).or_insert_with(|| {
            self.list.push(Import { channel: channel.clone(), rule, publications: Vec::new() });
            self.list.len() - 1
        });
        if let Some(import) = self.list.get_mut(at) {
            import.publications.push(imported);
        }
    }
}

/// Identifies a message on every node by its content and the time when it was sent, which is the same in all
/// mailboxes of a host.
fn identity(score: f64, json: &[u8]) -> String {
    let digest = Sha256::digest(json);
    let digest = digest.iter().take(8).map(|byte| format!("{byte:02x}"));
    std::iter::once(format!("{score}:")).chain(digest).collect()
}
