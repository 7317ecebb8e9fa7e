//! The answer of `GET /v1/explain`, as far as it is shown.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
pub struct Answer {
    pub known: bool,
    pub connections: Vec<Connection>,
    pub total_connections: u64,
    pub generations: Vec<Generation>,
    pub more_generations: bool,
    pub errors: Vec<Error>,
    pub more_errors: bool,
    /// `None` if the engine did not answer.
    pub limits: Option<Vec<UserLimits>>,
    /// `None` if the engine did not answer.
    pub channels: Option<Vec<Channel>>,
    pub complete: bool,
    /// Whether only the node that was called has answered, because the engine is unavailable.
    pub local: bool,
    pub nodes: Nodes,
    /// Nodes that have not answered, as far as they are known.
    pub missing_nodes: Vec<String>,
}

#[derive(Deserialize)]
pub struct Nodes {
    pub answered: u64,
    pub asked: u64,
}

#[derive(Deserialize)]
pub struct Connection {
    pub connection_id: String,
    /// A number, a text, or `null`.
    pub user_id: Value,
    pub username: Option<String>,
    pub channel: Option<String>,
    pub route: String,
    pub node: String,
    pub address: String,
    pub connected_at: u64,
    pub expires_at: Option<u64>,
    pub origin: Option<String>,
    pub credentials: String,
    pub closes_at: Option<u64>,
    pub upstream: Option<String>,
    pub send_queue: Queue,
    pub inbox: Inbox,
    pub replaying: bool,
    pub began_after: Option<Position>,
    pub written_up_to: Option<Position>,
    /// A node of an older version does not say it.
    #[serde(default)]
    pub compression: Option<Box<str>>,
    pub present: bool,
    pub memory_bytes: u64,
    pub limits: Vec<LocalLimit>,
}

#[derive(Deserialize)]
pub struct Queue {
    pub messages: u64,
    pub bytes: u64,
    pub max_messages: u64,
    pub max_bytes: u64,
    pub since: Option<u64>,
    pub held: bool,
}

#[derive(Deserialize)]
pub struct Inbox {
    pub waiting: u64,
    pub bytes: u64,
    pub relaying: bool,
}

#[derive(Deserialize)]
pub struct Position {
    pub epoch: String,
    pub offset: u64,
}

#[derive(Deserialize)]
pub struct LocalLimit {
    pub limit: String,
    #[serde(flatten)]
    pub numbers: Numbers,
}

#[derive(Deserialize)]
pub struct Numbers {
    pub max: u64,
    pub remaining: u64,
    pub retry_after: u64,
}

#[derive(Deserialize)]
pub struct Generation {
    pub task_id: String,
    pub channel: String,
    pub upstream: String,
    pub node: String,
    pub streams: bool,
    pub connection_id: Option<String>,
    pub user_id: Value,
    pub began_at: u64,
    pub last_event_at: Option<u64>,
}

#[derive(Deserialize)]
pub struct Error {
    pub at_ms: u64,
    pub about: String,
    pub code: String,
    pub connection_id: Option<String>,
    pub user_id: Value,
    pub channel: Option<String>,
    pub task_id: Option<String>,
}

#[derive(Deserialize)]
pub struct UserLimits {
    pub user_id: String,
    pub route: String,
    /// The parameters of a path by which limits are counted.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
    pub limits: Vec<UserLimit>,
}

#[derive(Deserialize)]
pub struct UserLimit {
    pub limit: String,
    pub kind: String,
    /// `None` if the limit is counted by a part of the path of a connection, and none is open.
    pub standing: Option<Numbers>,
}

#[derive(Deserialize)]
pub struct Channel {
    pub channel: String,
    pub history: bool,
    pub epoch: Option<String>,
    pub offset: Option<u64>,
}
