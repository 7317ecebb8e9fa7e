//! The members of an event that the gateway reads, and the one that it adds to the events of a streamed reply.

use std::borrow::Cow;

use bytes::Bytes;

use super::{json_members, json_text};

/// The top-level members of a publication that the gateway reads. Of two members with the same name the last one
/// counts, as in `JSON.parse`.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventMembers<'a> {
    event: Option<&'a str>,
    task_id: Option<&'a str>,
    code: Option<&'a str>,
}

impl<'a> EventMembers<'a> {
    /// `None` if the publication is not a JSON object.
    pub fn read(json: &'a [u8]) -> Option<Self> {
        let Some(Cow::Borrowed(json)) = json_text(std::str::from_utf8(json).ok()?) else {
            return None;
        };
        let mut members = json.starts_with('{').then(Self::default)?;
        for (name, value) in json_members(json) {
            match &*unquoted(name) {
                "event" => members.event = Some(value),
                "task_id" => members.task_id = Some(value),
                "code" => members.code = Some(value),
                _ => {}
            }
        }
        Some(members)
    }

    /// The name of the event; `None` if it has none, or one that is not a string.
    pub fn event(&self) -> Option<Cow<'a, str>> {
        self.event.and_then(text)
    }

    /// The id of the task; a number is given as its text. `None` if there is none, or one of another type.
    pub fn task_id(&self) -> Option<Cow<'a, str>> {
        let json = self.task_id?;
        match json.as_bytes().first() {
            Some(b'0'..=b'9' | b'-') => Some(Cow::Borrowed(json)),
            _ => text(json),
        }
    }

    /// Whether there is no `task_id`, or one that is `null`.
    pub fn names_no_task(&self) -> bool {
        self.task_id.is_none_or(|json| json == "null")
    }

    /// The error code, if it is a string.
    pub fn code(&self) -> Option<Cow<'a, str>> {
        self.code.and_then(text)
    }
}

/// The text of a JSON string. `None` for any other value, and for a string that is not valid Unicode.
fn text(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(json).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// The name of a member without its quotes.
fn unquoted(name: &str) -> Cow<'_, str> {
    let inner = name.trim_matches('"');
    match inner.contains('\\') {
        // A name that is not valid Unicode stays as it is, and is none that is looked for.
        true => serde_json::from_str(name).unwrap_or(Cow::Borrowed(inner)),
        false => Cow::Borrowed(inner),
    }
}

/// Adds `"task_id"` as the last member of a JSON object, in front of which the rest stays as it is. Anything that is
/// not an object is returned unchanged.
pub fn with_task_id(json: &Bytes, task_id: &str) -> Bytes {
    let trimmed = json.trim_ascii();
    let Some(members) = trimmed.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}")) else {
        return json.clone();
    };
    let name: &[u8] = match members.trim_ascii().is_empty() {
        true => br#""task_id":"#,
        false => br#","task_id":"#,
    };
    // Room for an id that needs no escapes, with its quotes and the brace.
    let mut all = Vec::with_capacity(trimmed.len() + name.len() + task_id.len() + 2);
    all.extend_from_slice(&trimmed[..trimmed.len() - 1]);
    all.extend_from_slice(name);
    serde_json::to_writer(&mut all, task_id).expect("a string serializes, and memory takes it");
    all.push(b'}');
    all.into()
}

#[cfg(test)]
mod tests;
