//! What commands that only ask bring back: rows of every thread of every node, in one order, a part at a
//! time.
//!
//! Each thread, each node and the whole answer at most `limit` rows, the first after `after`. Invariant: a
//! row that is left out comes after every row that is not, so that the part after the last row goes on
//! without a gap.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::protocol::{ChannelName, ConnectionId, UserId};

/// The rows of one node, as they travel.
pub(super) const MAX_PART_BYTES: usize = 512 * 1024;

/// Longer names of users travel without their end.
const MAX_TEXT_BYTES: usize = 512;

/// A command that changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "lowercase")]
pub enum Listing {
    Connections(Connections),
    Channels(Channels),
}

/// Which open connections: those that are all of what is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    pub user_id: Option<UserId>,
    pub channel: Option<ChannelName>,
    /// The path pattern.
    pub route: Option<String>,
    /// Of this node alone.
    pub node: Option<String>,
    pub after: Option<ConnectionId>,
    pub limit: usize,
}

/// Which channels, of those that have connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channels {
    /// This one alone.
    pub name: Option<ChannelName>,
    /// What their names begin with.
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
    /// The path pattern.
    pub route: Box<str>,
    pub node: Box<str>,
    /// The client's, as the gateway knows it.
    pub address: IpAddr,
    /// Unix seconds.
    pub connected_at: u64,
    /// Unix seconds at which its credentials end.
    pub expires_at: Option<u64>,
    /// What waits to be written to it.
    pub send_queue_bytes: u64,
}

/// One channel that has connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelRow {
    pub channel: ChannelName,
    pub connections: u64,
}

/// Rows in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part<R> {
    pub rows: Vec<R>,
    /// There are others behind the last.
    pub more: bool,
}

/// A part of either kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Connections(Part<ConnectionRow>),
    Channels(Part<ChannelRow>),
}

/// What a list is made of.
pub trait Row: Serialize + DeserializeOwned {
    type Key: Ord + Clone;

    fn key(&self) -> Self::Key;

    /// Another thread, or another node, has the same.
    fn add(&mut self, other: Self);
}

impl Row for ConnectionRow {
    type Key = ConnectionId;

    fn key(&self) -> ConnectionId {
        self.connection_id
    }

    /// It was seen twice.
    fn add(&mut self, _same: Self) {}
}

impl Row for ChannelRow {
    type Key = ChannelName;

    fn key(&self) -> ChannelName {
        self.channel.clone()
    }

    fn add(&mut self, other: Self) {
        self.connections = self.connections.saturating_add(other.connections);
    }
}

impl Connections {
    /// Whether a connection with this id may be in the part that is asked for.
    pub fn is_behind(&self, id: ConnectionId) -> bool {
        self.after.is_none_or(|after| id > after)
    }
}

impl Channels {
    /// Whether `name` may be in the part that is asked for.
    pub fn has(&self, name: &ChannelName) -> bool {
        self.after.as_ref().is_none_or(|after| name > after)
            && self.name.as_ref().is_none_or(|wanted| wanted == name)
            && name.as_str().starts_with(&self.prefix)
    }
}

impl<R> Default for Part<R> {
    fn default() -> Self {
        Self { rows: Vec::new(), more: false }
    }
}

/// The first rows of a list, while it is gathered: never more than `limit` are kept.
pub struct Gathering<R: Row> {
    rows: BTreeMap<R::Key, R>,
    limit: usize,
    more: bool,
}

impl<R: Row> Gathering<R> {
    pub fn new(limit: usize) -> Self {
        Self { rows: BTreeMap::new(), limit, more: false }
    }

    /// Whether a row with this key would be kept; most are not made for nothing.
    pub fn would_keep(&mut self, key: &R::Key) -> bool {
        let full = self.rows.len() >= self.limit;
        let keeps = !full || self.rows.last_key_value().is_some_and(|(last, _)| key <= last);
        self.more |= !keeps;
        keeps
    }

    pub fn take(&mut self, row: R) {
        let key = row.key();
        match self.rows.get_mut(&key) {
            Some(found) => found.add(row),
            None => {
                self.rows.insert(key, row);
                if self.rows.len() > self.limit {
                    self.rows.pop_last();
                    self.more = true;
                }
            }
        }
    }

    pub fn finish(self) -> Part<R> {
        Part { rows: self.rows.into_values().collect(), more: self.more }
    }
}

impl<R: Row> Part<R> {
    /// One part out of several. What comes behind the end of one that was cut is left out: there that one
    /// might have had more.
    pub(super) fn merge(parts: Vec<Self>, limit: usize) -> Self {
        let cut = parts.iter().filter(|part| part.more);
        let ends = cut.map(|part| part.rows.last().map(R::key)).min();
        let mut all = Gathering::new(limit);
        for row in parts.into_iter().flat_map(|part| part.rows) {
            match &ends {
                Some(end) if end.as_ref().is_none_or(|end| row.key() > *end) => all.more = true,
                _ => all.take(row),
            }
        }
        all.more |= ends.is_some();
        all.finish()
    }

