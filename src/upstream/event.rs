//! Conversion of a stream's data to JSON objects with a string `event`.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::protocol::EventName;

/// The maximum size of an event; a larger one ends the reply.
pub(super) const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// The last event of streams in the format of OpenAI.
const DONE: &str = "[DONE]";

pub(super) fn is_done(data: &str) -> bool {
    data.trim() == DONE
}

/// Whether the text is a JSON value of any type.
pub(super) fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// Returns an object with a string `event` unchanged. An object without `event` gets `name`, if the stream
/// named the event. Anything else, text that is not JSON included, is wrapped as a chunk.
pub(super) fn to_object(name: &str, data: &str) -> Bytes {
    let Ok(json) = serde_json::from_str::<&RawValue>(data) else {
        let text = serde_json::Value::from(data);
        return chunk(&text.to_string());
    };
    let json = json.get();
    match event_field(json) {
        EventField::Text => Bytes::copy_from_slice(json.as_bytes()),
        EventField::Missing if !matches!(name, "" | "message") => with_name(name, json),
        EventField::Missing | EventField::Other => chunk(json),
    }
}

/// The `event` of a JSON value.
enum EventField {
    Text,
    Missing,
    /// `event` is not a string, or the value is not an object.
    Other,
}

fn event_field(json: &str) -> EventField {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        event: Option<&'a RawValue>,
    }
    if !json.starts_with('{') {
        return EventField::Other;
    }
    match serde_json::from_str::<Event>(json) {
        Ok(Event { event: Some(event) }) if event.get().starts_with('"') => EventField::Text,
        Ok(Event { event: None }) => EventField::Missing,
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
