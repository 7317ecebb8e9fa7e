//! Parses the messages in the payloads of a channel layer.

use std::borrow::Cow;
use std::time::Duration;

use super::fernet::{self, Fernet, Lifetime};
use crate::clock;
use crate::config::{LayerSerializer, Secret};
use crate::msgpack::{Item, Malformed, Reader, write_key, write_value};
use crate::protocol::{json_members, json_text};
pub use crate::telemetry::channel_layer::BadMessage;

/// The member that `group_send` of the core layer adds: the channels of the mailbox that the message is for.
const MEMBERS: &str = "__asgi_channel__";

/// The member that names the handler of a consumer.
const TYPE: &str = "type";

/// A message as a backend passed it to `group_send`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerMessage {
    /// The message as a JSON object: its members in their order, without `__asgi_channel__`, and without `type` if
    /// the serializer does not keep it.
    pub json: Vec<u8>,
    /// The value of `type`, if it is a string.
    pub message_type: Option<String>,
    /// The channels of this mailbox that the message is for. Empty in the pub/sub layer.
    pub members: Vec<String>,
}

impl std::error::Error for BadMessage {}

impl From<Malformed> for BadMessage {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Reads payloads that are written with the layer's settings.
pub struct Serializer {
    format: LayerSerializer,
    /// The number of random bytes before the message, which make it unique in a mailbox.
    prefix: usize,
    /// The keys of the encryption. If there are none, messages are not encrypted.
    keys: Vec<Fernet>,
    ttl: Option<Duration>,
    keeps_type: bool,
}

impl Serializer {
    /// Creates a serializer for a layer without a prefix (the pub/sub layer) and without encryption. Messages keep
    /// their `type`.
    pub fn new(format: LayerSerializer) -> Self {
        Self { format, prefix: 0, keys: Vec::new(), ttl: None, keeps_type: true }
    }

    /// Sets `random_prefix_length`, which is 12 in the core layer unless it is configured.
    pub fn with_prefix(self, bytes: usize) -> Self {
        Self { prefix: bytes, ..self }
    }

    /// Sets `symmetric_encryption_keys`, each of which is tried. A message older than `ttl` is refused; `None` means
    /// that messages never expire.
    pub fn with_keys(self, secrets: &[Secret], ttl: Option<Duration>) -> Self {
        Self { keys: secrets.iter().map(Fernet::new).collect(), ttl, ..self }
    }

    /// Sets whether the JSON keeps the member `type`.
    pub fn with_type(self, keeps_type: bool) -> Self {
        Self { keeps_type, ..self }
    }

    /// Reads a payload. The JSON has at most `msgpack::MAX_GROWTH` times its length.
    pub fn read(&self, payload: &[u8]) -> Result<LayerMessage, BadMessage> {
        self.read_at(payload, clock::unix_seconds())
    }

    /// Reads a payload at the time `now`, in Unix seconds.
    fn read_at(&self, payload: &[u8], now: u64) -> Result<LayerMessage, BadMessage> {
        let mut body = Cow::Borrowed(payload.get(self.prefix..).ok_or(BadMessage::Malformed)?);
        if !self.keys.is_empty() {
            let lifetime = self.ttl.map(|ttl| Lifetime { now, ttl: ttl.as_secs() });
            let opened = fernet::open(&self.keys, &body, lifetime);
            body = Cow::Owned(opened.ok_or(BadMessage::Sealed)?);
        }
        match self.format {
            LayerSerializer::MsgPack => read_msgpack(&body, self.keeps_type),
            LayerSerializer::Json => read_json(&body, self.keeps_type),
        }
    }
}

/// A message that is being written.
struct Draft {
    message: LayerMessage,
    keeps_type: bool,
}

impl Draft {
    fn new(keeps_type: bool, capacity: usize) -> Self {
        let mut json = Vec::with_capacity(capacity);
        json.push(b'{');
        Self { message: LayerMessage { json, message_type: None, members: Vec::new() }, keeps_type }
    }

    /// Writes one member with `write`, and removes it again unless it `is_kept`.
    fn member<E>(
        &mut self,
        is_kept: bool,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let json = &mut self.message.json;
        let start = json.len();
        if start > 1 {
            json.push(b',');
        }
        write(json)?;
        if !is_kept {
            json.truncate(start);
        }
        Ok(())
    }

    fn finish(mut self) -> LayerMessage {
        self.message.json.push(b'}');
        self.message
    }
}

fn read_msgpack(body: &[u8], keeps_type: bool) -> Result<LayerMessage, BadMessage> {
    let mut reader = Reader::new(body);
    let Item::Map(count) = reader.item()? else { return Err(BadMessage::NotAMap) };
    let mut draft = Draft::new(keeps_type, body.len() + body.len() / 2);
    for _ in 0..count {
        let key = reader.item()?;
        if key == Item::Str(MEMBERS.as_bytes()) {
            draft.message.members = members(&mut reader)?;
            continue;
        }
        let is_type = key == Item::Str(TYPE.as_bytes());
        if is_type {
            // The type is read from a clone, since the member is still to be written.
            draft.message.message_type = text(reader.clone().item()?);
        }
        draft.member(!is_type || draft.keeps_type, |json| {
            write_key(key, json)?;
            json.push(b':');
            write_value(&mut reader, json)
        })?;
    }
    reader.finish()?;
    Ok(draft.finish())
}

/// Parses a string or an array of strings.
fn members(reader: &mut Reader) -> Result<Vec<String>, BadMessage> {
    let count = match reader.item()? {
        Item::Array(count) => count,
        one => return text(one).map(|one| vec![one]).ok_or(BadMessage::Members),
    };
    (0..count).map(|_| text(reader.item()?).ok_or(BadMessage::Members)).collect()
}

fn text(item: Item) -> Option<String> {
    match item {
        Item::Str(bytes) => str::from_utf8(bytes).ok().map(str::to_owned),
        _ => None,
    }
}

fn read_json(body: &[u8], keeps_type: bool) -> Result<LayerMessage, BadMessage> {
    let body = str::from_utf8(body).map_err(|_| BadMessage::Malformed)?;
    if !body.trim_start().starts_with('{') {
        return Err(BadMessage::NotAMap);
    }
    let body = json_text(body).ok_or(BadMessage::Malformed)?;
    let mut draft = Draft::new(keeps_type, body.len());
    for (key, value) in json_members(&body) {
        let name: Option<Cow<str>> = serde_json::from_str(key).ok();
        if name.as_deref() == Some(MEMBERS) {
            draft.message.members = texts(value).ok_or(BadMessage::Members)?;
            continue;
        }
        let is_type = name.as_deref() == Some(TYPE);
        if is_type {
            draft.message.message_type = serde_json::from_str(value).ok();
        }
        draft.member(!is_type || keeps_type, |json| {
            json.extend_from_slice(key.as_bytes());
            json.push(b':');
            json.extend_from_slice(value.as_bytes());
            Ok::<(), BadMessage>(())
        })?;
    }
    Ok(draft.finish())
}

/// Parses a JSON string or an array of strings; `None` for anything else.
fn texts(value: &str) -> Option<Vec<String>> {
    if value.starts_with('"') {
        return serde_json::from_str(value).ok().map(|text| vec![text]);
    }
    serde_json::from_str(value).ok()
}

#[cfg(test)]
mod tests;
