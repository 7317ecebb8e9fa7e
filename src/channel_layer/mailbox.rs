//! The mailbox of this node in a `RedisChannelLayer`: a sorted set of the messages for the node, which a separate
//! connection pops.

use std::time::Duration;

use redis::{Client, Value};

use super::MailboxNames;
use crate::redis_link::{BlockingConnection, ConnectionError, Health, RedisFailure};

/// The most messages that one pop returns.
pub const MESSAGES_PER_POP: usize = 500;

/// A message of the mailbox.
#[derive(Debug, PartialEq)]
pub struct MailboxMessage {
    pub payload: Vec<u8>,
    /// When the message was sent, by the sender's clock. It is the same in every mailbox of one host.
    pub score: f64,
}

/// The reader of the mailbox. A popped message exists nowhere else, so a pop must not be dropped before it ends.
pub struct Mailbox {
    connection: BlockingConnection,
    key: String,
    /// Whether the server supports BZMPOP and permits it to this user.
    supports_bzmpop: bool,
    /// Whether an answer was lost.
    is_broken: bool,
}

impl Mailbox {
    pub async fn connect(
        client: &Client,
        names: &MailboxNames,
        health: &Health,
    ) -> Result<Self, ConnectionError> {
        Ok(Self {
            connection: BlockingConnection::connect(client, health).await?,
            key: names.mailbox(),
            supports_bzmpop: true,
            is_broken: false,
        })
    }

    /// Pops the oldest messages, up to [`MESSAGES_PER_POP`], and waits up to `wait` for the first. After an error
    /// the connection must be closed, and popped messages may be lost.
    pub async fn pop(&mut self, wait: Duration) -> Result<Vec<MailboxMessage>, RedisFailure> {
        if self.is_broken {
            return Err(RedisFailure::Unavailable);
        }
        if self.supports_bzmpop {
            let mut pop = redis::cmd("BZMPOP");
            pop.arg(wait.as_secs_f64()).arg(1).arg(&self.key).arg("MIN");
            pop.arg("COUNT").arg(MESSAGES_PER_POP);
            match self.connection.query::<Value>(&pop, wait).await {
                Ok(answer) => return Ok(messages(answer)),
                // The server is older than Redis 7, or does not permit the command.
                Err(RedisFailure::Refused(_)) => self.supports_bzmpop = false,
                Err(failure) => return Err(failure),
            }
        }
        let mut pop = redis::cmd("BZPOPMIN");
        pop.arg(&self.key).arg(wait.as_secs_f64());
        let mut popped = messages(self.connection.query(&pop, wait).await?);
        if !popped.is_empty() {
            match self.pop_ready(MESSAGES_PER_POP - 1).await {
                Ok(more) => popped.extend(more),
                // The first message was popped and is returned.
                Err(_) => self.is_broken = true,
            }
        }
        Ok(popped)
    }

    /// Pops up to `count` messages without waiting.
    async fn pop_ready(&mut self, count: usize) -> Result<Vec<MailboxMessage>, RedisFailure> {
        let mut pop = redis::cmd("ZPOPMIN");
        pop.arg(&self.key).arg(count);
        Ok(messages(self.connection.query(&pop, Duration::ZERO).await?))
    }
}

/// The members and scores of an answer, at any depth of nested arrays: BZMPOP, BZPOPMIN and ZPOPMIN nest them
/// differently, as do RESP2 and RESP3. A key in front of them is ignored, since no score follows it.
fn messages(answer: Value) -> Vec<MailboxMessage> {
    let mut messages = Vec::new();
    collect(answer, &mut messages);
    messages
}

fn collect(value: Value, messages: &mut Vec<MailboxMessage>) {
    let Value::Array(values) = value else { return };
    let mut payload = None;
    for value in values {
        match (value, payload.take()) {
            (Value::Double(score), Some(payload)) => {
                messages.push(MailboxMessage { payload, score })
            }
            (Value::BulkString(bytes), _) => payload = Some(bytes),
            (nested, _) => collect(nested, messages),
        }
    }
}
