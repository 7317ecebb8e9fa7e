//! What all nodes know about a connection, a user or a channel: the rows of the lists that explain it.
//!
//! Rows hold ids, names, numbers and labels, never credentials or texts of messages.

use serde::{Deserialize, Serialize};

use super::Target;
use super::listing::ConnectionRow;
use super::part::Row;
use crate::protocol::{ChannelName, ConnectionId, Params, Position, UserId};

/// A query for all about the connections of a target. The answer also has their number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    pub target: Target,
    pub limit: usize,
}

/// A query for what concerns a target, or one of these channels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concerning {
    pub target: Target,
    /// The channels of the target's connections.
    pub channels: Vec<ChannelName>,
    pub limit: usize,
}

/// All about one open connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionDetails {
    #[serde(flatten)]
    pub row: ConnectionRow,
    /// The origin of the page that connected.
    pub origin: Option<Box<str>>,
    /// The kind of its credentials.
    pub credentials: Box<str>,
    /// When it is closed for its credentials or `max_session`, in Unix seconds.
    pub closes_at: Option<u64>,
    /// The upstream of its route.
    pub upstream: Option<Box<str>>,
    pub send_queue: QueueStatus,
    pub inbox: InboxStatus,
    /// Whether it is being sent its channel's history.
    #[serde(rename = "replaying")]
    pub is_replaying: bool,
    /// The position after which it began to receive its channel; `None` if the channel keeps no history.
    pub began_after: Option<ChannelPosition>,
    /// The last publication that was written to it in full; `None` as above, or while its history is being sent.
    pub written_up_to: Option<ChannelPosition>,
    /// The compression that it has negotiated; `None` = none.
    #[serde(default)]
    pub compression: Option<Box<str>>,
    /// Whether it is a member of its channel's presence.
    #[serde(rename = "present")]
    pub is_present: bool,
    /// The bytes of messages, queues and forwarded headers, besides the connection itself.
    pub memory_bytes: u64,
    /// The limits of the connection and of its address.
    pub limits: Vec<LocalLimitStatus>,
    /// The parameters of its path by which limits of its user are counted, and no others.
    #[serde(default, skip_serializing_if = "Params::is_empty")]
    pub limit_params: Params,
}

/// What waits to be written to a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStatus {
    pub messages: u64,
    pub bytes: u64,
    pub max_messages: u64,
    pub max_bytes: u64,
    /// Since when its client has not taken everything, in Unix seconds; `None` if it has.
    pub since: Option<u64>,
    /// Whether publications are held back until an answer or a history is sent.
    #[serde(rename = "held")]
    pub is_held: bool,
}

/// The messages of a connection that are not relayed yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxStatus {
    pub waiting: u64,
    /// The bytes that wait or are on their way to the upstream.
    pub bytes: u64,
    /// Whether a message is on its way to the upstream, or waits for its turn.
    #[serde(rename = "relaying")]
    pub is_relaying: bool,
}

/// A position in the history of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelPosition {
    pub epoch: Box<str>,
    pub offset: u64,
}

impl From<Position> for ChannelPosition {
    fn from(position: Position) -> Self {
        Self { epoch: position.epoch.to_string().into(), offset: position.offset }
    }
}

/// The status of a limit of one connection, or of its address on its node. Times are in seconds, rounded up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalLimitStatus {
    pub limit: Box<str>,
    pub max: u64,
    pub used: u64,
    pub remaining: u64,
    pub retry_after: u64,
    pub reset_after: u64,
}

/// A reply in progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationRow {
    pub task_id: Box<str>,
    pub channel: ChannelName,
    /// The path pattern of the route.
    pub route: Box<str>,
    pub upstream: Box<str>,
    /// The node that publishes or monitors the reply.
    pub node: Box<str>,
    /// Whether the upstream streams it in its answer; otherwise a worker publishes it.
    pub streams: bool,
    /// The connection that asked, if this node relayed its message.
    pub connection_id: Option<ConnectionId>,
    pub user_id: Option<UserId>,
    /// In Unix seconds.
    pub began_at: u64,
    /// When its last event came, in Unix seconds; `None` if none has come.
    pub last_event_at: Option<u64>,
}

/// A recent error. Each thread remembers a few hundred.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorRow {
    /// In Unix milliseconds.
    pub at_ms: u64,
    pub node: Box<str>,
    /// Tells apart what happened in one millisecond.
    pub number: u64,
    /// What it is about: `handshake`, `answer`, `reply` or `close`.
    pub about: Box<str>,
    pub code: Box<str>,
    pub connection_id: Option<ConnectionId>,
    pub user_id: Option<UserId>,
    pub channel: Option<ChannelName>,
    pub task_id: Option<Box<str>>,
}

impl Row for ConnectionDetails {
    type Key = ConnectionId;

    fn key(&self) -> ConnectionId {
        self.row.connection_id
    }

    /// The same connection was reported twice, so there is nothing to add.
    fn merge(&mut self, _same: Self) {}
}

impl Row for GenerationRow {
    type Key = (u64, ChannelName, Box<str>);

    /// The oldest first.
    fn key(&self) -> Self::Key {
        (self.began_at, self.channel.clone(), self.task_id.clone())
    }

    /// Two nodes monitor the reply for the moment in which one takes it over.
    fn merge(&mut self, _same: Self) {}
}

impl Row for ErrorRow {
    type Key = (std::cmp::Reverse<u64>, Box<str>, std::cmp::Reverse<u64>, Option<ConnectionId>);

    /// The latest first. Threads of a node may use the same number.
    fn key(&self) -> Self::Key {
        let (at, number) = (std::cmp::Reverse(self.at_ms), std::cmp::Reverse(self.number));
        (at, self.node.clone(), number, self.connection_id)
    }

    /// One is kept of two that happened in the same millisecond on two threads.
    fn merge(&mut self, _same: Self) {}
}

impl Concerning {
    pub fn has_channel(&self, channel: &ChannelName) -> bool {
        self.channels.contains(channel)
            || matches!(&self.target, Target::Channel(name) if name == channel)
    }
}
