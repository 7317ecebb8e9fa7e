//! Channel names, and the patterns by which credentials are restricted.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Template;

/// The name of a channel: 1 to 255 bytes without control characters or spaces. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChannelName(Arc<str>);

/// Why a text is not a channel name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidChannel {
    Empty,
    TooLong,
    BadCharacter,
}

impl fmt::Display for InvalidChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "a channel name must not be empty",
            Self::TooLong => "a channel name has at most 255 bytes",
            Self::BadCharacter => "a channel name must not have control characters or spaces",
        })
    }
}

impl std::error::Error for InvalidChannel {}

impl ChannelName {
    pub const MAX_BYTES: usize = 255;

    pub fn new(name: &str) -> Result<Self, InvalidChannel> {
        if name.is_empty() {
            Err(InvalidChannel::Empty)
        } else if name.len() > Self::MAX_BYTES {
            Err(InvalidChannel::TooLong)
        } else if !name.bytes().all(|byte| byte.is_ascii_graphic())
            && name.chars().any(|c| c.is_control() || c.is_whitespace())
        {
            Err(InvalidChannel::BadCharacter)
        } else {
            Ok(Self(name.into()))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a Django Channels layer can have a group of this name: fewer than 100 ASCII letters,
    /// digits, `-`, `_` and `.`.
    pub fn is_group_name(&self) -> bool {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        self.0.len() < 100 && self.0.bytes().all(fits)
    }
}

impl std::borrow::Borrow<str> for ChannelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ChannelName {
    type Error = InvalidChannel;

    fn try_from(name: String) -> Result<Self, InvalidChannel> {
        Self::new(&name)
    }
}

impl From<ChannelName> for String {
    fn from(name: ChannelName) -> Self {
        name.as_str().to_owned()
    }
}

/// Names that other systems on the same Redis use: its own notifications, the gateway, the channel layer, Celery. No
/// client can join such a channel, and nobody can publish to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservedChannels {
    prefixes: Arc<[Box<str>]>,
    /// Whether all names are reserved that a group of a channel layer cannot have.
    non_groups: bool,
}

/// Reserved whatever the config is: keyspace notifications and Sentinel's channels, channels_redis with its default
/// prefix, Celery's results, and kombu's bindings and broadcasts (`/0.celery.pidbox`).
const ALWAYS_RESERVED: [&str; 17] = [
    "__",
    "asgi:",
    "asgi__group__",
    "asgispecific.",
    "celery-task-meta-",
    "celery-taskset-meta-",
    "_kombu.",
    "/0",
    "/1",
    "/2",
    "/3",
    "/4",
    "/5",
    "/6",
    "/7",
    "/8",
    "/9",
];

impl Default for ReservedChannels {
    fn default() -> Self {
        Self::new([])
    }
}

impl ReservedChannels {
    /// Reserves every name that starts with one of `prefixes`, besides those that are always reserved. An empty prefix
    /// is ignored.
    pub fn new(prefixes: impl IntoIterator<Item = String>) -> Self {
        let configured = prefixes.into_iter().filter(|prefix| !prefix.is_empty());
        let prefixes = ALWAYS_RESERVED.map(str::to_owned).into_iter().chain(configured);
        Self { prefixes: prefixes.map(String::into_boxed_str).collect(), non_groups: false }
    }

    /// If `non_groups`, reserves all names as well that a group of a channel layer cannot have, because nothing could
    /// be sent to them.
    pub fn and_non_groups(self, non_groups: bool) -> Self {
        Self { non_groups, ..self }
    }

    pub fn contains(&self, channel: &ChannelName) -> bool {
        (self.non_groups && !channel.is_group_name()) || self.is_reserved(channel.as_str())
    }

    /// Whether a name that starts with `text` is reserved whatever follows.
    pub fn is_reserved(&self, text: &str) -> bool {
        self.prefixes.iter().any(|prefix| text.starts_with(&**prefix))
    }
}

/// A glob pattern for complete names: `*` matches any number of characters, everything else matches itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelPattern(Box<str>);

impl ChannelPattern {
    /// The pattern of all names that a template can make: `*` replaces each placeholder.
    pub fn of(template: &Template) -> Self {
        let mut pattern = String::new();
        let mut inside = false;
        for character in template.as_str().chars() {
            match character {
                '{' => {
                    inside = true;
                    pattern.push('*');
                }
                '}' => inside = false,
                _ if inside => {}
                other => pattern.push(other),
            }
        }
        Self::new(pattern)
    }

    pub fn new(pattern: impl Into<Box<str>>) -> Self {
        Self(pattern.into())
    }

    /// Whether the pattern matches the complete name. Backtracks to the last star only, so the time is at most the
    /// product of both lengths.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while n < name.len() {
            if p < pattern.len() && pattern[p] == b'*' {
                star = Some((p + 1, n));
                p += 1;
            } else if p < pattern.len() && pattern[p] == name[n] {
                p += 1;
                n += 1;
            } else if let Some((after, from)) = star {
                p = after;
                n = from + 1;
                star = Some((after, n));
            } else {
                return false;
            }
        }
        pattern[p..].iter().all(|b| *b == b'*')
    }

    /// The length of its text in bytes.
    pub fn text_bytes(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for ChannelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
