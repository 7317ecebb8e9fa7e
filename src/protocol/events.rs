//! Events that the gateway itself writes, but for errors. What is published to a channel passes as it is.

use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use super::{ConnectionId, Params, Position, UserId};

fn place<S: Serializer>(position: &Option<Position>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    if let Some(Position { epoch, offset }) = position {
        map.serialize_entry("epoch", epoch)?;
        map.serialize_entry("offset", offset)?;
    }
    map.end()
}

/// Where a connection begins to hear its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Begin {
    /// The next publication of this connection follows this one. `None` = nothing is kept.
    #[serde(flatten, serialize_with = "place")]
    pub position: Option<Position>,
    /// To those who asked to resume: whether nothing is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovered: Option<bool>,
    /// To those who asked to resume: publications since theirs, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
}

/// The first frame of a connection: every path parameter under its own name, then who it is, then where
/// it begins.
pub fn connected(
    params: &Params,
    connection_id: ConnectionId,
    user_id: Option<&UserId>,
    begin: Option<&Begin>,
) -> String {
    #[derive(Serialize)]
    struct Connected<'a> {
        event: &'static str,
        #[serde(flatten)]
        params: &'a Params,
        connection_id: ConnectionId,
        user_id: Option<&'a UserId>,
        #[serde(flatten)]
        begin: Option<&'a Begin>,
    }
    serde_json::to_string(&Connected { event: "connected", params, connection_id, user_id, begin })
        .expect("strings and numbers serialize")
}

/// The answer to a `resume` frame.
pub fn resumed(begin: &Begin) -> String {
    #[derive(Serialize)]
    struct Resumed<'a> {
        event: &'static str,
        #[serde(flatten)]
        begin: &'a Begin,
    }
    serde_json::to_string(&Resumed { event: "resumed", begin })
        .expect("strings and numbers serialize")
}

/// A generation begins.
pub fn processing_started(task_id: &str) -> String {
    task_event("processing_started", task_id)
}

/// A generation that was asked to end.
pub fn cancelled(task_id: &str) -> String {
    task_event("cancelled", task_id)
}

/// A generation whose upstream ended it without a word.
pub fn complete(task_id: &str) -> String {
    task_event("complete", task_id)
}

fn task_event(event: &'static str, task_id: &str) -> String {
    #[derive(Serialize)]
    struct TaskEvent<'a> {
        event: &'static str,
        task_id: &'a str,
    }
    serde_json::to_string(&TaskEvent { event, task_id }).expect("strings serialize")
}

/// The `event` of a JSON object, where it has one.
pub fn event_name(json: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        event: Option<String>,
    }
    serde_json::from_slice::<Named>(json).ok()?.event
}

/// The answer to an application ping.
pub fn pong() -> &'static str {
    r#"{"event":"pong"}"#
}

/// The upstream has taken the message. `event` is `task_queued`, or what its upstream calls it.
pub fn task_queued(event: &str, task_id: &str, id: Option<&str>) -> String {
    TaskQueued { event, task_id, id, duplicate: None }.to_json()
}

/// The upstream took the message when it came first.
pub fn task_queued_before(event: &str, task_id: &str, id: &str) -> String {
    TaskQueued { event, task_id, id: Some(id), duplicate: Some(true) }.to_json()
}

#[derive(Serialize)]
struct TaskQueued<'a> {
    event: &'a str,
    task_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate: Option<bool>,
}

impl TaskQueued<'_> {
    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and booleans serialize")
    }
}

/// Somebody joined or left the channel. Anonymous clients have no name but their connection's id.
pub fn presence_event(
    joined: bool,
    user_id: Option<&UserId>,
    username: Option<&str>,
    connection_id: ConnectionId,
) -> String {
    #[derive(Serialize)]
    struct PresenceEvent<'a> {
        event: &'static str,
        user_id: Option<&'a UserId>,
        username: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        connection_id: Option<ConnectionId>,
    }
    let event = if joined { "join" } else { "leave" };
    let connection_id = user_id.is_none().then_some(connection_id);
    serde_json::to_string(&PresenceEvent { event, user_id, username, connection_id })
        .expect("strings and numbers serialize")
}

/// The credentials behind the connection end in about so many seconds.
pub fn token_expiring_soon(expires_in: u64) -> String {
    format!(r#"{{"event":"token_expiring_soon","expires_in":{expires_in}}}"#)
}

/// Other credentials are behind the connection now, for so many seconds; `None` = they do not end.
pub fn refreshed(expires_in: Option<u64>) -> String {
    #[derive(Serialize)]
    struct Refreshed {
        event: &'static str,
        expires_in: Option<u64>,
    }
    serde_json::to_string(&Refreshed { event: "refreshed", expires_in }).expect("numbers serialize")
}

/// Sent before a drain's close.
pub fn going_away(reconnect_in_ms: u64) -> String {
    format!(r#"{{"event":"going_away","reconnect_in_ms":{reconnect_in_ms}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_without_an_end_have_no_seconds() {
        assert_eq!(refreshed(Some(900)), r#"{"event":"refreshed","expires_in":900}"#);
        assert_eq!(refreshed(None), r#"{"event":"refreshed","expires_in":null}"#);
        let told: serde_json::Value = serde_json::from_str(&token_expiring_soon(120)).unwrap();
        assert_eq!(told, serde_json::json!({"event": "token_expiring_soon", "expires_in": 120}));
    }
}
