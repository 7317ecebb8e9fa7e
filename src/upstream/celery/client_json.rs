//! The fields of the client's object that become part of a task.
//!
//! A message that a worker cannot decode may end its process. Therefore values are refused here that the
//! JSON readers of Python or Celery would misread or reject: lone surrogates, numbers out of range, deep
//! nesting, and the pair of keys that marks Celery's own types.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::protocol::{NotPortable, check_portable};

/// The fields of a client's object. Each is parsed only when it is used.
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

    /// Returns the value of a field; `None` = the field is missing or null.
    pub fn field(&self, name: &str) -> Option<Result<Value, FieldProblem>> {
        let raw = self.0.get(name)?.get();
        (raw != "null").then(|| read(raw))
    }
}

fn read(raw: &str) -> Result<Value, FieldProblem> {
    let value: Value = serde_json::from_str(raw)
        .map_err(|_| "holds text, a number or nesting that cannot be passed on")?;
    if check_portable(raw) == Err(NotPortable::NumberOutOfRange) {
        return Err("holds a number that is out of range");
    }
    if has_type_marker(&value) {
        return Err("holds an object with \"__type__\" and \"__value__\"");
    }
    Ok(value)
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
