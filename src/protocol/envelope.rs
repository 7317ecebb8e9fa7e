//! The JSON envelope: reading what clients send, writing what the gateway itself says.

use std::fmt;

use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{ConnectionId, Params, Position, ResumePoint, UserId};

/// Error events that the gateway writes; the code is part of the client protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    InvalidJson,
    EmptyMessage,
    MessageTooLong,
    RateLimited,
    /// The upstream, or this connection, already has as much in flight as it may.
    Busy,
    UpstreamUnavailable,
    /// The upstream answered that it will not take this message.
    UpstreamRejected,
    /// The upstream took the message and its reply broke off.
    WorkerLost,
    /// This route takes no messages.
    Forbidden,
    /// The engine that keeps tokens and limits, or whoever decides about channels, cannot be reached.
    EngineUnavailable,
    /// No such generation runs on the client's channel.
    UnknownTask,
    /// What a client offered to stay connected is not accepted.
    InvalidCredentials,
}

impl ErrorCode {
    pub const ALL: [Self; 12] = [
        Self::InvalidJson,
        Self::EmptyMessage,
        Self::MessageTooLong,
        Self::RateLimited,
        Self::Busy,
        Self::UpstreamUnavailable,
        Self::UpstreamRejected,
        Self::WorkerLost,
        Self::Forbidden,
        Self::EngineUnavailable,
        Self::UnknownTask,
        Self::InvalidCredentials,
    ];

    /// The code on the wire and as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::EmptyMessage => "empty_message",
            Self::MessageTooLong => "message_too_long",
            Self::RateLimited => "rate_limited",
            Self::Busy => "busy",
            Self::UpstreamUnavailable => "upstream_unavailable",
            Self::UpstreamRejected => "upstream_rejected",
            Self::WorkerLost => "worker_lost",
            Self::Forbidden => "forbidden",
            Self::EngineUnavailable => "engine_unavailable",
            Self::UnknownTask => "unknown_task",
            Self::InvalidCredentials => "invalid_credentials",
        }
    }
}

/// `{"event":"error","error":"…","code":"…"}` with what else is known.
#[derive(Debug, Clone, Serialize)]
pub struct ErrorEvent<'a> {
    event: &'static str,
    error: &'a str,
    code: ErrorCode,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<&'a str>,
}

impl<'a> ErrorEvent<'a> {
    pub fn new(code: ErrorCode, error: &'a str) -> Self {
        Self { event: "error", error, code, retry_after: None, id: None, task_id: None }
    }

    /// Whole seconds, rounded up by the caller.
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The message id that the client chose.
    pub fn id(mut self, id: Option<&'a str>) -> Self {
        self.id = id;
        self
    }

    pub fn task_id(mut self, id: &'a str) -> Self {
        self.task_id = Some(id);
        self
    }

    pub fn code(&self) -> ErrorCode {
        self.code
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers serialize")
    }
}

/// Of a task id, whoever made it up.
pub const MAX_TASK_ID_BYTES: usize = 256;

/// One text frame of a client, checked.
#[derive(Debug)]
pub enum ClientFrame<'a> {
    Ping,
    /// Stop the generation of this task.
    Cancel {
        task_id: String,
    },
    Message {
        /// Trimmed, not empty.
        text: String,
        /// At most [`ClientFrame::MAX_ID_BYTES`] bytes.
        id: Option<String>,
        /// The client's whole object, as it came.
        data: &'a RawValue,
    },
    /// What the client has of its channel, where it could not say so in the query.
    Resume(ResumePoint),
    /// Other credentials for the same connection.
    Refresh(Renewal),
}

/// Credentials that a client offers to stay connected.
pub enum Renewal {
    ConnectionToken(String),
    Jwt(String),
}

/// No credential gets into a log this way.
impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConnectionToken(_) => "ConnectionToken(…)",
            Self::Jwt(_) => "Jwt(…)",
        })
    }
}

/// Why a client's frame is not relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidFrame {
    NotJson,
    NotAnObject,
    EmptyMessage,
    BadId,
    BadTaskId,
    BadRefresh,
}

impl InvalidFrame {
    pub fn code(self) -> ErrorCode {
        match self {
            Self::NotJson
            | Self::NotAnObject
            | Self::BadId
            | Self::BadTaskId
            | Self::BadRefresh => ErrorCode::InvalidJson,
            Self::EmptyMessage => ErrorCode::EmptyMessage,
        }
    }

