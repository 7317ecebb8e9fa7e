//! The events that the gateway itself writes, except errors. What is published to a channel is passed on unchanged.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::{ConnectionId, EventName, Params, Position, UserId};

fn write_position<S: Serializer>(
    position: &Option<Position>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    if let Some(Position { epoch, offset }) = position {
        map.serialize_entry("epoch", epoch)?;
        map.serialize_entry("offset", offset)?;
    }
    map.end()
}

/// The position from which a connection receives the publications of its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StartPosition {
    /// The position of the last publication before the connection. `None` = the channel keeps no history.
    #[serde(flatten, serialize_with = "write_position")]
    pub position: Option<Position>,
    /// Whether no publication is missing; only for a client that asked to resume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovered: Option<bool>,
    /// The number of publications since the one that a client asked to resume after, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
}

/// The first frame of a connection: every path parameter under its own name, the ids of the connection and its user,
/// and the position from which it receives publications.
pub fn connected(
    params: &Params,
    connection_id: ConnectionId,
    user_id: Option<&UserId>,
    start: Option<&StartPosition>,
) -> String {
    // Each connection gets one. Flattened structures would take twice as long.
    let mut json = Vec::with_capacity(256);
    json.extend_from_slice(b"{\"event\":");
    write_value(&mut json, &EventName::Connected);
    params.iter().for_each(|(name, value)| write_member(&mut json, name, value));
    write_member(&mut json, "connection_id", &connection_id);
    write_member(&mut json, "user_id", &user_id);
    if let Some(StartPosition { position, recovered, missed }) = start {
        if let Some(Position { epoch, offset }) = position {
            write_member(&mut json, "epoch", epoch);
            write_member(&mut json, "offset", offset);
        }
        recovered.iter().for_each(|recovered| write_member(&mut json, "recovered", recovered));
        missed.iter().for_each(|missed| write_member(&mut json, "missed", missed));
    }
    json.push(b'}');
    String::from_utf8(json).expect("JSON is UTF-8")
}

fn write_member(json: &mut Vec<u8>, name: &str, value: &(impl Serialize + ?Sized)) {
    json.push(b',');
    write_value(json, name);
    json.push(b':');
    write_value(json, value);
}

fn write_value(json: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(json, value).expect("strings and numbers serialize");
}

/// The answer to a `resume` frame.
pub fn resumed(start: &StartPosition) -> String {
    #[derive(Serialize)]
    struct Resumed<'a> {
        event: EventName,
        #[serde(flatten)]
        start: &'a StartPosition,
    }
    serde_json::to_string(&Resumed { event: EventName::Resumed, start })
        .expect("strings and numbers serialize")
}

/// A generation has started.
pub fn processing_started(task_id: &str) -> String {
    task_event(EventName::ProcessingStarted, task_id)
}

/// A generation was cancelled.
pub fn cancelled(task_id: &str) -> String {
    task_event(EventName::Cancelled, task_id)
}

/// A generation has ended whose upstream sent no terminal event.
pub fn complete(task_id: &str) -> String {
    task_event(EventName::Complete, task_id)
}

fn task_event(event: EventName, task_id: &str) -> String {
    #[derive(Serialize)]
    struct TaskEvent<'a> {
        event: EventName,
        task_id: &'a str,
    }
    serde_json::to_string(&TaskEvent { event, task_id }).expect("strings serialize")
}

/// The answer to an application ping.
pub fn pong() -> &'static str {
    r#"{"event":"pong"}"#
}

/// The upstream has accepted the message. `event` is `task_queued`, or the name that the upstream is configured with.
pub fn task_queued(event: &str, task_id: &str, id: Option<&str>) -> String {
    TaskQueued { event, task_id, id, duplicate: None }.to_json()
}

/// The answer to a duplicate of a message that the upstream has accepted.
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

/// A client joined or left the channel. An anonymous client is identified by the id of its connection.
pub fn presence_event(
    joined: bool,
    user_id: Option<&UserId>,
    username: Option<&str>,
    connection_id: ConnectionId,
) -> String {
    #[derive(Serialize)]
    struct PresenceEvent<'a> {
        event: EventName,
        user_id: Option<&'a UserId>,
        username: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        connection_id: Option<ConnectionId>,
    }
    let event = if joined { EventName::Join } else { EventName::Leave };
    let connection_id = user_id.is_none().then_some(connection_id);
    serde_json::to_string(&PresenceEvent { event, user_id, username, connection_id })
        .expect("strings and numbers serialize")
}

/// The credentials of the connection expire in about `expires_in` seconds.
pub fn token_expiring_soon(expires_in: u64) -> String {
    let event = EventName::TokenExpiringSoon;
    format!(r#"{{"event":"{event}","expires_in":{expires_in}}}"#)
}

/// The credentials of the connection were renewed, and expire in `expires_in` seconds; `None` = never.
pub fn refreshed(expires_in: Option<u64>) -> String {
    #[derive(Serialize)]
    struct Refreshed {
        event: EventName,
        expires_in: Option<u64>,
    }
    serde_json::to_string(&Refreshed { event: EventName::Refreshed, expires_in })
        .expect("numbers serialize")
}

/// Sent before a node that is stopping closes the connection.
pub fn going_away(reconnect_in_ms: u64) -> String {
    let event = EventName::GoingAway;
    format!(r#"{{"event":"{event}","reconnect_in_ms":{reconnect_in_ms}}}"#)
}

#[cfg(test)]
mod tests;
