//! Which nodes there are, so that a command which does not reach all of them is not reported as executed everywhere.
//!
//! Each node records in Redis that it is alive, on the connection on which it sends and receives commands. Since that
//! is a write, a node whose connection leads to a replica finds out before it sends anything. What a node has read is
//! remembered, so that a Redis that comes back without its data does not hide nodes that are still connecting.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::Script;

use crate::redis_link::{Needs, PubSubSender, RedisFailure};

/// A node that was not alive for this long is forgotten. Until then a command does not count as executed on all nodes
/// without its reply.
const LIFETIME: Duration = Duration::from_secs(60);

/// The interval at which a node records that it is alive, besides each time that it sends a command.
pub(super) const INTERVAL: Duration = Duration::from_secs(3);

const NODES: &str = include_str!("nodes.lua");

/// The nodes of one `key_prefix`.
pub(super) struct Nodes {
    key: String,
    node: String,
    script: Script,
    has_left: AtomicBool,
    /// When each node was last alive. Nodes that have left, and those that are forgotten, are removed.
    seen: Mutex<HashMap<String, Instant>>,
}

impl Nodes {
    /// `key` is where the nodes are kept in Redis, and `node` is this one.
    pub fn new(key: String, node: &str) -> Self {
        Self {
            key,
            node: node.to_owned(),
            script: Script::new(NODES),
            has_left: AtomicBool::new(false),
            seen: Mutex::default(),
        }
    }

    /// What is sent to Redis.
    pub fn needs(&self) -> Needs {
        Needs::default().script(NODES, &self.key, "")
    }

    /// Records in Redis that this node is alive or, after [`Nodes::leave`], that it has left. Returns the number of
    /// nodes that are alive.
    ///
    /// # Errors
    /// Redis does not answer, or is not the primary. If it refuses the write for another reason, the nodes that are
    /// remembered are counted.
    pub async fn renew(&self, sender: &PubSubSender) -> Result<u64, RedisFailure> {
        let mut call = self.script.key(&self.key);
        call.arg(&self.node).arg(u8::from(self.has_left.load(Ordering::Acquire)));
        call.arg(LIFETIME.as_millis() as u64);
        match sender.invoke::<Vec<(String, u64)>>(&call).await {
            Ok(listed) => Ok(self.count(listed, Instant::now())),
            Err(RedisFailure::Refused(error)) if error.code() != Some("READONLY") => {
                Ok(self.count(Vec::new(), Instant::now()))
            }
            Err(failure) => Err(failure),
        }
    }

    /// From now on, this node counts as one that has left.
    pub fn leave(&self) {
        self.has_left.store(true, Ordering::Release);
    }

    /// The nodes that were alive within the last minute, as far as this one knows.
    pub fn known(&self) -> Vec<String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, last| last.elapsed() < LIFETIME);
        seen.keys().cloned().collect()
    }

    fn count(&self, listed: Vec<(String, u64)>, now: Instant) -> u64 {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (node, age) in listed {
            if let Some(left) = node.strip_prefix('-') {
                seen.remove(left);
            } else if let Some(alive) = now.checked_sub(Duration::from_millis(age)) {
                let last = seen.entry(node).or_insert(alive);
                *last = alive.max(*last);
            }
        }
        seen.retain(|_, last| now.saturating_duration_since(*last) < LIFETIME);
        seen.len() as u64
    }
}

#[cfg(test)]
mod tests;
