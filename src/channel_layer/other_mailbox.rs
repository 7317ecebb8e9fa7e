//! The mailbox of another node, which is read without removing anything: only its own node confirms messages.

use redis::{Script, ScriptInvocation, Value};

use super::mailbox::read_messages;
use super::{MailboxMessage, MailboxNames};

/// Reads another node's mailbox from a position on.
pub(super) const READ_ON: &str = include_str!("read_on.lua");

/// How far another node's mailbox has been read. The default is its beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailboxPosition {
    /// How many messages there were up to the last one that was read.
    count: usize,
    /// The digest of that message.
    last: String,
    /// The batch that the node had taken and not confirmed.
    batch: String,
}

/// What another node has not confirmed.
#[derive(Debug, PartialEq)]
pub struct Unconfirmed {
    /// The messages since the position of the call, oldest first. Some may have been read before.
    pub messages: Vec<MailboxMessage>,
    /// Where the next read goes on.
    pub position: MailboxPosition,
    /// Whether the mailbox is full, so that the backend may have dropped further messages.
    pub is_full: bool,
}

/// The answer of [`READ_ON`]: count, last, number of all messages, batch, the mailbox's messages and the batch's.
pub(super) type Answer = (usize, String, usize, String, Value, Value);

/// A call of `script`, which is [`READ_ON`], that reads the mailbox of `names` from `position` on. `capacity` is the most messages that the
/// backend puts into a mailbox.
pub(super) fn call<'a>(
    script: &'a Script,
    names: &MailboxNames,
    position: &MailboxPosition,
    capacity: usize,
) -> ScriptInvocation<'a> {
    let MailboxPosition { count, last, batch } = position;
    let mut call = script.prepare_invoke();
    call.key(names.mailbox()).key(names.taken());
    call.arg(*count).arg(last).arg(batch).arg(capacity);
    call
}

pub(super) fn read(answer: Answer, capacity: usize) -> Unconfirmed {
    let (count, last, all, batch, waiting, taken) = answer;
    let mut messages = read_messages(waiting);
    // The name of the batch is kept under the empty name.
    messages.extend(read_messages(taken).into_iter().filter(|taken| !taken.payload.is_empty()));
    messages.sort_by(|one, other| one.score.total_cmp(&other.score));
    let position = MailboxPosition { count, last, batch };
    Unconfirmed { messages, position, is_full: all >= capacity }
}

#[cfg(test)]
impl MailboxPosition {
    /// A position after so many messages.
    pub fn at(count: usize) -> Self {
        Self { count, ..Self::default() }
    }
}

#[cfg(test)]
mod tests;
