//! The mailbox of this node in a `RedisChannelLayer`: a sorted set into which every message for the node is
//! put, and which a connection of its own empties.

use std::time::Duration;

use redis::{Client, Value};

use super::MailboxNames;
use crate::redis_link::{Blocking, ConnectionError, RedisFailure};

/// The most messages of one pop.
pub const MESSAGES_PER_POP: usize = 500;

/// A message of the mailbox.
#[derive(Debug, PartialEq)]
pub struct MailboxMessage {
    pub payload: Vec<u8>,
    /// When it was sent, by the sender's clock: the same in every mailbox of one host.
    pub score: f64,
}

/// The reader of the mailbox. What was popped is nowhere else: a pop must be awaited to its end.
pub struct Mailbox {
    connection: Blocking,
    key: String,
    /// Whether the server knows BZMPOP, and lets this user call it.
    pops_many: bool,
    /// Whether an answer was lost.
    broken: bool,
}

impl Mailbox {
    pub async fn connect(client: &Client, names: &MailboxNames) -> Result<Self, ConnectionError> {
        Ok(Self {
            connection: Blocking::connect(client).await?,
            key: names.mailbox(),
            pops_many: true,
            broken: false,
        })
    }

    /// Pops the oldest messages, up to [`MESSAGES_PER_POP`], and waits up to `wait` for the first. After an error
    /// the connection is to be given up, and messages may have been popped that are lost.
    pub async fn pop(&mut self, wait: Duration) -> Result<Vec<MailboxMessage>, RedisFailure> {
        if self.broken {
            return Err(RedisFailure::Unavailable);
        }
        if self.pops_many {
            let mut pop = redis::cmd("BZMPOP");
            pop.arg(wait.as_secs_f64()).arg(1).arg(&self.key).arg("MIN");
            pop.arg("COUNT").arg(MESSAGES_PER_POP);
            match self.connection.query::<Value>(&pop, wait).await {
                Ok(answer) => return Ok(messages(answer)),
                // Redis before 7, or not permitted.
                Err(RedisFailure::Refused(_)) => self.pops_many = false,
                Err(failure) => return Err(failure),
            }
        }
        let mut pop = redis::cmd("BZPOPMIN");
        pop.arg(&self.key).arg(wait.as_secs_f64());
        let mut popped = messages(self.connection.query(&pop, wait).await?);
        if !popped.is_empty() {
            match self.pop_ready(MESSAGES_PER_POP - 1).await {
                Ok(more) => popped.extend(more),
                // The first is here all the same.
                Err(_) => self.broken = true,
            }
        }
        Ok(popped)
    }

    /// Pops what is there without waiting.
    async fn pop_ready(&mut self, count: usize) -> Result<Vec<MailboxMessage>, RedisFailure> {
        let mut pop = redis::cmd("ZPOPMIN");
        pop.arg(&self.key).arg(count);
        Ok(messages(self.connection.query(&pop, Duration::ZERO).await?))
    }
}

/// The members and scores of an answer, however deep in arrays: in that, BZMPOP, BZPOPMIN and ZPOPMIN differ,
/// as do RESP2 and RESP3. A key in front of them is followed by no score.
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