    pub fn text(self) -> &'static str {
        match self {
            Self::NotJson => "the frame is not JSON",
            Self::NotAnObject => "the frame is not a JSON object",
            Self::EmptyMessage => "\"message\" must be a string that is not empty",
            Self::BadId => "\"id\" must be a string of 1 to 128 bytes",
            Self::BadTaskId => "\"task_id\" must be a string of 1 to 256 bytes",
            Self::BadRefresh => {
                "a refresh takes either \"connection_token\" or \"token\", as a string"
            }
        }
    }
}

/// The fields that the gateway reads; everything else travels in `data`.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

impl<'a> ClientFrame<'a> {
    pub const MAX_ID_BYTES: usize = 128;

    /// Reads a text frame; `text` is UTF-8 already.
    pub fn parse(text: &'a str) -> Result<Self, InvalidFrame> {
        let data: &RawValue = serde_json::from_str(text).map_err(|_| InvalidFrame::NotJson)?;
        if !data.get().starts_with('{') {
            return Err(InvalidFrame::NotAnObject);
        }
        let fields: Fields = serde_json::from_str(data.get()).map_err(|_| InvalidFrame::NotJson)?;
        let string = |raw: &RawValue| serde_json::from_str::<String>(raw.get()).ok();
        match fields.kind.and_then(string).as_deref() {
            Some("ping") => return Ok(Self::Ping),
            Some("cancel") => return Self::cancel(data),
            Some("refresh") => return renewal(data).map(Self::Refresh),
            Some("resume") => return Ok(Self::Resume(resume_point(data))),
            _ => {}
        }
        let id = match fields.id {
            None => None,
            Some(raw) if raw.get() == "null" => None,
            Some(raw) => Some(
                string(raw)
                    .filter(|id| (1..=Self::MAX_ID_BYTES).contains(&id.len()))
                    .ok_or(InvalidFrame::BadId)?,
            ),
        };
        let text = fields.message.and_then(string).ok_or(InvalidFrame::EmptyMessage)?;
        let text = match text.trim() {
            "" => return Err(InvalidFrame::EmptyMessage),
            trimmed if trimmed.len() == text.len() => text,
            trimmed => trimmed.to_owned(),
        };
        Ok(Self::Message { text, id, data })
    }

    fn cancel(data: &RawValue) -> Result<Self, InvalidFrame> {
        #[derive(Deserialize)]
        struct Fields {
            task_id: String,
        }
        let fields = serde_json::from_str::<Fields>(data.get()).ok();
        let task_id = fields.map(|fields| fields.task_id);
        let task_id = task_id.filter(|id| (1..=MAX_TASK_ID_BYTES).contains(&id.len()));
        Ok(Self::Cancel { task_id: task_id.ok_or(InvalidFrame::BadTaskId)? })
    }
}

/// One of the two: with both it could not be told which is meant.
fn renewal(data: &RawValue) -> Result<Renewal, InvalidFrame> {
    #[derive(Deserialize)]
    struct Fields {
        connection_token: Option<String>,
        token: Option<String>,
    }
    match serde_json::from_str(data.get()) {
        Ok(Fields { connection_token: Some(token), token: None }) => {
            Ok(Renewal::ConnectionToken(token))
        }
        Ok(Fields { connection_token: None, token: Some(jwt) }) => Ok(Renewal::Jwt(jwt)),
        _ => Err(InvalidFrame::BadRefresh),
    }
}

/// `since` as a number or as its text, `epoch` as text.
fn resume_point(data: &RawValue) -> ResumePoint {
    #[derive(Deserialize)]
    struct Fields<'a> {
        #[serde(borrow)]
        since: Option<&'a RawValue>,
        epoch: Option<String>,
    }
    let Ok(Fields { since, epoch }) = serde_json::from_str(data.get()) else {
        return ResumePoint::Unknown;
    };
    let since = since.map(|since| since.get().trim_matches('"'));
    ResumePoint::read(since, epoch.as_deref()).unwrap_or(ResumePoint::Unknown)
}

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

/// The upstream has taken the message.
pub fn task_queued(task_id: &str, id: Option<&str>) -> String {
    TaskQueued { event: "task_queued", task_id, id, duplicate: None }.to_json()
}

/// The upstream took the message when it came first.
pub fn task_queued_before(task_id: &str, id: &str) -> String {
    TaskQueued { event: "task_queued", task_id, id: Some(id), duplicate: Some(true) }.to_json()
}

