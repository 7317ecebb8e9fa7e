//! The command to write debug lines about a target for a while.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Target;
use super::command::{InvalidTarget, TargetFields};

/// The longest time, in seconds, for which one command has an effect.
pub const MAX_DEBUG_SECONDS: u16 = 3600;

/// A command to write debug lines about the target for a number of seconds; 0 stops them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "DebugFields", into = "DebugFields")]
pub struct DebugCommand {
    target: Target,
    /// The seconds for which to write debug lines, at most [`MAX_DEBUG_SECONDS`].
    seconds: u16,
}

/// The JSON representation of a [`DebugCommand`]. Exactly one of the first three fields is set.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebugFields {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    seconds: u64,
}

/// What is wrong with [`DebugFields`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidDebug {
    Target(InvalidTarget),
    Seconds,
}

impl fmt::Display for InvalidDebug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target(invalid) => invalid.fmt(f),
            Self::Seconds => write!(f, "seconds must be an integer from 0 to {MAX_DEBUG_SECONDS}"),
        }
    }
}

impl DebugCommand {
    pub fn target(&self) -> &Target {
        &self.target
    }

    pub fn seconds(&self) -> u16 {
        self.seconds
    }
}

impl TryFrom<DebugFields> for DebugCommand {
    type Error = InvalidDebug;

    fn try_from(fields: DebugFields) -> Result<Self, InvalidDebug> {
        let DebugFields { user_id, connection_id, channel, seconds } = fields;
        let target = TargetFields { user_id, connection_id, channel };
        let target = Target::try_from(target).map_err(InvalidDebug::Target)?;
        let seconds = u16::try_from(seconds).ok().filter(|seconds| *seconds <= MAX_DEBUG_SECONDS);
        Ok(Self { target, seconds: seconds.ok_or(InvalidDebug::Seconds)? })
    }
}

impl From<DebugCommand> for DebugFields {
    fn from(command: DebugCommand) -> Self {
        let TargetFields { user_id, connection_id, channel } = command.target.into();
        Self { user_id, connection_id, channel, seconds: command.seconds.into() }
    }
}

#[cfg(test)]
mod tests;
