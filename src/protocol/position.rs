//! Positions in the history of a channel, and how publications carry them.

use std::fmt::{self, Write as _};
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::Serialize;

/// The id of one unbroken history of a channel. A history that was lost, trimmed or rolled back continues under
/// another epoch. On the wire: 1 to 16 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(into = "String")]
pub struct Epoch(NonZeroU64);

impl Epoch {
    /// `None` for 0.
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl From<Epoch> for String {
    fn from(epoch: Epoch) -> Self {
        epoch.to_string()
    }
}

/// The text is not an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidEpoch;

impl FromStr for Epoch {
    type Err = InvalidEpoch;

    fn from_str(text: &str) -> Result<Self, InvalidEpoch> {
        let is_hex = (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = is_hex.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        number.and_then(Self::new).ok_or(InvalidEpoch)
    }
}

/// The position of a publication in its channel. The first publication of an epoch has the offset 1, and each further
/// one the next offset. Offset 0 is the position before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    pub epoch: Epoch,
    pub offset: u64,
}

impl Position {
    /// The largest offset: the largest integer that JavaScript and Lua represent exactly.
    pub const MAX_OFFSET: u64 = (1 << 53) - 1;

    /// Splits a payload of publish.lua, `@<epoch>:<offset>:<data>`, into position and data. `None` for any other
    /// payload, which is a publication without a position: JSON never starts with `@`.
    pub fn split(payload: &[u8]) -> Option<(Self, &[u8])> {
        let rest = payload.strip_prefix(b"@")?;
        let (epoch, rest) = split_at_colon(rest, 16)?;
        let (offset, data) = split_at_colon(rest, 16)?;
        let epoch = std::str::from_utf8(epoch).ok()?.parse().ok()?;
        let offset: u64 = std::str::from_utf8(offset).ok()?.parse().ok()?;
        (1..=Self::MAX_OFFSET).contains(&offset).then_some((Self { epoch, offset }, data))
    }
}

/// Splits at the first colon, which has to come after at most `most` bytes.
fn split_at_colon(bytes: &[u8], most: usize) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().take(most + 1).position(|byte| *byte == b':')?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// The last publication that a resuming client has received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumePoint {
    At(Position),
    /// The client sent something that is not a valid position.
    Unknown,
}

impl ResumePoint {
    /// Reads `since` and `epoch`; `None` if the client does not ask to resume.
    pub fn read(since: Option<&str>, epoch: Option<&str>) -> Option<Self> {
        if since.is_none() && epoch.is_none() {
            return None;
        }
        let offset = since.and_then(|since| since.parse().ok());
        let epoch = epoch.and_then(|epoch| epoch.parse().ok());
        Some(match (offset, epoch) {
            (Some(offset), Some(epoch)) => Self::At(Position { epoch, offset }),
            _ => Self::Unknown,
        })
    }
}

/// Room for what is added to most publications: `,"offset":1,"epoch":"65f3a2b1c0d4e"}`.
const LONGEST_TAIL: usize = 40;

/// Adds its position to a JSON object, and returns two parts that are to be written one after the other. `"offset"` is
/// the last member, so that it takes precedence over one that the publisher wrote; the first publication of an epoch
/// gets `"epoch"` as well.
pub fn with_position(object: &str, position: Position) -> (&str, String) {
    let Position { epoch, offset } = position;
    let head = object.strip_suffix('}').unwrap_or(object);
    let comma = if head.trim_ascii_end() == "{" { "" } else { "," };
    let mut tail = String::with_capacity(LONGEST_TAIL);
    // Writing to a string cannot fail.
    let _ = write!(tail, "{comma}\"offset\":{offset}");
    if offset == 1 {
        let _ = write!(tail, ",\"epoch\":\"{epoch}\"");
    }
    tail.push('}');
    (head, tail)
}

#[cfg(test)]
mod tests;
