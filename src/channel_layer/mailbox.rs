//! The mailbox of a node in a `RedisChannelLayer`: a sorted set of the messages for the node, which a separate
//! connection reads.
//!
//! A message stays in Redis until it was appended: the reader moves messages to a second key in one step, and removes
//! them from there with its next step. If the node dies in between, another node finds them in one of both keys.

use std::sync::Arc;
use std::time::Duration;

use redis::{Client, Script, Value};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::MailboxNames;
use crate::redis_link::{ConnectionError, Health, KeyWatch, MonitoredLink, RedisFailure};

/// The most messages that are taken at once.
pub const MESSAGES_PER_TAKE: usize = 500;

/// How much longer taken messages are kept than the layer keeps messages.
const TAKEN_TTL_MARGIN: Duration = Duration::from_secs(60);

/// Takes messages out of a mailbox.
pub(super) const TAKE: &str = include_str!("take.lua");

/// The pause between two reads if the server does not report new messages.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A message of the mailbox.
#[derive(Debug, PartialEq)]
pub struct MailboxMessage {
    pub payload: Vec<u8>,
    /// When the message was sent, by the sender's clock. It is the same in every mailbox of one host.
    pub score: f64,
}

/// The reader of the mailbox on one connection.
pub struct Mailbox {
    connection: KeyWatch,
    take: Script,
    names: MailboxNames,
    taken_ttl: Duration,
    changed: Arc<Notify>,
    /// Identifies this reader's batches.
    reader: String,
    /// The number of the last batch that was taken on this connection; 0 if there was none.
    batch: u64,
}

impl Mailbox {
    /// `expiry` is how long the layer keeps a message.
    pub async fn connect(
        client: &Client,
        health: &Health,
        names: &MailboxNames,
        expiry: Duration,
    ) -> Result<Self, ConnectionError> {
        let changed = Arc::new(Notify::new());
        let on_change = Arc::clone(&changed);
        let notify = move || on_change.notify_one();
        Ok(Self {
            connection: KeyWatch::connect(client, health, &names.mailbox(), notify).await?,
            take: Script::new(TAKE),
            names: names.clone(),
            taken_ttl: expiry + TAKEN_TTL_MARGIN,
            changed,
            reader: crate::protocol::random_hex(4),
            batch: 0,
        })
    }

    /// Whether the server reports new messages. If not, the mailbox is read every ten milliseconds.
    pub fn is_tracking(&self) -> bool {
        self.connection.is_tracking()
    }

    /// A clone of the connection for its checks.
    pub fn link(&self) -> MonitoredLink {
        self.connection.link()
    }

    /// Takes the oldest messages, up to [`MESSAGES_PER_TAKE`], and confirms those of the previous call: they must have
    /// been appended by now. The first call on a connection also returns what was taken and not confirmed before.
    pub async fn take(&mut self) -> Result<Vec<MailboxMessage>, RedisFailure> {
        // What arrives from here on is reported again.
        let _ = timeout(Duration::ZERO, self.changed.notified()).await;
        let mut call = self.take.prepare_invoke();
        call.key(self.names.mailbox()).key(self.names.taken());
        match self.batch {
            0 => call.arg(""),
            batch => call.arg(format!("{}.{batch}", self.reader)),
        };
        self.batch += 1;
        call.arg(format!("{}.{}", self.reader, self.batch));
        call.arg(MESSAGES_PER_TAKE).arg(self.taken_ttl.as_millis() as u64);
        let mut messages = read_messages(self.connection.invoke(&call).await?);
        messages.sort_by(|one, other| one.score.total_cmp(&other.score));
        Ok(messages)
    }

    /// Waits until there may be new messages, for at most `longest`.
    pub async fn changed(&self, longest: Duration) {
        let longest = if self.is_tracking() { longest } else { longest.min(POLL_INTERVAL) };
        // The caller looks into the mailbox in both cases.
        let _ = timeout(longest, self.changed.notified()).await;
    }
}

/// The messages and scores of an answer, at any depth of nested arrays: commands and scripts nest them differently,
/// as do RESP2 and RESP3. A score is a number or its text.
pub(super) fn read_messages(answer: Value) -> Vec<MailboxMessage> {
    let mut messages = Vec::new();
    collect(answer, &mut messages);
    messages
}

fn collect(value: Value, messages: &mut Vec<MailboxMessage>) {
    let Value::Array(values) = value else { return };
    let mut payload = None;
    for value in values {
        match (value, payload.take()) {
            (Value::BulkString(text), Some(bytes)) => {
                let score = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
                messages.extend(score.map(|score| MailboxMessage { payload: bytes, score }));
            }
            (Value::Double(score), Some(payload)) => {
                messages.push(MailboxMessage { payload, score });
            }
            (Value::BulkString(bytes), None) => payload = Some(bytes),
            (nested, _) => collect(nested, messages),
        }
    }
}

#[cfg(test)]
mod tests;