    /// As it travels; what is over `max_bytes` is left for the next part.
    fn to_json(&self, max_bytes: usize) -> String {
        let mut json = String::from(r#"{"rows":["#);
        let mut more = self.more;
        for (number, row) in self.rows.iter().enumerate() {
            let row = serde_json::to_string(row).expect("texts and numbers serialize");
            if json.len() + row.len() + 64 > max_bytes {
                more = true;
                break;
            }
            if number > 0 {
                json.push(',');
            }
            json.push_str(&row);
        }
        json.push_str(&format!(r#"],"more":{more}}}"#));
        json
    }
}

impl Listing {
    pub(super) fn limit(&self) -> usize {
        match self {
            Self::Connections(asked) => asked.limit,
            Self::Channels(asked) => asked.limit,
        }
    }

    /// Whether the node called `node` has none of it.
    pub(super) fn is_of_others(&self, node: &str) -> bool {
        match self {
            Self::Connections(asked) => asked.node.as_ref().is_some_and(|wanted| wanted != node),
            Self::Channels(_) => false,
        }
    }

    /// What is answered where there is nothing.
    pub(super) fn nothing(&self) -> Found {
        match self {
            Self::Connections(_) => Found::Connections(Part::default()),
            Self::Channels(_) => Found::Channels(Part::default()),
        }
    }

    /// Parts of this listing as one; those of another are left out.
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

    /// What another node has found; `None` = it is not understood.
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

/// `text` as a row has it: cut at a character where it is longer than a name is.
pub fn short(text: &str) -> Box<str> {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, connections: u64) -> ChannelRow {
        ChannelRow { channel: ChannelName::new(name).unwrap(), connections }
    }

    fn part(names: &[&str], more: bool) -> Part<ChannelRow> {
        Part { rows: names.iter().map(|name| row(name, 1)).collect(), more }
    }

    fn names(part: &Part<ChannelRow>) -> Vec<&str> {
        part.rows.iter().map(|row| row.channel.as_str()).collect()
    }

    #[test]
    fn the_first_rows_are_kept_in_any_order_of_coming() {
        let mut all = Gathering::new(3);
        for name in ["d", "a", "e", "b", "a", "c", "e"] {
            let row = row(name, 1);
            if all.would_keep(&row.channel) {
                all.take(row);
            }
        }
        let part = all.finish();
        assert_eq!((names(&part), part.more), (vec!["a", "b", "c"], true));
        assert_eq!(part.rows[0].connections, 2);
    }

    #[test]
    fn nothing_is_listed_behind_a_part_that_was_cut() {
        for (parts, limit, expected, more) in [
            (vec![part(&["a", "c"], false), part(&["b"], false)], 9, vec!["a", "b", "c"], false),
            (vec![part(&["a", "c"], false), part(&["b"], true)], 9, vec!["a", "b"], true),
            (vec![part(&["a", "c"], true), part(&["b", "d"], true)], 9, vec!["a", "b", "c"], true),
            (vec![part(&["a", "b"], false), part(&["b", "c"], false)], 2, vec!["a", "b"], true),
            (vec![part(&["a"], false), part(&[], true)], 2, vec![], true),
            (vec![], 2, vec![], false),
        ] {
            let merged = Part::merge(parts, limit);
            assert_eq!((names(&merged), merged.more), (expected, more));
        }
    }

    #[test]
    fn page_after_page_has_every_row_once() {
        let all: Vec<String> = (0..50).map(|n| format!("c{n:02}")).collect();
        for limit in [1, 3, 7, 50] {
            let (mut seen, mut after) = (Vec::new(), None::<ChannelName>);
            loop {
                let asked = Channels { after: after.clone(), limit, ..Channels::default() };
                let threads = (0..3).map(|thread| {
                    let mut rows = Gathering::new(limit);
                    for (n, name) in all.iter().enumerate() {
                        let row = row(name, 1);
                        // The first of ten is on all threads.
                        let is_here = n % 3 == thread || n % 10 == 0;
                        if is_here && asked.has(&row.channel) && rows.would_keep(&row.channel) {
                            rows.take(row);
                        }
                    }
                    rows.finish()
                });
                let page = Part::merge(threads.collect(), limit);
                assert!(page.rows.len() <= limit);
                after = page.rows.last().map(|row| row.channel.clone());
                seen.extend(page.rows);
                if !page.more {
                    break;
                }
            }
            let names: Vec<_> = seen.iter().map(|row| row.channel.as_str().to_owned()).collect();
            assert_eq!(names, all, "limit {limit}");
            assert!(
                seen.iter()
                    .enumerate()
                    .all(|(n, row)| { row.connections == if n % 10 == 0 { 3 } else { 1 } })
            );
        }
    }

    #[test]
    fn a_part_is_bounded_in_bytes() {
        let names: Vec<String> = (0..100).map(|n| format!("{n:03}{}", "x".repeat(200))).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let json = part(&names, false).to_json(4096);
        assert!(json.len() <= 4096, "{}", json.len());
        let read: Part<ChannelRow> = serde_json::from_str(&json).unwrap();
        assert!(read.more && (10..20).contains(&read.rows.len()));
        assert_eq!(short(&"ä".repeat(400)).len(), MAX_TEXT_BYTES);
        assert_eq!(&*short("ana"), "ana");
    }
}
