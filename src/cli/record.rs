//! A publication as it was seen on a channel: what `tail` prints and `replay` reads.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Fields that hold what people read, in this order of preference.
const TEXTS: [&str; 6] = ["chunk", "text", "message", "error", "content", "delta"];

/// Fields that are told otherwise, or are noise to people.
const ASIDE: [&str; 4] = ["event", "offset", "epoch", "timestamp"];

/// One line of `tail --json`. What was published is in one of `data`, `text` and `base64`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// When it was seen; `None` = it was read from the channel's history.
    #[serde(default)]
    pub time: Option<String>,
    #[serde(default)]
    pub channel: String,
    #[serde(default)]
    pub offset: Option<u64>,
    #[serde(default)]
    pub epoch: Option<String>,
    /// It is JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
    /// It is no JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// It is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

impl Record {
    /// Puts a text of the channel, as clients get it, into the record, as it was published: without
    /// its place. The epoch that stood with the first of an epoch is kept.
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

    /// For people: offset, time of day (UTC), event and text.
    pub fn to_line(&self) -> String {
        let offset = self.offset.map_or("-".to_owned(), |offset| offset.to_string());
        // 2026-11-23T23:57:38.603226Z
        let time = self.time.as_deref().and_then(|time| time.get(11..23)).unwrap_or("-");
        let (event, text) = self.event_and_text();
        let line = format!("{offset:>6}  {time:<12}  {:<18}  {}", shown(&event), shown(&text));
        line.trim_end().to_owned()
    }

    fn event_and_text(&self) -> (String, String) {
        let (Some(data), _) = (&self.data, ()) else {
            let text = self.text.clone().or_else(|| self.base64.clone());
            let kind = if self.text.is_some() { "(text)" } else { "(binary)" };
            return (kind.to_owned(), text.unwrap_or_default());
        };
        let Ok(object) = serde_json::from_str::<Map<String, Value>>(data.get()) else {
            return ("(json)".to_owned(), data.get().to_owned());
        };
        let event = object.get("event").and_then(Value::as_str).unwrap_or("-").to_owned();
        let text = TEXTS.iter().find_map(|name| Some((*name, object.get(*name)?.as_str()?)));
        let mut parts: Vec<String> = text.iter().map(|(_, text)| (*text).to_owned()).collect();
        let rest = object.iter().filter(|(name, _)| {
            !ASIDE.contains(&name.as_str()) && text.is_none_or(|(read, _)| read != *name)
        });
        parts.extend(rest.map(|(name, value)| match value.as_str() {
            Some(text) if !text.contains(char::is_whitespace) => format!("{name}={text}"),
            _ => format!("{name}={value}"),
        }));
        (event, parts.join("  "))
    }
}

/// What was published, and the epoch that it begins. `None` = the text does not end as one of `offset`.
fn without_position(text: &str, offset: u64) -> (Option<String>, Option<String>) {
    let place = format!("\"offset\":{offset}");
    let Some(at) = text.rfind(&place) else { return (None, None) };
    let end = &text[at + place.len()..];
    let epoch = end.strip_prefix(",\"epoch\":\"").and_then(|rest| rest.strip_suffix("\"}"));
    if end != "}" && epoch.is_none() {
        return (None, None);
    }
    let fields = &text[..at];
    let published = format!("{}}}", fields.strip_suffix(',').unwrap_or(fields));
    (Some(published), epoch.map(str::to_owned))
}

/// Without what would move the cursor of a terminal, or worse.
pub fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        // Marks that turn the direction of writing are no control characters.
        let turns = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || turns {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str, offset: Option<u64>) -> Record {
        let mut record = Record {
            time: Some("2026-11-23T23:57:38.603226Z".to_owned()),
            channel: "chat_42".to_owned(),
            offset,
            epoch: None,
            data: None,
            text: None,
            base64: None,
        };
        record.set_text(text.to_owned());
        record
    }

    #[test]
    fn a_record_is_what_was_published() {
        for (text, offset, data, epoch) in [
            (r#"{"a":1,"offset":7}"#, Some(7), r#"{"a":1}"#, None),
            (r#"{"offset":3,"a":1,"offset":7}"#, Some(7), r#"{"offset":3,"a":1}"#, None),
            (r#"{"offset":1,"epoch":"ab"}"#, Some(1), "{}", Some("ab")),
            (r#"{"a":{"offset":7}}"#, Some(7), r#"{"a":{"offset":7}}"#, None),
            (r#"{"a":1,"offset":7}"#, None, r#"{"a":1,"offset":7}"#, None),
        ] {
            let record = record(text, offset);
            assert_eq!(record.data.unwrap().get(), data, "{text}");
            assert_eq!(record.epoch.as_deref(), epoch, "{text}");
        }
        assert_eq!(record("hello", None).text.as_deref(), Some("hello"));
    }

    #[test]
    fn a_line_is_read_again() {
        let line =
            serde_json::to_string(&record(r#"{"z":1, "a":2.50,"offset":7}"#, Some(7))).unwrap();
        let expected = r#"{"time":"2026-11-23T23:57:38.603226Z","channel":"chat_42","offset":7,"epoch":null,"data":{"z":1, "a":2.50}}"#;
        assert_eq!(line, expected);
        let again: Record = serde_json::from_str(&line).unwrap();
        assert_eq!(again.data.unwrap().get(), r#"{"z":1, "a":2.50}"#);
    }

    #[test]
    fn people_read_time_event_and_text() {
        for (text, line) in [
            (
                r#"{"event":"chunk","chunk":"Hello ","task_id":"t1","offset":7}"#,
                "     7  23:57:38.603  chunk               Hello   task_id=t1",
            ),
            (r#"{"event":"complete","offset":7}"#, "     7  23:57:38.603  complete"),
            (
                r#"{"event":"error","error":"no","code":"busy","n":{"a":[1]},"offset":7}"#,
                r#"     7  23:57:38.603  error               no  code=busy  n={"a":[1]}"#,
            ),
            (
                "{\"event\":\"\\u001b[2J\",\"text\":\"a\\nb\\u202e\",\"offset\":7}",
                "     7  23:57:38.603  \\u{1b}[2J           a\\nb\\u{202e}",
            ),
        ] {
            assert_eq!(record(text, Some(7)).to_line(), line);
        }
        assert_eq!(record("[1]", None).to_line(), "     -  23:57:38.603  (json)              [1]");
        assert_eq!(record("hi", None).to_line(), "     -  23:57:38.603  (text)              hi");
    }
}
