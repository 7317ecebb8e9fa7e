//! What the gateway reads of a publication: the name of its event and its task. Nothing is read of a publication
//! that is not a JSON object.

use std::borrow::Cow;

use crate::config;
use crate::protocol::{ErrorCode, EventMembers, EventName};

/// The event of a publication.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event<'a> {
    pub name: Cow<'a, str>,
    /// A number is given as its text.
    pub task_id: Option<Cow<'a, str>>,
    /// Its error code is one that only the gateway writes, and that ends a generation on every route.
    pub by_gateway: bool,
}

/// The error codes that end a generation.
const TERMINAL_CODES: [ErrorCode; 4] =
    [ErrorCode::WorkerLost, ErrorCode::TaskFailed, ErrorCode::TaskRevoked, ErrorCode::TaskExpired];

impl<'a> Event<'a> {
    fn is_named(&self, name: EventName) -> bool {
        self.name == name.label()
    }

    /// Whether this event begins a reply.
    pub fn is_begin(&self) -> bool {
        self.is_named(EventName::ProcessingStarted)
    }

    /// Whether this says that a task was cancelled.
    pub fn is_cancellation(&self) -> bool {
        self.is_named(EventName::Cancelled)
    }

    /// Whether this has the name by which the gateway itself ends a reply.
    pub fn is_complete(&self) -> bool {
        self.is_named(EventName::Complete)
    }

    /// Whether this is a part of the reply, given that it is not terminal: neither `processing_started` nor an
    /// announcement of a member.
    pub fn is_content(&self) -> bool {
        !self.is_begin() && !self.is_named(EventName::Join) && !self.is_named(EventName::Leave)
    }

    /// Whether a terminal event is a success. It may then be the whole reply in one piece.
    pub fn is_success(&self) -> bool {
        !self.is_named(EventName::Error) && !self.is_named(EventName::Cancelled)
    }

    /// Whether this is a terminal event where `rule` applies.
    pub fn ends_reply(&self, rule: &config::Generations) -> bool {
        self.is_named(EventName::Cancelled)
            || (self.by_gateway && self.is_named(EventName::Error))
            || rule.terminal_events.iter().any(|name| *name == self.name)
    }

    /// `None` if the publication is not a JSON object with an event name.
    pub fn read(json: &'a [u8]) -> Option<Self> {
        let members = EventMembers::read(json)?;
        let by_gateway =
            members.code().is_some_and(|code| TERMINAL_CODES.iter().any(|end| end.label() == code));
        Some(Self { name: members.event()?, task_id: members.task_id(), by_gateway })
    }

    /// Returns the name without parsing the whole object, if the object begins with it, as most do.
    pub fn leading_name(json: &'a [u8]) -> Option<&'a [u8]> {
        let rest = after_space(json).strip_prefix(b"{")?;
        let rest = after_space(rest).strip_prefix(br#""event""#)?;
        let rest = after_space(rest).strip_prefix(b":")?;
        let rest = after_space(rest).strip_prefix(b"\"")?;
        let end = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        (rest[end] == b'"').then(|| &rest[..end])
    }
}

impl Event<'_> {
    /// Whether a publication certainly is no event with a name for which `is_wanted` returns true: found without parsing it,
    /// for most of those that do not begin with their names. Members in front of the name cost little then.
    pub fn is_certainly_not(json: &[u8], is_wanted: impl Fn(&[u8]) -> bool) -> bool {
        const KEY: &[u8] = br#""event""#;
        // With an escape, the text of a name may look different.
        if json.contains(&b'\\') {
            return false;
        }
        let quotes = json.iter().enumerate().filter(|(_, byte)| **byte == b'"');
        let mut keys = quotes.map(|(at, _)| &json[at..]).filter_map(|from| from.strip_prefix(KEY));
        let Some(rest) = keys.next() else { return true };
        if keys.next().is_some() {
            return false;
        }
        let rest = after_space(rest);
        let Some(value) = rest.strip_prefix(b":") else { return true };
        let Some(name) = after_space(value).strip_prefix(b"\"") else { return true };
        name.iter().position(|byte| *byte == b'"').is_some_and(|end| !is_wanted(&name[..end]))
    }
}

fn after_space(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii_start()
}

#[cfg(test)]
mod tests;
