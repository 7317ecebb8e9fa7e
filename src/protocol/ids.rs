//! The ids of users and connections.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Bits128;

/// The id of a user, from the credentials: a JSON integer or a string, passed on as the backend wrote it.
///
/// Two ids are equal if their texts are: backends write the same id as `7` and as `"7"`, and channel names, limits
/// and keys contain only the text.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum UserId {
    Integer(i64),
    Text(Box<str>),
}

impl UserId {
    /// What stands for the user's id where the client is anonymous: in channels, URLs and keys with `{user_id}`. No
    /// user has this id.
    pub const ANONYMOUS: &str = "_anonymous_";

    /// The integer that this id is the canonical text of: 7 for `"7"`, but `None` for `"07"` and `"+7"`.
    fn digits(&self) -> Option<i64> {
        match self {
            Self::Integer(id) => Some(*id),
            Self::Text(text) => {
                let digits = text.strip_prefix('-').unwrap_or(text);
                let is_canonical = match digits.as_bytes() {
                    [b'0'] => digits.len() == text.len(),
                    [first, ..] => (b'1'..=b'9').contains(first),
                    [] => false,
                };
                is_canonical.then(|| text.parse().ok()).flatten()
            }
        }
    }

    /// Reads a user id that a person wrote: an integer if the text is one in its usual form (`7`, but not `007`, which is
    /// another user), or else a text. `None` if it is empty, and for [`UserId::ANONYMOUS`].
    pub fn from_text(text: &str) -> Option<Self> {
        let id = Self::from_json(&Value::from(text))?;
        Some(id.digits().map_or(id, Self::Integer))
    }

    /// Reads a user id from JSON: an integer or a non-empty string. An integer that does not fit an `i64` is kept
    /// as its text. `None` for any other type, and for [`UserId::ANONYMOUS`].
    pub fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) if text == Self::ANONYMOUS => None,
            Value::String(text) if !text.is_empty() => Some(Self::Text(text.as_str().into())),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(id), _) => Some(Self::Integer(id)),
                (None, Some(id)) => Some(Self::Text(id.to_string().into())),
                (None, None) => None,
            },
            _ => None,
        }
    }
}

impl PartialEq for UserId {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => one == other,
            _ => self.digits().is_some() && self.digits() == other.digits(),
        }
    }
}

impl Eq for UserId {}

impl Hash for UserId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Integer(id) => id.hash(state),
            Self::Text(text) => match self.digits() {
                Some(id) => id.hash(state),
                None => text.hash(state),
            },
        }
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(id) => write!(f, "{id}"),
            Self::Text(id) => f.write_str(id),
        }
    }
}

/// The id of a connection, unique across nodes: 128 random bits, written as 32 hex digits and ordered like them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct ConnectionId(Bits128);

impl ConnectionId {
    pub fn random() -> Self {
        Self(Bits128::random())
    }

    /// Parses 32 hex digits of either case; `None` if `text` is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        Bits128::from_hex(text).filter(|_| text.len() == 32).map(Self)
    }

    pub fn bits(self) -> Bits128 {
        self.0
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is not a connection id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidConnectionId;

impl FromStr for ConnectionId {
    type Err = InvalidConnectionId;

    fn from_str(text: &str) -> Result<Self, InvalidConnectionId> {
        let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        Self::parse(text).filter(|_| is_lower).ok_or(InvalidConnectionId)
    }
}

impl TryFrom<String> for ConnectionId {
    type Error = InvalidConnectionId;

    fn try_from(text: String) -> Result<Self, InvalidConnectionId> {
        text.parse()
    }
}

impl fmt::Display for InvalidConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a connection id has 32 hex digits")
    }
}

impl From<ConnectionId> for String {
    fn from(id: ConnectionId) -> Self {
        id.to_string()
    }
}

impl Serialize for ConnectionId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.with_hex(|digits| serializer.serialize_str(digits))
    }
}

/// `bytes` random bytes from the operating system, as lower-case hex.
pub fn random_hex(bytes: usize) -> String {
    let mut raw = vec![0u8; bytes];
    getrandom::fill(&mut raw).expect("the operating system gives random bytes");
    raw.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests;
