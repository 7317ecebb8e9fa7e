//! Lists of what all nodes have: rows of every thread of every node, in one order, a part at a time.
//!
//! Each thread, each node and the whole answer with at most `limit` rows, the first after `after`. Invariant:
//! a row that is left out comes after every row that is not, so that the part after the last row continues
//! without a gap.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::part::{Part, Row};
use crate::protocol::{ChannelName, ConnectionId, UserId};

/// The most bytes of the rows that one node sends.
pub(super) const MAX_PART_BYTES: usize = 512 * 1024;

/// Longer names of users are sent without their end.
const MAX_TEXT_BYTES: usize = 512;

/// A query for a list of what the nodes have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "lowercase")]
pub enum Listing {
    Connections(Connections),
    Channels(Channels),
}

/// Which open connections are listed: those that match all fields that are given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    pub user_id: Option<UserId>,
    pub channel: Option<ChannelName>,
    /// The path pattern of their route.
    pub route: Option<String>,
    /// The only node that lists its own.
    pub node: Option<String>,
    pub after: Option<ConnectionId>,
    pub limit: usize,
}

/// Which channels are listed, of those that have connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channels {
    /// The only channel.
    pub name: Option<ChannelName>,
    /// The beginning of their names.
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
    pub channel: ChannelName,
    /// The path pattern of its route.
    pub route: Box<str>,
    pub node: Box<str>,
    /// The client's address, as the gateway knows it.
    pub address: IpAddr,
    /// When it was opened, in Unix seconds.
    pub connected_at: u64,
    /// When its credentials expire, in Unix seconds.
    pub expires_at: Option<u64>,
    /// Bytes that wait to be written to it.
    pub send_queue_bytes: u64,
}

/// One channel that has connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelRow {
    pub channel: ChannelName,
    pub connections: u64,
}

/// A part of either kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Connections(Part<ConnectionRow>),
    Channels(Part<ChannelRow>),
}

impl Row for ConnectionRow {
    type Key = ConnectionId;

    fn key(&self) -> ConnectionId {
        self.connection_id
    }

    /// It was counted twice.
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
    /// Whether a connection with this id may be in the part that is requested.
    pub fn is_after(&self, id: ConnectionId) -> bool {
        self.after.is_none_or(|after| id > after)
    }
}

impl Channels {
    /// Whether `name` may be in the part that is requested.
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
        }
    }

    /// Whether the node with the name `node` is not to list anything.
    pub(super) fn excludes(&self, node: &str) -> bool {
        match self {
            Self::Connections(query) => query.node.as_ref().is_some_and(|wanted| wanted != node),
            Self::Channels(_) => false,
        }
    }

    /// The answer without any rows.
    pub(super) fn empty(&self) -> Found {
        match self {
            Self::Connections(_) => Found::Connections(Part::default()),
            Self::Channels(_) => Found::Channels(Part::default()),
        }
    }

    /// Merges parts of this list; those of the other kind are left out.
    pub(super) fn merge(&self, parts: impl Iterator<Item = Found>) -> Found {
        let limit = self.limit();
        match self {
            Self::Connections(_) => {
                let parts = parts.filter_map(|found| match found {
                    Found::Connections(part) => Some(part),
                    Found::Channels(_) => None,
                });
                Found::Connections(Part::merge(parts.collect(), limit))
            }
            Self::Channels(_) => {
                let parts = parts.filter_map(|found| match found {
                    Found::Channels(part) => Some(part),
                    Found::Connections(_) => None,
                });
                Found::Channels(Part::merge(parts.collect(), limit))
            }
        }
    }

    /// Reads the answer of another node; `None` = it cannot be parsed.
    pub(super) fn read(&self, data: &RawValue) -> Option<Found> {
        let data = data.get();
        Some(match self {
            Self::Connections(_) => Found::Connections(serde_json::from_str(data).ok()?),
            Self::Channels(_) => Found::Channels(serde_json::from_str(data).ok()?),
        })
    }
}

impl Found {
    pub(super) fn to_json(&self) -> Box<RawValue> {
        let json = match self {
            Self::Connections(part) => part.to_json(MAX_PART_BYTES),
            Self::Channels(part) => part.to_json(MAX_PART_BYTES),
        };
        RawValue::from_string(json).expect("rows of JSON make JSON")
    }
}

/// `text` as a row contains it: truncated at a character where it is longer than [`MAX_TEXT_BYTES`].
pub fn truncate(text: &str) -> Box<str> {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_truncated_at_a_character() {
        assert_eq!(truncate(&"ä".repeat(400)).len(), MAX_TEXT_BYTES);
        assert_eq!(&*truncate("ana"), "ana");
    }
}
