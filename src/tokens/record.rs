//! The record behind a connection token, as the gateway or a backend writes it.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::Identity;
use crate::clock;
use crate::pickle;
use crate::protocol::{ChannelPattern, UserId, json_members, json_text};
use crate::telemetry::credentials::Consumption;

/// The data behind a connection token: the JSON record of docs/protocol.md.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenRecord {
    /// An integer or a non-empty string.
    #[serde(deserialize_with = "user_id")]
    pub user_id: UserId,
    #[serde(default)]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_id: Option<String>,
    /// Unix seconds, for people who inspect the store; the gateway does not use it.
    #[serde(default, deserialize_with = "lenient_time")]
    pub created_at: f64,
    #[serde(default)]
    pub used: bool,
    /// Channel patterns; `None` = every channel of the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The end of the session, in Unix seconds.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_seconds"
    )]
    pub session_expires_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<Value>,
}

impl TokenRecord {
    /// The maximum length of a record, both when it is written and when it is read.
    pub const MAX_BYTES: usize = 16 * 1024;

    /// Encodes the record for a store; `None` = it is longer than [`TokenRecord::MAX_BYTES`].
    pub fn to_json(&self) -> Option<String> {
        serde_json::to_string(self).ok().filter(|json| json.len() <= Self::MAX_BYTES)
    }

    /// Encodes the record as Django's cache does; `None` = it is longer than [`TokenRecord::MAX_BYTES`].
    pub fn to_pickle(&self) -> Option<Vec<u8>> {
        let pickle = pickle::write_json(&serde_json::to_value(self).ok()?);
        (pickle.len() <= Self::MAX_BYTES).then_some(pickle)
    }

    /// Decodes a stored record. A field of the wrong type refuses the whole record, because it may be a
    /// limit that was not understood. Fields that are not read may have any value.
    pub fn read(json: &[u8]) -> Result<Self, Unusable> {
        if json.len() > Self::MAX_BYTES {
            return Err(Unusable::malformed("a record of over 16 KiB"));
        }
        let text = str::from_utf8(json).ok().and_then(json_text);
        let text = text.ok_or_else(|| Unusable::malformed("a record that is not JSON"))?;
        if !text.starts_with('{') {
            return Err(Unusable::malformed("a record that is not a JSON object"));
        }
        let mut fields = Fields::default();
        for (name, value) in json_members(&text) {
            // A name that is not valid Unicode is none that is read.
            let Ok(name) = serde_json::from_str::<Cow<str>>(name) else { continue };
            if fields.0.contains_key(&*name) {
                return Err(Unusable::malformed(&format!("the field {name} twice")));
            }
            fields.add(&name, || {
                serde_json::from_str(value).map_err(|_| "a text that is not valid")
            })?;
        }
        fields.finish()
    }

    /// Decodes a record of Django's cache by the same rules: a pickle, or JSON if its serializer writes that.
    pub fn read_django(bytes: &[u8]) -> Result<Self, Unusable> {
        if !pickle::is_pickle(bytes) {
            return Self::read(bytes);
        }
        if bytes.len() > Self::MAX_BYTES {
            return Err(Unusable::malformed("a record of over 16 KiB"));
        }
        let record = pickle::read(bytes).map_err(|why| Unusable::malformed(&why.to_string()))?;
        let dict = record.fields();
        let mut fields = Fields::default();
        for (name, value) in
            dict.ok_or_else(|| Unusable::malformed("a pickle that is not a dict"))?
        {
            fields.add(name, || record.json_of(value))?;
        }
        fields.finish()
    }

    fn check(record: Self) -> Result<Self, Unusable> {
        if record.used {
            return Err(Consumption::Used.into());
        }
        if record.session_expires_at.is_some_and(|end| end <= clock::unix_seconds()) {
            return Err(Consumption::SessionOver.into());
        }
        Ok(record)
    }
}

/// Why a token cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub struct Unusable {
    pub outcome: Consumption,
    /// What is wrong with its record, for the log. It never has a value of the record.
    pub reason: Option<String>,
}

impl Unusable {
    fn malformed(reason: &str) -> Self {
        Self { outcome: Consumption::MalformedRecord, reason: Some(reason.to_owned()) }
    }
}

impl From<Consumption> for Unusable {
    fn from(outcome: Consumption) -> Self {
        Self { outcome, reason: None }
    }
}

/// The fields on which something depends.
const READ: [&str; 7] =
    ["user_id", "username", "connection_id", "used", "channels", "origin", "session_expires_at"];

/// The fields that are kept if they can be, although nothing depends on them.
const KEPT: [&str; 2] = ["created_at", "claims"];

/// The fields of a record. Those that are not known are left out.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    /// Adds a field whose value `read` converts.
    fn add<E: fmt::Display>(
        &mut self,
        name: &str,
        read: impl FnOnce() -> Result<Value, E>,
    ) -> Result<(), Unusable> {
        if !READ.contains(&name) && !KEPT.contains(&name) {
            return Ok(());
        }
        match read() {
            Ok(value) => drop(self.0.insert(name.to_owned(), value)),
            Err(why) if READ.contains(&name) => {
                return Err(Unusable::malformed(&format!("the field {name} has {why}")));
            }
            Err(_) => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<TokenRecord, Unusable> {
        match TokenRecord::deserialize(&self.0) {
            Ok(record) => TokenRecord::check(record),
            Err(_) => Err(Unusable::malformed(&self.mistake())),
        }
    }

    /// The first field that makes the record wrong.
    fn mistake(mut self) -> String {
        if !self.0.contains_key("user_id") {
            return "no field user_id".to_owned();
        }
        let is_wrong = |name: &str, value: Value| {
            let mut one = Map::from_iter([("user_id".to_owned(), Value::from(1))]);
            one.insert(name.to_owned(), value);
            serde_json::from_value::<TokenRecord>(one.into()).is_err()
        };
        let wrong = READ
            .into_iter()
            .find(|name| self.0.remove(*name).is_some_and(|value| is_wrong(name, value)));
        match wrong {
            Some(name) => format!("the field {name} has the wrong type"),
            None => "a field of the wrong type".to_owned(),
        }
    }
}

impl From<&TokenRecord> for Identity {
    fn from(record: &TokenRecord) -> Self {
        let patterns = |channels: &Vec<String>| {
            channels.iter().map(|pattern| ChannelPattern::new(pattern.as_str())).collect()
        };
        Self {
            user_id: Some(record.user_id.clone()),
            username: record.username.as_deref().filter(|name| !name.is_empty()).map(Into::into),
            channels: record.channels.as_ref().map(patterns),
            expires_at: record.session_expires_at,
        }
    }
}

/// Reads Unix seconds from JSON and drops any fraction; `None` for a negative number or another type.
pub(super) fn unix_seconds_from(value: &Value) -> Option<u64> {
    let whole = |seconds: f64| (seconds >= 0.0 && seconds.is_finite()).then_some(seconds as u64);
    value.as_u64().or_else(|| value.as_f64().and_then(whole))
}

fn user_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UserId, D::Error> {
    let value = Value::deserialize(deserializer)?;
    UserId::from_json(&value).ok_or_else(|| serde::de::Error::custom("user_id"))
}

fn optional_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        value => unix_seconds_from(&value)
            .map(Some)
            .ok_or_else(|| serde::de::Error::custom("session_expires_at")),
    }
}

/// Backends write a number or an ISO date. Nothing depends on the value, so that neither is refused.
fn lenient_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Value::deserialize(deserializer)?.as_f64().unwrap_or(0.0))
}

#[cfg(test)]
mod tests;
