//! The record behind a connection token, as the gateway or a backend writes it.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::Identity;
use crate::clock;
use crate::pickle;
use crate::protocol::{ChannelPattern, UserId};
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
    pub(super) fn to_json(&self) -> Option<String> {
        serde_json::to_string(self).ok().filter(|json| json.len() <= Self::MAX_BYTES)
    }

    /// Encodes the record as Django's cache does; `None` = it is longer than [`TokenRecord::MAX_BYTES`].
    pub(super) fn to_pickle(&self) -> Option<Vec<u8>> {
        let pickle = pickle::write_json(&serde_json::to_value(self).ok()?);
        (pickle.len() <= Self::MAX_BYTES).then_some(pickle)
    }

    /// Decodes a stored record. A field of the wrong type refuses the whole record, because it may be a
    /// limit that was not understood.
    pub(super) fn read(json: &[u8]) -> Result<Self, Consumption> {
        // The derived reader would take an array for the fields in their order.
        let is_object = json.trim_ascii_start().first() == Some(&b'{');
        if !is_object || json.len() > Self::MAX_BYTES {
            return Err(Consumption::MalformedRecord);
        }
        let record = serde_json::from_slice(json).map_err(|_| Consumption::MalformedRecord)?;
        Self::check(record)
    }

    /// Decodes a record of Django's cache by the same rules: a pickle, or JSON if its serializer writes that.
    pub(super) fn read_django(bytes: &[u8]) -> Result<Self, Consumption> {
        if bytes.first() != Some(&pickle::FIRST_BYTE) {
            return Self::read(bytes);
        }
        if bytes.len() > Self::MAX_BYTES {
            return Err(Consumption::MalformedRecord);
        }
        let fields = match pickle::read(bytes).map(|value| value.to_json()) {
            Ok(Value::Object(fields)) => fields,
            _ => return Err(Consumption::MalformedRecord),
        };
        let record = serde_json::from_value(Value::Object(fields));
        Self::check(record.map_err(|_| Consumption::MalformedRecord)?)
    }

    fn check(record: Self) -> Result<Self, Consumption> {
        if record.used {
            return Err(Consumption::Used);
        }
        if record.session_expires_at.is_some_and(|end| end <= clock::unix_seconds()) {
            return Err(Consumption::SessionOver);
        }
        Ok(record)
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
