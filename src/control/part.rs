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
pub trait Row: Sized + Serialize + DeserializeOwned {
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
mod tests;
