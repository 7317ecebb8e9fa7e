//! Text in the form in which it stands between the quotes of a JSON string.
//!
//! A delta goes from the API's JSON into the gateway's without being decoded, and pieces of a text are joined as they
//! are: the halves of an escaped surrogate pair that two deltas bring become one character.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Invariant: between two quotes it is a JSON string.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Escaped<'a>(Cow<'a, str>);

impl<'a> Escaped<'a> {
    /// `None` if the value is not a string.
    pub fn of_string(json: &'a RawValue) -> Option<Self> {
        inner(json.get()).map(|inner| Self(Cow::Borrowed(inner)))
    }

    /// Escapes a text.
    pub fn new(text: &str) -> Self {
        if text.bytes().all(|byte| byte >= b' ' && !matches!(byte, b'"' | b'\\')) {
            return Self(Cow::Owned(text.to_owned()));
        }
        let json = serde_json::Value::from(text).to_string();
        Self(Cow::Owned(inner(&json).unwrap_or_default().to_owned()))
    }

    /// The text of a JSON value: what a string says, and any other value as it is written.
    pub fn of_value(json: &'a RawValue) -> Self {
        Self::of_string(json).unwrap_or_else(|| Self::new(json.get()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text behind its first bytes; `None` if they do not end with a character.
    pub fn without_start(&self, bytes: usize) -> Option<Escaped<'_>> {
        self.0.get(bytes..).map(|rest| Escaped(Cow::Borrowed(rest)))
    }

    /// What the text says. Single halves of surrogate pairs become U+FFFD.
    pub fn decode(&self) -> Cow<'_, str> {
        decode(&self.0)
    }

    pub fn into_owned(self) -> Escaped<'static> {
        Escaped(Cow::Owned(self.0.into_owned()))
    }
}

/// Returns what an escaped text says.
pub(super) fn decode(escaped: &str) -> Cow<'_, str> {
    if !escaped.contains('\\') {
        return Cow::Borrowed(escaped);
    }
    let (paired, half) = crate::protocol::pair_surrogates(escaped);
    let half = if half.is_empty() { "" } else { "\\ufffd" };
    let text = serde_json::from_str::<String>(&format!("\"{paired}{half}\""));
    text.map_or(Cow::Borrowed(escaped), Cow::Owned)
}

fn inner(json: &str) -> Option<&str> {
    json.strip_prefix('"')?.strip_suffix('"')
}

/// A member that should be a string. Anything else counts as absent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Text<'a>(Option<&'a str>);

impl<'a> Text<'a> {
    /// The text as it is escaped.
    pub fn get(self) -> Option<Escaped<'a>> {
        self.0.map(|inner| Escaped(Cow::Borrowed(inner)))
    }

    /// The same if it is not empty.
    pub fn filled(self) -> Option<Escaped<'a>> {
        self.get().filter(|text| !text.is_empty())
    }

    /// The text of a word that needs no escape; empty if it is absent.
    pub fn word(self) -> &'a str {
        self.0.unwrap_or_default()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&'de RawValue>::deserialize(deserializer)?;
        Ok(Self(inner(json.get())))
    }
}

/// A member that should be a whole number that is not negative. Anything else counts as absent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Count(pub Option<u64>);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&'de RawValue>::deserialize(deserializer)?.get();
        // Some servers write whole numbers as 9.0.
        let whole = json.strip_suffix(".0").unwrap_or(json);
        Ok(Self(whole.parse().ok()))
    }
}
