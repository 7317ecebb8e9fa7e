//! The fields of the client's object that become part of a task or of a request's body.
//!
//! A message that a worker cannot decode may end its process, and one that a server cannot read looks like its fault.
//! Therefore values are refused here that their JSON readers would misread or reject: lone surrogates, numbers out of
//! range, deep nesting, and for Celery the pair of keys that marks its own types. All others pass as they were sent, to
//! the byte.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::config::ReadBy;
use crate::protocol::{NotPortable, check_portable, has_lone_surrogate};

/// The fields of a client's object. Each is checked only when it is used.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct ClientObject<'a>(#[serde(borrow)] HashMap<Cow<'a, str>, &'a RawValue>);

/// What is wrong with a field, as a text for the client.
pub(super) type FieldProblem = &'static str;

impl<'a> ClientObject<'a> {
    /// `None` = a name in the object is not valid Unicode.
    pub fn read(data: &'a RawValue) -> Option<Self> {
        serde_json::from_str(data.get()).ok()
    }

    /// Returns the JSON of a field; `None` = the field is missing or null.
    pub fn field(&self, name: &str, read_by: ReadBy) -> Option<Result<&'a str, FieldProblem>> {
        let raw = self.0.get(name)?.get();
        (raw != "null").then(|| check(raw, read_by).map(|()| raw))
    }
}

fn check(raw: &str, read_by: ReadBy) -> Result<(), FieldProblem> {
    const UNREADABLE: &str = "holds text, a number or nesting that cannot be passed on";
    match check_portable(raw) {
        Err(NotPortable::NumberOutOfRange) => return Err("holds a number that is out of range"),
        Err(NotPortable::TooDeep) => return Err(UNREADABLE),
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
