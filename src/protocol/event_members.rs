//! The members of an event that the gateway reads, and the one that it adds to the events of a streamed reply.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The top-level members of a publication that the gateway reads. Of two members with the same name the last one
/// counts, as in `JSON.parse`.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventMembers<'a> {
    event: Option<&'a RawValue>,
    task_id: Option<&'a RawValue>,
    code: Option<&'a RawValue>,
}

impl<'a> EventMembers<'a> {
    /// `None` if the publication is not a JSON object.
    pub fn read(json: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// The name of the event; `None` if it has none, or one that is not a string.
    pub fn event(&self) -> Option<Cow<'a, str>> {
        self.event.and_then(text)
    }

    /// The id of the task; a number is given as its text. `None` if there is none, or one of another type.
    pub fn task_id(&self) -> Option<Cow<'a, str>> {
        let raw = self.task_id?;
        match raw.get().as_bytes().first() {
            Some(b'0'..=b'9' | b'-') => Some(Cow::Borrowed(raw.get())),
            _ => text(raw),
        }
    }

    /// The error code, if it is a string.
    pub fn code(&self) -> Option<Cow<'a, str>> {
        self.code.and_then(text)
    }
}

/// The text of a JSON string. `None` for any other value, and for a string that is not valid Unicode.
fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let json = raw.get();
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(json).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

impl<'de> Deserialize<'de> for EventMembers<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = EventMembers<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = EventMembers::default();
                while let Some(MemberName(name)) = map.next_key()? {
                    let member = match &*name {
                        "event" => &mut members.event,
                        "task_id" => &mut members.task_id,
                        "code" => &mut members.code,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *member = Some(map.next_value()?);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A name that is borrowed where it has no escapes.
struct MemberName<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for MemberName<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl<'de> Visitor<'de> for Name {
            type Value = MemberName<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(MemberName(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(MemberName(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(Name)
    }
}

/// Adds `"task_id"` as the last member of a JSON object, in front of which the rest stays as it is. Anything that is
/// not an object is returned unchanged.
pub fn with_task_id(json: &Bytes, task_id: &str) -> Bytes {
    let trimmed = json.trim_ascii();
    let Some(members) = trimmed.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}")) else {
        return json.clone();
    };
    let comma = if members.trim_ascii().is_empty() { "" } else { "," };
    let member = format!(r#"{comma}"task_id":{}}}"#, serde_json::Value::from(task_id));
    [&trimmed[..trimmed.len() - 1], member.as_bytes()].concat().into()
}

#[cfg(test)]
mod tests;
