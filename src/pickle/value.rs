//! What a pickle holds.

use std::collections::BTreeSet;

use serde_json::{Map, json};

/// Data out of a pickle. Texts borrow from its bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    List(Vec<Value<'a>>),
    /// Pairs in the order they were written. Of equal keys the last one counts, as in Python.
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// As written; an element that is there twice counts once.
    Set(Vec<Value<'a>>),
}

impl<'a> Value<'a> {
    /// The elements of a set of texts; `None` for anything else.
    pub fn as_text_set(&self) -> Option<BTreeSet<&'a str>> {
        let Self::Set(elements) = self else { return None };
        let text = |element: &Value<'a>| match element {
            Value::Text(text) => Some(*text),
            _ => None,
        };
        elements.iter().map(text).collect()
    }

    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The same in JSON: a set as an array, a float that is no number as `null`, a key that is no text as
    /// its text. Recurses as deep as the value, which is within [`MAX_DEPTH`](super::MAX_DEPTH).
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::None => json!(null),
            Self::Bool(value) => json!(value),
            Self::Int(value) => json!(value),
            Self::Float(value) => json!(value),
            Self::Text(text) => json!(text),
            Self::List(items) | Self::Set(items) => items.iter().map(Self::to_json).collect(),
            Self::Dict(pairs) => {
                let mut members = Map::new();
                for (key, value) in pairs {
                    let name = match key {
                        Self::Text(text) => (*text).to_owned(),
                        other => other.to_json().to_string(),
                    };
                    // The last of equal keys stays.
                    members.insert(name, value.to_json());
                }
                members.into()
            }
        }
    }

    /// Whether Python could have it as a key or in a set.
    pub(super) fn is_scalar(&self) -> bool {
        !matches!(self, Self::List(_) | Self::Dict(_) | Self::Set(_))
    }
}
