//! A part of a list: its first rows, gathered from threads and nodes, and its JSON representation.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Rows in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part<R> {
    pub rows: Vec<R>,
    /// Whether there are more rows after the last.
    pub more: bool,
}

/// An element of a list.
pub trait Row: Serialize + DeserializeOwned {
    type Key: Ord + Clone;

    fn key(&self) -> Self::Key;

    /// Adds the row of another thread or node with the same key.
    fn merge(&mut self, other: Self);
}

impl<R> Default for Part<R> {
    fn default() -> Self {
        Self { rows: Vec::new(), more: false }
    }
}

/// Gathers the first rows of a list, at most `limit`.
pub struct Gathering<R: Row> {
    rows: BTreeMap<R::Key, R>,
    limit: usize,
    more: bool,
}

impl<R: Row> Gathering<R> {
    pub fn new(limit: usize) -> Self {
        Self { rows: BTreeMap::new(), limit, more: false }
    }

    /// Returns whether a row with this key would be kept, so that the caller builds only rows that are needed.
    /// Otherwise records that there are more rows.
    pub fn offer(&mut self, key: &R::Key) -> bool {
        let full = self.rows.len() >= self.limit;
        let keeps = !full || self.rows.last_key_value().is_some_and(|(last, _)| key <= last);
        self.more |= !keeps;
        keeps
    }

    pub fn add(&mut self, row: R) {
        let key = row.key();
        match self.rows.get_mut(&key) {
            Some(same) => same.merge(row),
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
    /// Merges several parts into one. Rows after the last row of a part that has more are left out, since that part
    /// may have more rows before them.
    pub(super) fn merge(parts: Vec<Self>, limit: usize) -> Self {
        let incomplete = parts.iter().filter(|part| part.more);
        let ends = incomplete.map(|part| part.rows.last().map(R::key)).min();
        let mut all = Gathering::new(limit);
        for row in parts.into_iter().flat_map(|part| part.rows) {
            match &ends {
                Some(end) if end.as_ref().is_none_or(|end| row.key() > *end) => all.more = true,
                _ => all.add(row),
            }
        }
        all.more |= ends.is_some();
        all.finish()
    }

    /// Serializes the part. Rows beyond `max_bytes` are left for the next part.
    pub(super) fn to_json(&self, max_bytes: usize) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{ChannelRow, Channels};
    use crate::protocol::ChannelName;

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
    fn the_first_rows_are_kept_in_any_order_of_arrival() {
        let mut all = Gathering::new(3);
        for name in ["d", "a", "e", "b", "a", "c", "e"] {
            let row = row(name, 1);
            if all.offer(&row.channel) {
                all.add(row);
            }
        }
        let part = all.finish();
        assert_eq!((names(&part), part.more), (vec!["a", "b", "c"], true));
        assert_eq!(part.rows[0].connections, 2);
    }

    #[test]
    fn nothing_is_listed_after_a_part_that_has_more() {
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
                let query = Channels { after: after.clone(), limit, ..Channels::default() };
                let threads = (0..3).map(|thread| {
                    let mut rows = Gathering::new(limit);
                    for (n, name) in all.iter().enumerate() {
                        let row = row(name, 1);
                        // One row of ten exists on all threads.
                        let is_here = n % 3 == thread || n % 10 == 0;
                        if is_here && query.matches(&row.channel) && rows.offer(&row.channel) {
                            rows.add(row);
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
    }
}
