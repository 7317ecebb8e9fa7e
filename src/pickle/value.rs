//! The value of a pickle.

use std::collections::BTreeSet;

use serde_json::{Map, json};

/// A value that was read from a pickle. Texts borrow from the input.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    List(Vec<Value<'a>>),
    /// The pairs in the order of the input. Of equal keys the last one counts, as in Python.
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// The elements in the order of the input; repeated elements count once.
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

    /// Converts to JSON: a set becomes an array, NaN and infinities become `null`, a key that is not a text
    /// becomes its text. Recurses as deep as the value, at most [`MAX_DEPTH`](super::MAX_DEPTH).
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
                    // Of equal keys, the last one wins.
                    members.insert(name, value.to_json());
                }
                members.into()
            }
        }
    }

    /// Whether the value may be a dict key or a set element.
    pub(super) fn is_scalar(&self) -> bool {
        !matches!(self, Self::List(_) | Self::Dict(_) | Self::Set(_))
    }
}
