//! The messages between nodes: commands to all nodes, and replies to the sender's node. They are JSON objects with
//! a version. A node does not answer a command of an unknown version or kind, so that the sender sees that it was
//! not executed there.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::listing::{Listing, MAX_PART_BYTES};
use super::{DebugCommand, Disconnect, NodeCommand};
use crate::protocol::ChannelName;

/// The version of the messages. It must be raised when an older node would misinterpret a message.
const VERSION: u32 = 1;

/// The most bytes of a command. Longer commands are neither sent nor read.
pub(super) const MAX_BYTES: usize = 16 * 1024;

/// The most bytes of a reply: the rows of a node and the other fields. Longer replies are not read.
pub(super) const MAX_REPLY_BYTES: usize = MAX_PART_BYTES + 1024;

/// A command with the fields that are sent along with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CommandEnvelope {
    /// Identifies the command in its replies.
    pub id: String,
    /// The node that the replies are sent to.
    pub from: String,
    pub command: NodeCommand,
}

/// The reply of one node to a command.
#[derive(Debug, Deserialize)]
pub(super) struct Reply {
    /// The id of the command.
    pub id: String,
    pub affected: u64,
    /// Whether all threads of that node have answered.
    pub complete: bool,
    /// The node that replies; `None` if it is of an earlier version.
    #[serde(default)]
    pub node: Option<String>,
    /// The answer to a command for a list.
    pub data: Option<Box<RawValue>>,
}

/// Why a message could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadError {
    TooLarge,
    /// The message has another version, or is a command of an unknown kind.
    Unknown,
    Malformed,
}

/// The fields that messages of every version have.
#[derive(Deserialize)]
struct Head<'a> {
    v: u32,
    /// The kind of a command. Replies have none.
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Envelope {
    id: String,
    from: String,
    /// The name on the wire is the one in earlier versions, which run along with this one during an update.
    #[serde(rename = "order")]
    command: Box<RawValue>,
}

#[derive(Deserialize)]
struct Cancel {
    channel: ChannelName,
    task_id: String,
}

impl CommandEnvelope {
    /// Serializes the message; `None` if it is too large.
    pub fn to_json(&self) -> Option<String> {
        let (kind, command) = match &self.command {
            NodeCommand::Disconnect(command) => ("disconnect", json!(command)),
            NodeCommand::Cancel { channel, task_id } => {
                ("cancel", json!({ "channel": channel, "task_id": task_id }))
            }
            NodeCommand::List(listing) => ("list", json!(listing)),
            NodeCommand::Debug(command) => ("debug", json!(command)),
        };
        let Self { id, from, .. } = self;
        let message =
            json!({ "v": VERSION, "kind": kind, "id": id, "from": from, "order": command });
        Some(message.to_string()).filter(|json| json.len() <= MAX_BYTES)
    }

    pub fn read(json: &[u8]) -> Result<Self, ReadError> {
        let head = head(json, MAX_BYTES)?;
        let kind = head.kind.ok_or(ReadError::Malformed)?;
        if !matches!(&*kind, "disconnect" | "cancel" | "list" | "debug") {
            return Err(ReadError::Unknown);
        }
        let malformed = |_| ReadError::Malformed;
        let Envelope { id, from, command } = serde_json::from_slice(json).map_err(malformed)?;
        if !is_id(&id) || !is_id(&from) {
            return Err(ReadError::Malformed);
        }
        let command = command.get();
        let command = match &*kind {
            "disconnect" => NodeCommand::Disconnect(
                serde_json::from_str::<Disconnect>(command).map_err(malformed)?,
            ),
            "debug" => NodeCommand::Debug(
                serde_json::from_str::<DebugCommand>(command).map_err(malformed)?,
            ),
            "list" => {
                NodeCommand::List(serde_json::from_str::<Listing>(command).map_err(malformed)?)
            }
            _ => {
                let Cancel { channel, task_id } =
                    serde_json::from_str(command).map_err(malformed)?;
                NodeCommand::Cancel { channel, task_id }
            }
        };
        Ok(Self { id, from, command })
    }
}

impl Reply {
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Message<'a> {
            v: u32,
            id: &'a str,
            affected: u64,
            complete: bool,
            node: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            data: Option<&'a RawValue>,
        }
        let Self { id, affected, complete, node, data } = self;
        let (node, data) = (node.as_deref(), data.as_deref());
        let (affected, complete) = (*affected, *complete);
        let message = Message { v: VERSION, id, affected, complete, node, data };
        serde_json::to_string(&message).expect("texts, numbers and JSON serialize")
    }

    pub fn read(json: &[u8]) -> Result<Self, ReadError> {
        head(json, MAX_REPLY_BYTES)?;
        serde_json::from_slice(json).map_err(|_| ReadError::Malformed)
    }
}

fn head(json: &[u8], max_bytes: usize) -> Result<Head<'_>, ReadError> {
    if json.len() > max_bytes {
        return Err(ReadError::TooLarge);
    }
    // serde would also accept an array with the fields in order.
    if json.first() != Some(&b'{') {
        return Err(ReadError::Malformed);
    }
    let head: Head<'_> = serde_json::from_slice(json).map_err(|_| ReadError::Malformed)?;
    if head.v == VERSION { Ok(head) } else { Err(ReadError::Unknown) }
}

/// Whether `text` is a valid id. Ids become part of a channel's name.
fn is_id(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests;
