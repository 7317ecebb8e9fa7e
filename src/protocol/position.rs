//! Where a channel's history stands, and how a publication says so.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::Serialize;

use super::EventName;

/// One unbroken history of a channel. A history that was lost, trimmed away or rolled back goes on
/// under another epoch. On the wire: 1 to 16 hex digits.
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

/// Not an epoch.
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

/// A publication's place in its channel: the first of an epoch has offset 1, each next one more.
/// Offset 0 is the place before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    pub epoch: Epoch,
    pub offset: u64,
}

impl Position {
    /// The largest offset: what JavaScript and Lua count exactly.
    pub const MAX_OFFSET: u64 = (1 << 53) - 1;

    /// Splits what publish.lua sends, `@<epoch>:<offset>:<data>`, into place and data. `None` for
    /// everything else, which is a plain publication: JSON never begins with `@`.
    pub fn split(payload: &[u8]) -> Option<(Self, &[u8])> {
        let rest = payload.strip_prefix(b"@")?;
        let (epoch, rest) = split_at_colon(rest, 16)?;
        let (offset, data) = split_at_colon(rest, 16)?;
        let epoch = std::str::from_utf8(epoch).ok()?.parse().ok()?;
        let offset: u64 = std::str::from_utf8(offset).ok()?.parse().ok()?;
        (1..=Self::MAX_OFFSET).contains(&offset).then_some((Self { epoch, offset }, data))
    }
}

fn split_at_colon(bytes: &[u8], most: usize) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().take(most + 1).position(|byte| *byte == b':')?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// What a resuming client says it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumePoint {
    At(Position),
    /// It has something, and what it says cannot be a position.
    Unknown,
}

impl ResumePoint {
    /// Reads `since` and `epoch`; `None` where the client does not ask to resume.
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

/// `json` with its place in it, as two parts to be written one after the other: `"offset"` is the last
/// member of the object, so that it holds even where the publisher wrote one, and for the first of an
/// epoch `"epoch"` as well. What is no object travels as `data` of one.
pub fn with_position(json: &[u8], position: Position) -> (Cow<'_, [u8]>, Vec<u8>) {
    let Position { epoch, offset } = position;
    let mut tail = format!("\"offset\":{offset}");
    if offset == 1 {
        tail.push_str(&format!(",\"epoch\":\"{epoch}\""));
    }
    tail.push('}');
    let trimmed = json.trim_ascii();
    let fields = trimmed.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}"));
    match fields {
        Some(fields) => {
            if !fields.trim_ascii().is_empty() {
                tail.insert(0, ',');
            }
            (Cow::Borrowed(&trimmed[..trimmed.len() - 1]), tail.into_bytes())
        }
        None => {
            let data = match std::str::from_utf8(json) {
                Ok(text) if is_json(text) => text.trim().to_owned(),
                _ => serde_json::Value::from(String::from_utf8_lossy(json)).to_string(),
            };
            let head = format!("{{\"event\":\"{}\",\"data\":{data},", EventName::Message);
            (Cow::Owned(head.into_bytes()), tail.into_bytes())
        }
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(epoch: u64, offset: u64) -> Position {
        Position { epoch: Epoch::new(epoch).unwrap(), offset }
    }

    fn positioned(json: &str, position: Position) -> String {
        let (head, tail) = with_position(json.as_bytes(), position);
        String::from_utf8([&head, &tail[..]].concat()).unwrap()
    }

    #[test]
    fn only_what_the_script_sends_has_a_position() {
        assert_eq!(Position::split(b"@1f:7:{}"), Some((position(0x1f, 7), &b"{}"[..])));
        assert_eq!(Position::split(b"@1f:7:a:b"), Some((position(0x1f, 7), &b"a:b"[..])));
        for plain in [
            &b"{\"event\":\"x\"}"[..],
            b"",
            b"@",
            b"@1f",
            b"@1f:7",
            b"@1f:0:{}",
            b"@0:1:{}",
            b"@:1:{}",
            b"@xyz:1:{}",
            b"@1f:-1:{}",
            b"@1f:9007199254740992:{}",
            b"@1f:99999999999999999999:{}",
            b"@11111111111111111:1:{}",
            b"@\xff:1:{}",
        ] {
            assert_eq!(Position::split(plain), None, "{}", String::from_utf8_lossy(plain));
        }
    }

    #[test]
    fn the_offset_is_the_last_member_of_an_object() {
        for (json, expected) in [
            (r#"{"event":"x"}"#, r#"{"event":"x","offset":7}"#),
            (r#" {"offset":1, "a":{}} "#, r#"{"offset":1, "a":{},"offset":7}"#),
            ("{}", r#"{"offset":7}"#),
            ("{ }", r#"{ "offset":7}"#),
            ("[1]", r#"{"event":"message","data":[1],"offset":7}"#),
            (" null", r#"{"event":"message","data":null,"offset":7}"#),
            ("hello \"you\"", r#"{"event":"message","data":"hello \"you\"","offset":7}"#),
            ("", r#"{"event":"message","data":"","offset":7}"#),
        ] {
            assert_eq!(positioned(json, position(1, 7)), expected);
        }
        let first = positioned(r#"{"a":1}"#, position(0xab, 1));
        assert_eq!(first, r#"{"a":1,"offset":1,"epoch":"ab"}"#);
    }

    #[test]
    fn a_resume_point_that_is_none_is_unknown() {
        let at = Some(ResumePoint::At(position(0xab, 3)));
        assert_eq!(ResumePoint::read(Some("3"), Some("ab")), at);
        assert_eq!(ResumePoint::read(None, None), None);
        for (since, epoch) in [
            (Some("3"), None),
            (None, Some("ab")),
            (Some("x"), Some("ab")),
            (Some("-1"), Some("ab")),
            (Some("3"), Some("")),
            (Some("3"), Some("0")),
        ] {
            assert_eq!(ResumePoint::read(since, epoch), Some(ResumePoint::Unknown));
        }
    }
}
