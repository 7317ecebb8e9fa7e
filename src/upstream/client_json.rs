//! The fields of the client's object that become part of a task or of a request's body.
//!
//! A message that a worker cannot decode may end its process, and one that a server cannot read looks like its fault.
//! Therefore values are refused here that their JSON readers would misread or reject: lone surrogates, numbers out of
//! range, deep nesting, and for Celery the pair of keys that marks its own types. All others pass as they were sent, to
//! the byte.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::config::ReadBy;
use crate::protocol::{NotPortable, check_portable, has_lone_surrogate};

/// Some fields of a client's object. Each is checked only when it is used.
pub(super) struct ClientObject<'a>(Vec<(&'a str, &'a RawValue)>);

/// What is wrong with a field, as a text for the client.
pub(super) type FieldProblem = &'static str;

impl<'a> ClientObject<'a> {
    /// Finds the fields with these names in one pass that keeps nothing else: an object may have any number of others. Of
    /// several with one name the last one counts. `None` = a name in the object is not valid Unicode.
    pub fn read(data: &'a RawValue, names: &[&'a str]) -> Option<Self> {
        let mut reader = serde_json::Deserializer::from_str(data.get());
        reader.deserialize_map(Fields { names }).ok()
    }

    /// Returns the JSON of a field; `None` = the field is missing or null.
    pub fn field(&self, name: &str, read_by: ReadBy) -> Option<Result<&'a str, FieldProblem>> {
        let (_, raw) = self.0.iter().find(|(other, _)| *other == name)?;
        let raw = raw.get();
        (raw != "null").then(|| check(raw, read_by).map(|()| raw))
    }
}

/// Reads the wanted fields of an object.
struct Fields<'n, 'a> {
    names: &'n [&'a str],
}

impl<'a> Visitor<'a> for Fields<'_, 'a> {
    type Value = ClientObject<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut found: Vec<(&str, &RawValue)> = Vec::new();
        while let Some(name) = map.next_key_seed(WantedName(self.names))? {
            let Some(name) = name else {
                let IgnoredAny = map.next_value()?;
                continue;
            };
            let value = map.next_value()?;
            match found.iter_mut().find(|(other, _)| *other == name) {
                Some((_, earlier)) => *earlier = value,
                None => found.push((name, value)),
            }
        }
        Ok(ClientObject(found))
    }
}

/// Reads a name; `None` = it is none of these.
struct WantedName<'n, 'a>(&'n [&'a str]);

impl<'a> DeserializeSeed<'a> for WantedName<'_, 'a> {
    type Value = Option<&'a str>;

    fn deserialize<D: Deserializer<'a>>(self, name: D) -> Result<Self::Value, D::Error> {
        name.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for WantedName<'_, 'a> {
    type Value = Option<&'a str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().copied().find(|wanted| *wanted == name))
    }
}

fn check(raw: &str, read_by: ReadBy) -> Result<(), FieldProblem> {
    const UNREADABLE: &str = "holds text, a number or nesting that cannot be passed on";
    match check_portable(raw) {
        // Large integers are numbers at least, and other large numbers are none.
        Err(NotPortable::NumberOutOfRange) if serde_json::from_str::<Value>(raw).is_ok() => {
            return Err("holds a number that is out of range");
        }
        Err(NotPortable::NumberOutOfRange | NotPortable::TooDeep) => return Err(UNREADABLE),
        Ok(()) => {}
    }
    match read_by {
        ReadBy::HttpServer if has_lone_surrogate(raw) => Err(UNREADABLE),
        ReadBy::HttpServer => Ok(()),
        ReadBy::Celery => match serde_json::from_str(raw) {
            Err(_) => Err(UNREADABLE),
            Ok(value) if has_type_marker(&value) => {
                Err("holds an object with \"__type__\" and \"__value__\"")
            }
            Ok(_) => Ok(()),
        },
    }
}

/// Whether a value contains an object that Celery's reader decodes to a date, bytes or another type. It
/// fails at types that it does not know.
fn has_type_marker(value: &Value) -> bool {
    match value {
        Value::Object(map) => {
            (map.contains_key("__type__") && map.contains_key("__value__"))
                || map.values().any(has_type_marker)
        }
        Value::Array(list) => list.iter().any(has_type_marker),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
