//! Parses the first level of JSON that Python's `json.dumps` wrote, and keeps the raw text of the values.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Floats that Python writes although they are not valid JSON, longest first.
const BARE_FLOATS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Puts `NaN`, `Infinity` and `-Infinity` into quotes wherever they occur outside a string.
pub(super) fn without_bare_floats(text: &str) -> Cow<'_, str> {
    if !text.contains("NaN") && !text.contains("Infinity") {
        return Cow::Borrowed(text);
    }
    let mut quoted = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(at) = rest.find(['"', 'N', 'I', '-']) {
        let (before, from) = rest.split_at(at);
        quoted.push_str(before);
        let float = BARE_FLOATS.into_iter().find(|float| from.starts_with(float));
        let length = match float {
            Some(float) => float.len(),
            None if from.starts_with('"') => string_length(from),
            None => 1,
        };
        let (token, after) = from.split_at(length);
        let quote = if float.is_some() { "\"" } else { "" };
        quoted.extend([quote, token, quote]);
        rest = after;
    }
    quoted.push_str(rest);
    Cow::Owned(quoted)
}

/// The length of the JSON string at the start of `text`, with its quotes; the length of `text` if the string is not
/// terminated.
fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A JSON object that keeps the raw text of its names and values.
pub(super) struct Object<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'a> Object<'a> {
    /// Parses `text`; `None` unless it is exactly one object.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The members: the raw name, in quotes, and the raw value of each.
    pub(super) fn members(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().map(|(name, value)| (name.get(), value.get()))
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// Parses a string or an array of strings; `None` for anything else.
pub(super) fn texts(value: &str) -> Option<Vec<String>> {
    if value.starts_with('"') {
        return serde_json::from_str(value).ok().map(|text| vec![text]);
    }
    serde_json::from_str(value).ok()
}

#[cfg(test)]
mod tests;
