//! Conversion of a stream's data to JSON objects with a string `event`, for upstreams that write events of their own.

use std::borrow::Cow;

use bytes::Bytes;

use super::dialect::Failure;
use crate::protocol::{ErrorCode, EventName, json_members, json_text};

/// The maximum size of an event; a larger one ends the reply.
pub(super) const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// The last event of streams in the format of OpenAI.
const DONE: &str = "[DONE]";

pub(super) fn is_done(data: &str) -> bool {
    data.trim() == DONE
}

/// Whether the text is a JSON value of any type.
pub(super) fn is_json(text: &str) -> bool {
    json_text(text).is_some()
}

/// Returns an object with a string `event` unchanged, except that `NaN` and infinities get quotes. Anything else keeps the
/// name that the stream gives it: an object gets it as its `event`, any other value becomes the member `data`. Without a
/// name it is wrapped as a chunk. Text that is not JSON counts as a string.
pub(super) fn to_object(name: &str, data: &str) -> Bytes {
    let (json, event) = match json_text(data) {
        Some(json) => {
            let event = event_field(&json);
            (json, event)
        }
        None => (Cow::Owned(serde_json::Value::from(data).to_string()), EventField::Other),
    };
    match event {
        EventField::Text => Bytes::copy_from_slice(json.as_bytes()),
        _ if is_unnamed(name) => chunk(&json),
        EventField::Missing => with_name(name, &json),
        EventField::Null => with_name(name, &without_event(&json)),
        EventField::Other if data.is_empty() => with_name(name, "{}"),
        EventField::Other if name == EventName::Chunk.label() => chunk(&json),
        EventField::Other => with_name(name, &format!(r#"{{"data":{json}}}"#)),
    }
}

/// Returns the error event of data that the stream names `error`; `None` if the data says itself which event it is. An
/// object keeps its members. What is not there yet: `error` is a text for people, and `code` a string.
pub(super) fn to_error(data: &str) -> Option<Bytes> {
    let json = json_text(data);
    let object = json.as_deref().filter(|json| json.starts_with('{'));
    if let Some(object) = object
        && matches!(event_field(object), EventField::Text)
    {
        return None;
    }
    let failure = Failure::read(data);
    let members: Vec<_> = object.map(|object| json_members(object).collect()).unwrap_or_default();
    let text = |member: &str| {
        let found = members.iter().find(|(name, _)| is_named(name, member));
        found.map(|(_, value)| *value).filter(|value| value.starts_with('"'))
    };
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let error = text("error").map_or_else(|| quoted(&failure.text), str::to_owned);
    let code = text("code").map_or_else(|| quoted(ErrorCode::TaskFailed.label()), str::to_owned);
    let mut event = format!(r#"{{"event":"error","error":{error},"code":{code}"#);
    if text("code").is_none()
        && let Some(code) = failure.code
    {
        event.push_str(&format!(r#","upstream_code":{}"#, quoted(&code)));
    }
    for (name, value) in &members {
        let is_written = ["event", "error", "code", "upstream_code"];
        if !is_written.iter().any(|written| is_named(name, written)) {
            event.extend([",", name, ":", value]);
        }
    }
    event.push('}');
    Some(event.into())
}

/// Whether the stream gives an event no name; `message` is the default of event streams.
fn is_unnamed(name: &str) -> bool {
    matches!(name, "" | "message")
}

/// The `event` of a JSON value.
enum EventField {
    Text,
    Missing,
    /// It is `null`, which is no name.
    Null,
    /// `event` is something else, or occurs twice, or the value is not an object.
    Other,
}

fn event_field(json: &str) -> EventField {
    if !json.starts_with('{') {
        return EventField::Other;
    }
    let mut events = json_members(json).filter(|(name, _)| is_named(name, "event"));
    match (events.next(), events.next()) {
        (None, _) => EventField::Missing,
        (Some((_, value)), None) if value.starts_with('"') => EventField::Text,
        (Some((_, "null")), None) => EventField::Null,
        _ => EventField::Other,
    }
}

/// Whether the quoted name of a member is this one.
fn is_named(quoted: &str, name: &str) -> bool {
    match quoted.contains('\\') {
        true => serde_json::from_str::<Cow<str>>(quoted).is_ok_and(|quoted| quoted == name),
        false => quoted.strip_prefix('"').and_then(|it| it.strip_suffix('"')) == Some(name),
    }
}

fn without_event(object: &str) -> String {
    let members = json_members(object).filter(|(name, _)| !is_named(name, "event"));
    let members: Vec<String> = members.map(|(name, value)| format!("{name}:{value}")).collect();
    format!("{{{}}}", members.join(","))
}

fn with_name(name: &str, object: &str) -> Bytes {
    let fields = object.strip_prefix('{').unwrap_or(object).trim_start();
    let comma = if fields.starts_with('}') { "" } else { "," };
    format!(r#"{{"event":{}{comma}{fields}"#, serde_json::Value::from(name)).into()
}

fn chunk(json: &str) -> Bytes {
    let event = EventName::Chunk;
    format!(r#"{{"event":"{event}","chunk":{json}}}"#).into()
}

#[cfg(test)]
mod tests;
