//! One connection in a channel, and its representation in the engine.

use bytes::Bytes;

use super::Change;
use crate::protocol::{ConnectionId, UserId, presence_event};

/// One connection in a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub connection_id: ConnectionId,
    /// `None` = anonymous.
    pub user_id: Option<UserId>,
    pub username: Option<Box<str>>,
    /// When the connection was opened, in Unix seconds by its node's clock.
    pub connected_at: u64,
    /// Whether joins and leaves of this connection are published on the channel.
    pub events: bool,
}

impl Member {
    /// The member as text: `<connection id>\n<connected at>\n<1 with events>\n<user id>\n<username>`, the last two as
    /// JSON or empty. Compact JSON contains no line break, and the id comes first so that members sort by it.
    pub(super) fn to_text(&self) -> String {
        let Self { connection_id, connected_at, .. } = self;
        let user = self.user_id.as_ref().map_or_else(String::new, json);
        let name = self.username.as_ref().map_or_else(String::new, json);
        format!("{connection_id}\n{connected_at}\n{}\n{user}\n{name}", u8::from(self.events))
    }

    /// Parses the text that [`Member::to_text`] returns; `None` for any other text.
    pub(super) fn from_text(text: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(text).ok()?.split('\n');
        let mut line = || lines.next();
        let connection_id = line()?.parse().ok()?;
        let connected_at = line()?.parse().ok()?;
        let events = line()? == "1";
        let user_id = match line()? {
            "" => None,
            user => Some(serde_json::from_str(user).ok()?),
        };
        let username = match line()? {
            "" => None,
            name => Some(serde_json::from_str(name).ok()?),
        };
        Some(Self { connection_id, user_id, username, connected_at, events })
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("strings and numbers serialize")
}

impl Change {
    /// The event that is published on the channel.
    pub fn event(&self) -> Bytes {
        let Member { connection_id, user_id, username, .. } = &self.member;
        presence_event(self.joined, user_id.as_ref(), username.as_deref(), *connection_id).into()
    }
}

#[cfg(test)]
mod tests;
