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
mod tests {
    use super::*;

    fn member(user_id: Option<UserId>, username: Option<&str>) -> Member {
        let username = username.map(Into::into);
        let connection_id = ConnectionId::random();
        Member { connection_id, user_id, username, connected_at: 1_764_000_000, events: true }
    }

    #[test]
    fn members_convert_to_text_and_back() {
        for (user, name) in [
            (None, None),
            (Some(UserId::Integer(i64::MIN)), Some("ana")),
            (Some(UserId::Text("1".into())), Some("")),
            (Some(UserId::Text("a\nb\"\u{2028}".into())), Some("\n1\n")),
        ] {
            let member = member(user, name);
            let text = member.to_text();
            assert_eq!(Member::from_text(text.as_bytes()), Some(member), "{text:?}");
        }
    }

    #[test]
    fn other_texts_are_rejected() {
        let text = member(Some(UserId::Integer(1)), Some("ana")).to_text();
        for end in 0..text.len() {
            // Some prefixes are valid members; none may panic.
            let _ = Member::from_text(&text.as_bytes()[..end]);
        }
        for other in [&b""[..], b"\xff", b"\n\n\n\n", b"zz\n1\n1\n\n", b"\xc3\xa9"] {
            assert_eq!(Member::from_text(other), None);
        }
    }

    #[test]
    fn users_are_announced_by_name_and_anonymous_connections_by_id() {
        let event = |joined, member: &Member| {
            String::from_utf8(Change { joined, member: member.clone() }.event().to_vec()).unwrap()
        };
        let ana = member(Some(UserId::Integer(1)), Some("ana"));
        assert_eq!(event(true, &ana), r#"{"event":"join","user_id":1,"username":"ana"}"#);
        let nameless = member(Some(UserId::Text("1".into())), None);
        assert_eq!(event(false, &nameless), r#"{"event":"leave","user_id":"1","username":null}"#);
        let anonymous = member(None, None);
        let id = anonymous.connection_id;
        let expected =
            format!(r#"{{"event":"leave","user_id":null,"username":null,"connection_id":"{id}"}}"#);
        assert_eq!(event(false, &anonymous), expected);
    }
}