#[derive(Serialize)]
struct TaskQueued<'a> {
    event: &'static str,
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
    fn frames_are_checked() {
        for (text, wrong) in [
            ("", InvalidFrame::NotJson),
            ("hello", InvalidFrame::NotJson),
            ("{\"message\":\"a\"} x", InvalidFrame::NotJson),
            ("[]", InvalidFrame::NotAnObject),
            ("\"message\"", InvalidFrame::NotAnObject),
            ("null", InvalidFrame::NotAnObject),
            ("{}", InvalidFrame::EmptyMessage),
            (r#"{"message":" \u00a0\n"}"#, InvalidFrame::EmptyMessage),
            (r#"{"message":7}"#, InvalidFrame::EmptyMessage),
            (r#"{"message":null}"#, InvalidFrame::EmptyMessage),
            (r#"{"message":"a","id":7}"#, InvalidFrame::BadId),
            (r#"{"message":"a","id":""}"#, InvalidFrame::BadId),
            (r#"{"type":"cancel"}"#, InvalidFrame::BadTaskId),
            (r#"{"type":"cancel","task_id":7}"#, InvalidFrame::BadTaskId),
            (r#"{"type":"cancel","task_id":""}"#, InvalidFrame::BadTaskId),
        ] {
            assert_eq!(ClientFrame::parse(text).err(), Some(wrong), "{text}");
        }
        let nested = "[".repeat(100_000);
        assert_eq!(ClientFrame::parse(&nested).err(), Some(InvalidFrame::NotJson));
    }

    #[test]
    fn the_object_travels_untouched() {
        let text = r#" {"message":" hi ", "n":1e400, "nested":{"a":[1,  2]},"id":"m-1"} "#;
        let Ok(ClientFrame::Message { text: message, id, data }) = ClientFrame::parse(text) else {
            panic!("not a message");
        };
        assert_eq!(message, "hi");
        assert_eq!(id.as_deref(), Some("m-1"));
        assert_eq!(data.get(), text.trim());
    }

    #[test]
    fn a_ping_is_a_ping_whatever_else_it_says() {
        assert!(matches!(
            ClientFrame::parse(r#"{"message":"x","type":"ping"}"#),
            Ok(ClientFrame::Ping)
        ));
    }

    #[test]
    fn a_refresh_is_read_before_any_message() {
        let long = "x".repeat(60_000);
        let long_refresh = format!(r#"{{"type":"refresh","token":"{long}"}}"#);
        for (text, token, jwt) in [
            (r#"{"type":"refresh","connection_token":"abc"}"#, Some("abc"), None),
            (r#"{"message":"m","token":"a.b.c","type":"refresh"}"#, None, Some("a.b.c")),
            (r#"{"type":"refresh","token":null,"connection_token":""}"#, Some(""), None),
            (r#"{"type":"refresh","token":"\u0061","id":7}"#, None, Some("a")),
            (&long_refresh, None, Some(long.as_str())),
        ] {
            let found = match ClientFrame::parse(text) {
                Ok(ClientFrame::Refresh(Renewal::ConnectionToken(token))) => (Some(token), None),
                Ok(ClientFrame::Refresh(Renewal::Jwt(jwt))) => (None, Some(jwt)),
                other => panic!("{text}: {other:?}"),
            };
            assert_eq!((found.0.as_deref(), found.1.as_deref()), (token, jwt), "{text}");
        }
        for text in [
            r#"{"type":"refresh"}"#,
            r#"{"type":"refresh","message":"m"}"#,
            r#"{"type":"refresh","token":7}"#,
            r#"{"type":"refresh","token":null}"#,
            r#"{"type":"refresh","token":["a"]}"#,
            r#"{"type":"refresh","token":"a","token":"b"}"#,
            r#"{"type":"refresh","token":"a","connection_token":"b"}"#,
            r#"{"type":"refresh","token":"\ud800"}"#,
        ] {
            assert_eq!(ClientFrame::parse(text).err(), Some(InvalidFrame::BadRefresh), "{text}");
        }
    }

    #[test]
    fn what_a_client_offers_is_not_shown() {
        for text in [
            r#"{"type":"refresh","connection_token":"sesame"}"#,
            r#"{"type":"refresh","token":"sesame"}"#,
        ] {
            let shown = format!("{:?}", ClientFrame::parse(text));
            assert!(shown.contains('…') && !shown.contains("sesame"), "{shown}");
        }
    }

    #[test]
    fn credentials_without_an_end_have_no_seconds() {
        assert_eq!(refreshed(Some(900)), r#"{"event":"refreshed","expires_in":900}"#);
        assert_eq!(refreshed(None), r#"{"event":"refreshed","expires_in":null}"#);
        let told: serde_json::Value = serde_json::from_str(&token_expiring_soon(120)).unwrap();
        assert_eq!(told, serde_json::json!({"event": "token_expiring_soon", "expires_in": 120}));
    }

    #[test]
    fn labels_are_what_is_sent() {
        for code in ErrorCode::ALL {
            let sent = serde_json::to_string(&code).unwrap();
            assert_eq!(sent, format!("\"{}\"", code.label()));
        }
    }
}
