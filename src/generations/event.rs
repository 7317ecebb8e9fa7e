//! What the gateway reads of a publication: its event's name and its task, and nothing where it is no
//! JSON object.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::config;
use crate::protocol::{ErrorCode, EventName};

/// The event of a publication.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event<'a> {
    pub name: Cow<'a, str>,
    /// A number as its text.
    pub task_id: Option<Cow<'a, str>>,
    /// It says that its generation ends, whatever it is called: only the gateway writes that.
    pub by_gateway: bool,
}

/// Codes of errors that end a generation.
const ENDS: [ErrorCode; 4] =
    [ErrorCode::WorkerLost, ErrorCode::TaskFailed, ErrorCode::TaskRevoked, ErrorCode::TaskExpired];

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow)]
    task_id: Option<&'a RawValue>,
    #[serde(borrow)]
    code: Option<&'a RawValue>,
}

impl<'a> Event<'a> {
    fn is_named(&self, name: EventName) -> bool {
        self.name == name.label()
    }

    pub fn begins(&self) -> bool {
        self.is_named(EventName::ProcessingStarted)
    }

    /// A part of a reply, if it is none of its ends: not its begin, nor what the gateway says of members.
    pub fn is_content(&self) -> bool {
        !self.begins() && !self.is_named(EventName::Join) && !self.is_named(EventName::Leave)
    }

    /// An end that may be the reply itself, in one piece.
    pub fn ends_well(&self) -> bool {
        !self.is_named(EventName::Error) && !self.is_named(EventName::Cancelled)
    }

    /// Whether this is a terminal event where `rule` applies.
    pub fn ends_reply(&self, rule: &config::Generations) -> bool {
        self.is_named(EventName::Cancelled)
            || (self.by_gateway && self.is_named(EventName::Error))
            || rule.terminal_events.iter().any(|name| *name == self.name)
    }

    pub fn read(json: &'a [u8]) -> Option<Self> {
        let fields: Fields<'a> = serde_json::from_slice(json).ok()?;
        let task_id = fields.task_id.and_then(|raw| match raw.get().as_bytes().first() {
            Some(b'"') => serde_json::from_str(raw.get()).ok().map(Cow::Owned),
            Some(b'0'..=b'9' | b'-') => Some(Cow::Borrowed(raw.get())),
            _ => None,
        });
        let by_gateway = fields.code.is_some_and(|code| {
            let code = code.get().trim_matches('"');
            ENDS.iter().any(|end| end.label() == code)
        });
        Some(Self { name: fields.event?, task_id, by_gateway })
    }

    /// The name alone, where the object begins with it, as most do; `None` = read the whole.
    pub fn quick_name(json: &'a [u8]) -> Option<&'a [u8]> {
        let rest = after_space(json).strip_prefix(b"{")?;
        let rest = after_space(rest).strip_prefix(br#""event""#)?;
        let rest = after_space(rest).strip_prefix(b":")?;
        let rest = after_space(rest).strip_prefix(b"\"")?;
        let end = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        (rest[end] == b'"').then(|| &rest[..end])
    }
}

fn after_space(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii_start()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<(String, Option<String>, bool)> {
        let event = Event::read(json.as_bytes())?;
        Some((event.name.into_owned(), event.task_id.map(Cow::into_owned), event.by_gateway))
    }

    #[test]
    fn names_and_tasks_are_read() {
        for (json, name, task, lost) in [
            (r#"{"event":"complete"}"#, "complete", None, false),
            (
                r#"{"x":[1,{"event":"no"}],"event":"a\u0062","task_id":"t\"1"}"#,
                "ab",
                Some("t\"1"),
                false,
            ),
            (r#"{"event":"e","task_id":17}"#, "e", Some("17"), false),
            (r#"{"event":"e","task_id":null}"#, "e", None, false),
            (r#"{"event":"e","task_id":{"a":1}}"#, "e", None, false),
            (r#"{"event":"error","code":"worker_lost","task_id":"t"}"#, "error", Some("t"), true),
            (r#"{"event":"error","code":7}"#, "error", None, false),
        ] {
            let expected = (name.to_owned(), task.map(str::to_owned), lost);
            assert_eq!(read(json), Some(expected), "{json}");
        }
        for json in
            ["", "hello", "[]", "{}", r#"{"event":7}"#, r#"{"event":null}"#, "{\"event\":\"a\""]
        {
            assert_eq!(read(json), None, "{json}");
        }
    }

    #[test]
    fn a_name_in_front_is_read_without_the_rest() {
        for (json, name) in [
            (r#"{"event":"chunk","chunk":"a"}"#, Some("chunk")),
            (" { \"event\" :\n\"chunk\" garbage", Some("chunk")),
            (r#"{"event":"a\"b"}"#, None),
            (r#"{"events":"chunk"}"#, None),
            (r#"{"chunk":"a","event":"chunk"}"#, None),
            (r#"{"event":"unfinished"#, None),
            ("", None),
        ] {
            assert_eq!(Event::quick_name(json.as_bytes()), name.map(str::as_bytes), "{json}");
        }
    }
}
