//! A recorded publication of a channel, which `tail` prints and `replay` reads.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Fields with text for people, in order of preference.
const TEXT_FIELDS: [&str; 6] = ["chunk", "text", "message", "error", "content", "delta"];

/// Fields that a line for people omits, because it has them elsewhere or does not need them.
const OMITTED_FIELDS: [&str; 4] = ["event", "offset", "epoch", "timestamp"];

/// One line of `tail --json`. Exactly one of `data`, `text` and `base64` holds the publication.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// When it was received; `None` if it was read from the channel's history.
    #[serde(default)]
    pub time: Option<String>,
    #[serde(default)]
    pub channel: String,
    #[serde(default)]
    pub offset: Option<u64>,
    #[serde(default)]
    pub epoch: Option<String>,
    /// The publication, if it is JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
    /// The publication, if it is text but not JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The publication, if it is binary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

impl Record {
    /// A record without a publication.
    pub fn new(channel: String, offset: Option<u64>) -> Self {
        Self { time: None, channel, offset, epoch: None, data: None, text: None, base64: None }
    }

    /// Sets the publication to a text as clients receive it, and removes the offset that the gateway
    /// added. If the text has an epoch, the record takes it.
    pub fn set_text(&mut self, text: String) {
        let (published, epoch) = match self.offset {
            Some(offset) => without_position(&text, offset),
            None => (None, None),
        };
        if let Some(epoch) = epoch {
            self.epoch = Some(epoch);
        }
        match RawValue::from_string(published.unwrap_or(text.clone())) {
            Ok(json) => self.data = Some(json),
            Err(_) => self.text = Some(text),
        }
    }

    /// Formats a line for people: offset, time of day (UTC), event and text.
    pub fn to_line(&self) -> String {
        let offset = self.offset.map_or("-".to_owned(), |offset| offset.to_string());
        // 2026-11-23T23:57:38.603226Z
        let time = self.time.as_deref().and_then(|time| time.get(11..23)).unwrap_or("-");
        let (event, text) = self.event_and_text();
        let line = format!(
            "{offset:>6}  {time:<12}  {:<18}  {}",
            escape_controls(&event),
            escape_controls(&text)
        );
        line.trim_end().to_owned()
    }

    fn event_and_text(&self) -> (String, String) {
        let Some(data) = &self.data else {
            let text = self.text.clone().or_else(|| self.base64.clone());
            let kind = if self.text.is_some() { "(text)" } else { "(binary)" };
            return (kind.to_owned(), text.unwrap_or_default());
        };
        let Ok(object) = serde_json::from_str::<Map<String, Value>>(data.get()) else {
            return ("(json)".to_owned(), data.get().to_owned());
        };
        let event = object.get("event").and_then(Value::as_str).unwrap_or("-").to_owned();
        let text = TEXT_FIELDS.iter().find_map(|name| Some((*name, object.get(*name)?.as_str()?)));
        let mut parts: Vec<String> = text.iter().map(|(_, text)| (*text).to_owned()).collect();
        let rest = object.iter().filter(|(name, _)| {
            !OMITTED_FIELDS.contains(&name.as_str()) && text.is_none_or(|(read, _)| read != *name)
        });
        parts.extend(rest.map(|(name, value)| match value.as_str() {
            Some(text) if !text.contains(char::is_whitespace) => format!("{name}={text}"),
            _ => format!("{name}={value}"),
        }));
        (event, parts.join("  "))
    }
}

/// The publication without the offset and epoch that the gateway added, and that epoch. Both are `None` if
/// the text does not end with `offset`.
fn without_position(text: &str, offset: u64) -> (Option<String>, Option<String>) {
    let field = format!("\"offset\":{offset}");
    let Some(at) = text.rfind(&field) else { return (None, None) };
    let end = &text[at + field.len()..];
    let epoch = end.strip_prefix(",\"epoch\":\"").and_then(|rest| rest.strip_suffix("\"}"));
    if end != "}" && epoch.is_none() {
        return (None, None);
    }
    let fields = &text[..at];
    let published = format!("{}}}", fields.strip_suffix(',').unwrap_or(fields));
    (Some(published), epoch.map(str::to_owned))
}

/// Escapes characters that would control the terminal or change the direction of text.
pub fn escape_controls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        // Unicode does not count these marks as control characters.
        let is_direction_mark = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || is_direction_mark {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests;
