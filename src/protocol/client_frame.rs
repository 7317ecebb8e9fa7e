//! The text frames of clients, parsed and checked. What they carry for an upstream is passed on unchanged.

use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ErrorCode, NotPortable, ResumePoint, has_lone_surrogate};

/// The longest task id, whether an upstream or the gateway chose it.
pub const MAX_TASK_ID_BYTES: usize = 256;

/// A valid text frame of a client.
#[derive(Debug)]
pub enum ClientFrame<'a> {
    Ping,
    /// Stop the generation of this task.
    Cancel {
        task_id: String,
    },
    Message {
        /// Trimmed, and not empty. `None` if the object has no such text.
        text: Option<String>,
        /// At most [`ClientFrame::MAX_ID_BYTES`] bytes.
        id: Option<String>,
        /// The complete object, as the client sent it.
        data: &'a RawValue,
    },
    /// Resume after this point; for clients that cannot give it in the query.
    Resume(ResumePoint),
    /// Renew the credentials of the connection.
    Refresh(Renewal),
}

/// New credentials of a client that wants to stay connected.
pub enum Renewal {
    ConnectionToken(String),
    Jwt(String),
}

/// Never shows the credential.
impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConnectionToken(_) => "ConnectionToken(…)",
            Self::Jwt(_) => "Jwt(…)",
        })
    }
}

/// Why a frame of a client is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidFrame {
    NotJson,
    NotAnObject,
    LoneSurrogate,
    TooDeep,
    NumberOutOfRange,
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
            | Self::LoneSurrogate
            | Self::TooDeep
            | Self::NumberOutOfRange
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
            Self::LoneSurrogate => {
                "a text in the frame has one half of a surrogate pair (\\ud800 to \\udfff) without the other"
            }
            Self::TooDeep => "the frame has more than 127 objects and arrays in each other",
            Self::NumberOutOfRange => {
                "a number in the frame is an integer of more than 64 bits, or out of range"
            }
            Self::EmptyMessage => "\"message\" must be a non-empty string",
            Self::BadId => "\"id\" must be a string of 1 to 128 bytes",
            Self::BadTaskId => "\"task_id\" must be a string of 1 to 256 bytes",
            Self::BadRefresh => {
                "a refresh needs either \"connection_token\" or \"token\", as a string"
            }
        }
    }
}

impl From<NotPortable> for InvalidFrame {
    fn from(why: NotPortable) -> Self {
        match why {
            NotPortable::TooDeep => Self::TooDeep,
            NotPortable::NumberOutOfRange => Self::NumberOutOfRange,
        }
    }
}

/// The fields that the gateway reads; all others are passed on in `data`.
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

    /// Parses a text frame.
    pub fn parse(text: &'a str) -> Result<Self, InvalidFrame> {
        let data: &RawValue = serde_json::from_str(text).map_err(|_| InvalidFrame::NotJson)?;
        if !data.get().starts_with('{') {
            return Err(InvalidFrame::NotAnObject);
        }
        if has_lone_surrogate(data.get()) {
            return Err(InvalidFrame::LoneSurrogate);
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
        let text = fields.message.and_then(string).and_then(|text| match text.trim() {
            "" => None,
            trimmed if trimmed.len() == text.len() => Some(text),
            trimmed => Some(trimmed.to_owned()),
        });
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

/// Accepts exactly one of the two, because with both it is not clear which one counts.
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

/// `since` is a number or a numeric string, `epoch` is a string.
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

#[cfg(test)]
mod tests;
