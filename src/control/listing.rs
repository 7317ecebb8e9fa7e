//! Lists over all nodes: the rows of every thread of every node, in one order, one part at a time.
//!
//! Each thread, each node and the final answer have at most `limit` rows: the first ones after `after`. Invariant:
//! a row that is left out sorts after every row that is included, so that the next part continues without a gap
//! after the last row.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::explain::{Concerning, ConnectionDetails, Details, ErrorRow, GenerationRow};
use super::part::{Part, Row};
use crate::protocol::{ChannelName, ConnectionId, UserId};

/// The most bytes of rows in one node's reply.
pub(super) const MAX_PART_BYTES: usize = 512 * 1024;

/// Longer user names are truncated to this many bytes.
const MAX_TEXT_BYTES: usize = 512;

/// A query for a list over all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "lowercase")]
pub enum Listing {
    Connections(Connections),
    Channels(Channels),
    Details(Details),
    Generations(Concerning),
    Errors(Concerning),
}

/// A query for open connections. A connection is listed if it matches all fields that are set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    pub user_id: Option<UserId>,
    pub channel: Option<ChannelName>,
    /// The path pattern of their route.
    pub route: Option<String>,
    /// If set, only this node lists its connections.
    pub node: Option<String>,
    pub after: Option<ConnectionId>,
    pub limit: usize,
}

/// A query for channels that have connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channels {
    /// If set, only this channel is listed.
    pub name: Option<ChannelName>,
    /// The prefix of the names of the listed channels.
    pub prefix: String,
    pub after: Option<ChannelName>,
    pub limit: usize,
}

/// One open connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionRow {
    pub connection_id: ConnectionId,
    pub user_id: Option<UserId>,
    pub username: Option<Box<str>>,
    /// `None` if its route has none.
    pub channel: Option<ChannelName>,
    /// The path pattern of its route.
    pub route: Box<str>,
    pub node: Box<str>,
    /// The client's address, as the gateway knows it.
    pub address: IpAddr,
    /// When the connection was opened, in Unix seconds.
    pub connected_at: u64,
    /// When its credentials expire, in Unix seconds.
    pub expires_at: Option<u64>,
    /// The bytes in its send queue.
    pub send_queue_bytes: u64,
}

/// One channel that has connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelRow {
    pub channel: ChannelName,
    pub connections: u64,
}

/// A part of a list of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListPart {
    Connections(Part<ConnectionRow>),
    Channels(Part<ChannelRow>),
    Details(Part<ConnectionDetails>),
    Generations(Part<GenerationRow>),
    Errors(Part<ErrorRow>),
}

impl Row for ConnectionRow {
    type Key = ConnectionId;

    fn key(&self) -> ConnectionId {
        self.connection_id
    }

    /// The same connection was reported twice, so there is nothing to add.
    fn merge(&mut self, _same: Self) {}
}

impl Row for ChannelRow {
    type Key = ChannelName;

    fn key(&self) -> ChannelName {
        self.channel.clone()
    }

    fn merge(&mut self, other: Self) {
        self.connections = self.connections.saturating_add(other.connections);
    }
}

impl Connections {
    /// Whether a connection with this id comes after the previous part.
    pub fn is_after(&self, id: ConnectionId) -> bool {
        self.after.is_none_or(|after| id > after)
    }
}

impl Channels {
    /// Whether `name` matches the query and comes after the previous part.
    pub fn matches(&self, name: &ChannelName) -> bool {
        self.after.as_ref().is_none_or(|after| name > after)
            && self.name.as_ref().is_none_or(|wanted| wanted == name)
            && name.as_str().starts_with(&self.prefix)
    }
}

impl Listing {
    pub(super) fn limit(&self) -> usize {
        match self {
            Self::Connections(query) => query.limit,
            Self::Channels(query) => query.limit,
            Self::Details(query) => query.limit,
            Self::Generations(query) | Self::Errors(query) => query.limit,
        }
    }

    /// Whether the query is for another node than `node`.
    pub(super) fn excludes(&self, node: &str) -> bool {
        match self {
            Self::Connections(query) => query.node.as_ref().is_some_and(|wanted| wanted != node),
            _ => false,
        }
    }

    /// An answer without rows.
    pub(super) fn empty(&self) -> ListPart {
        match self {
            Self::Connections(_) => ListPart::Connections(Part::default()),
            Self::Channels(_) => ListPart::Channels(Part::default()),
            Self::Details(_) => ListPart::Details(Part::default()),
            Self::Generations(_) => ListPart::Generations(Part::default()),
            Self::Errors(_) => ListPart::Errors(Part::default()),
        }
    }

    /// Merges parts of this list. Parts of another kind are ignored.
    pub(super) fn merge(&self, parts: impl Iterator<Item = ListPart>) -> ListPart {
        let limit = self.limit();
        match self {
            Self::Connections(_) => ListPart::Connections(merge(parts, limit)),
            Self::Channels(_) => ListPart::Channels(merge(parts, limit)),
            Self::Details(_) => ListPart::Details(merge(parts, limit)),
            Self::Generations(_) => ListPart::Generations(merge(parts, limit)),
            Self::Errors(_) => ListPart::Errors(merge(parts, limit)),
        }
    }

    /// Parses the answer of another node; `None` if it is not valid.
    pub(super) fn read(&self, data: &RawValue) -> Option<ListPart> {
        let data = data.get();
        Some(match self {
            Self::Connections(_) => ListPart::Connections(serde_json::from_str(data).ok()?),
            Self::Channels(_) => ListPart::Channels(serde_json::from_str(data).ok()?),
            Self::Details(_) => ListPart::Details(serde_json::from_str(data).ok()?),
            Self::Generations(_) => ListPart::Generations(serde_json::from_str(data).ok()?),
            Self::Errors(_) => ListPart::Errors(serde_json::from_str(data).ok()?),
        })
    }
}

fn merge<R: ListRow>(parts: impl Iterator<Item = ListPart>, limit: usize) -> Part<R> {
    Part::merge(parts.filter_map(R::part).collect(), limit)
}

/// A row of a [`ListPart`].
pub(super) trait ListRow: Row {
    /// The part, if its rows are of this kind.
    fn part(part: ListPart) -> Option<Part<Self>>;
}

macro_rules! list_rows {
    ($($row:ty => $kind:ident),+ $(,)?) => {
        $(impl ListRow for $row {
            fn part(part: ListPart) -> Option<Part<Self>> {
                match part {
                    ListPart::$kind(part) => Some(part),
                    _ => None,
                }
            }
        })+
    };
}

list_rows! {
    ConnectionRow => Connections,
    ChannelRow => Channels,
    ConnectionDetails => Details,
    GenerationRow => Generations,
    ErrorRow => Errors,
}

impl ListPart {
    pub(super) fn to_json(&self) -> Box<RawValue> {
        let json = match self {
            Self::Connections(part) => part.to_json(MAX_PART_BYTES),
            Self::Channels(part) => part.to_json(MAX_PART_BYTES),
            Self::Details(part) => part.to_json(MAX_PART_BYTES),
            Self::Generations(part) => part.to_json(MAX_PART_BYTES),
            Self::Errors(part) => part.to_json(MAX_PART_BYTES),
        };
        RawValue::from_string(json).expect("a part serializes to valid JSON")
    }
}

/// Truncates `text` to at most [`MAX_TEXT_BYTES`], at a character boundary.
pub fn truncate(text: &str) -> Box<str> {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}

#[cfg(test)]
mod tests;
