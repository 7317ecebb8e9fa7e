//! Conversion of a stream's data to JSON objects with a string `event`.

use std::borrow::Cow;

use bytes::Bytes;

use crate::protocol::{EventName, json_members, json_text};

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

/// Returns an object with a string `event` unchanged, except that `NaN` and infinities get quotes. An object without
/// `event` gets `name`, if the stream named the event. Anything else, text that is not JSON included, is wrapped as a
/// chunk.
pub(super) fn to_object(name: &str, data: &str) -> Bytes {
    let Some(json) = json_text(data) else {
        let text = serde_json::Value::from(data);
        return chunk(&text.to_string());
    };
    match event_field(&json) {
        EventField::Text => Bytes::copy_from_slice(json.as_bytes()),
        EventField::Missing if !matches!(name, "" | "message") => with_name(name, &json),
        EventField::Missing | EventField::Other => chunk(&json),
    }
}

/// The `event` of a JSON value.
enum EventField {
    Text,
    Missing,
    /// `event` is not a string, or occurs twice, or the value is not an object.
    Other,
}

fn event_field(json: &str) -> EventField {
    if !json.starts_with('{') {
        return EventField::Other;
    }
    let is_event = |name: &str| match name {
        "\"event\"" => true,
        name if name.contains('\\') => {
            serde_json::from_str::<Cow<str>>(name).is_ok_and(|name| name == "event")
        }
        _ => false,
    };
    let mut events = json_members(json).filter(|(name, _)| is_event(name));
    match (events.next(), events.next()) {
        (None, _) => EventField::Missing,
        (Some((_, value)), None) if value.starts_with('"') => EventField::Text,
        _ => EventField::Other,
    }
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
