//! The commands, and the JSON representation of a disconnect.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{DebugCommand, Listing};
use crate::protocol::{ChannelName, CloseReason, ConnectionId, InvalidChannel, UserId};

/// The most bytes of the reason in a close frame (RFC 6455 section 5.5).
pub const MAX_REASON_BYTES: usize = 123;

/// A command to all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeCommand {
    /// Closes connections.
    Disconnect(Disconnect),
    /// Cancels the generation of a task of a channel, on whichever node it runs.
    Cancel { channel: ChannelName, task_id: String },
    /// Lists connections or channels of all nodes.
    List(Listing),
    /// Writes debug lines about a target.
    Debug(DebugCommand),
}

/// The connections that a command applies to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TargetFields", into = "TargetFields")]
pub enum Target {
    /// All connections of a user, whether the credentials contain the id as a number or as a string.
    User(UserId),
    Connection(ConnectionId),
    /// All connections of a channel.
    Channel(ChannelName),
}

/// A command to close the target's connections with this code and reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "DisconnectFields", into = "DisconnectFields")]
pub struct Disconnect {
    target: Target,
    /// A close code: 1000, 1008, 1012 or 3000 to 4999.
    code: u16,
    /// The reason, at most 123 bytes.
    reason: Box<str>,
}

/// The JSON representation of a [`Disconnect`]. Exactly one of the first three fields is set.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DisconnectFields {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    /// The default is 4001, which tells the client to get new credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The JSON representation of a [`Target`]. Exactly one of the fields is set.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetFields {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
}

/// What is wrong with the fields of a [`Target`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidTarget {
    /// Not exactly one field is set.
    FieldCount,
    UserId,
    ConnectionId,
    Channel(InvalidChannel),
}

/// What is wrong with [`DisconnectFields`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidDisconnect {
    Target(InvalidTarget),
    Code,
    Reason,
}

impl fmt::Display for InvalidTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FieldCount => "give exactly one of user_id, connection_id and channel",
            Self::UserId => "user_id must be an integer or a non-empty string",
            Self::ConnectionId => "connection_id must be 32 hex digits",
            Self::Channel(invalid) => return invalid.fmt(f),
        })
    }
}

impl fmt::Display for InvalidDisconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Target(invalid) => return invalid.fmt(f),
            Self::Code => "code must be 1000, 1008, 1012 or 3000 to 4999",
            Self::Reason => "reason must have at most 123 bytes",
        })
    }
}

impl Disconnect {
    pub fn target(&self) -> &Target {
        &self.target
    }

    pub fn code(&self) -> u16 {
        self.code
    }

    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl Target {
    /// The name of the target's field, which logs use as well.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user_id",
            Self::Connection(_) => "connection_id",
            Self::Channel(_) => "channel",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => id.fmt(f),
            Self::Connection(id) => id.fmt(f),
            Self::Channel(name) => name.fmt(f),
        }
    }
}

impl TryFrom<TargetFields> for Target {
    type Error = InvalidTarget;

    fn try_from(fields: TargetFields) -> Result<Self, InvalidTarget> {
        use InvalidTarget as Invalid;
        Ok(match (fields.user_id, fields.connection_id, fields.channel) {
            (Some(id), None, None) => Self::User(UserId::from_json(&id).ok_or(Invalid::UserId)?),
            (None, Some(id), None) => {
                Self::Connection(ConnectionId::parse(&id).ok_or(Invalid::ConnectionId)?)
            }
            (None, None, Some(name)) => {
                Self::Channel(ChannelName::new(&name).map_err(Invalid::Channel)?)
            }
            _ => return Err(Invalid::FieldCount),
        })
    }
}

impl From<Target> for TargetFields {
    fn from(target: Target) -> Self {
        let mut fields = Self::default();
        match target {
            Target::User(UserId::Integer(id)) => fields.user_id = Some(id.into()),
            Target::User(UserId::Text(id)) => fields.user_id = Some(String::from(id).into()),
            Target::Connection(id) => fields.connection_id = Some(id.to_string()),
            Target::Channel(name) => fields.channel = Some(name.into()),
        }
        fields
    }
}

impl TryFrom<DisconnectFields> for Disconnect {
    type Error = InvalidDisconnect;

    fn try_from(fields: DisconnectFields) -> Result<Self, InvalidDisconnect> {
        use InvalidDisconnect as Invalid;
        let DisconnectFields { user_id, connection_id, channel, .. } = fields;
        let target = TargetFields { user_id, connection_id, channel };
        let target = Target::try_from(target).map_err(Invalid::Target)?;
        let default = CloseReason::Disconnected;
        let code = fields.code.unwrap_or(default.code());
        if !matches!(code, 1000 | 1008 | 1012 | 3000..=4999) {
            return Err(Invalid::Code);
        }
        let reason = fields.reason.unwrap_or_else(|| default.text().to_owned());
        if reason.len() > MAX_REASON_BYTES {
            return Err(Invalid::Reason);
        }
        Ok(Self { target, code, reason: reason.into() })
    }
}

impl From<Disconnect> for DisconnectFields {
    fn from(command: Disconnect) -> Self {
        let TargetFields { user_id, connection_id, channel } = command.target.into();
        let (code, reason) = (Some(command.code), Some(command.reason.into()));
        Self { user_id, connection_id, channel, code, reason }
    }
}

#[cfg(test)]
mod tests;
