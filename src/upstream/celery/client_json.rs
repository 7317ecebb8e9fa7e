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
    if !has_only_64_bit_integers(raw) {
        return Err("holds a number that is out of range");
    }
    let value: Value = serde_json::from_str(raw)
        .map_err(|_| "holds text, a number or nesting that cannot be passed on")?;
    if has_type_marker(&value) {
        return Err("holds an object with \"__type__\" and \"__value__\"");
    }
    Ok(value)
}

/// Whether every integer fits into 64 bits; others would become rounded floats.
fn has_only_64_bit_integers(json: &str) -> bool {
    let mut in_text = false;
    let mut escaped = false;
    let mut start = None;
    for (at, byte) in json.bytes().enumerate() {
        if in_text {
            in_text = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E' if start.is_some() => {}
            b'0'..=b'9' | b'-' => start = Some(at),
            _ => {
                if start.take().is_some_and(|start| !is_64_bit_integer(&json[start..at])) {
                    return false;
                }
                in_text = byte == b'"';
            }
        }
    }
    start.is_none_or(|start| is_64_bit_integer(&json[start..]))
}

fn is_64_bit_integer(number: &str) -> bool {
    number.contains(['.', 'e', 'E'])
        || number.parse::<i64>().is_ok()
        || number.parse::<u64>().is_ok()
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
