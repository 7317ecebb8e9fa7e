//! The value of a pickle.

use std::collections::BTreeSet;
use std::fmt;
use std::rc::Rc;

use serde_json::{Map, Value as Json, json};

use super::standard::{Class, Skipped};
use super::{MAX_DEPTH, MAX_JSON_BYTES};

/// What was read from a pickle. Texts borrow from the input where they can.
///
/// Invariant: every number of a container, in `root` and in containers, is an index of `containers`.
#[derive(Debug)]
pub struct Pickle<'a> {
    pub(super) containers: Vec<Container<'a>>,
    pub(super) root: Value<'a>,
}

/// A value of a [`Pickle`]. Cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    /// A text that is not in the input as it is, because its protocol escapes it.
    Unescaped(Rc<str>),
    /// A container of the pickle. Several values can be the same one.
    Container(ContainerId),
    /// A value of which only the type is known.
    Skipped(Skipped),
    /// A class or function itself.
    Class(Class),
}

/// A container of a pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContainerId(pub(super) usize);

#[derive(Debug)]
pub(super) enum Container<'a> {
    List(Vec<Value<'a>>),
    Tuple(Vec<Value<'a>>),
    /// The elements in the order of the input; repeated elements count once.
    Set(Vec<Value<'a>>),
    /// The pairs in the order of the input. Of equal keys the last one counts, as in Python.
    Dict(Vec<(Value<'a>, Value<'a>)>),
}

/// Why a value cannot be converted to JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotPlain {
    /// It is, or contains, a value of this type.
    Type(Skipped),
    /// It contains itself, or is nested deeper than [`MAX_DEPTH`], or its JSON would have over [`MAX_JSON_BYTES`].
    TooLarge,
}

impl fmt::Display for NotPlain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type(Skipped(name)) => write!(f, "a value of the type {name}"),
            Self::TooLarge => f.write_str("a value that is too large, or contains itself"),
        }
    }
}

impl<'a> Value<'a> {
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Unescaped(text) => Some(text),
            _ => None,
        }
    }
}

impl<'a> Pickle<'a> {
    pub fn as_int(&self) -> Option<i64> {
        match self.root {
            Value::Int(value) => Some(value),
            _ => None,
        }
    }

    /// The elements of a set, list or tuple of texts; `None` for anything else.
    pub fn as_text_set(&self) -> Option<BTreeSet<&str>> {
        match self.container(&self.root)? {
            Container::Set(items) | Container::List(items) | Container::Tuple(items) => {
                items.iter().map(Value::as_text).collect()
            }
            Container::Dict(_) => None,
        }
    }

    /// The pairs of a dict whose keys are texts, in the order of the input; `None` for anything else. Other keys are
    /// left out.
    pub fn fields(&self) -> Option<impl Iterator<Item = (&str, &Value<'a>)>> {
        match self.container(&self.root)? {
            Container::Dict(pairs) => {
                Some(pairs.iter().filter_map(|(key, value)| Some((key.as_text()?, value))))
            }
            _ => None,
        }
    }

    /// Converts the whole pickle to JSON.
    #[cfg(any(test, feature = "internals"))]
    pub fn to_json(&self) -> Result<Json, NotPlain> {
        self.json_of(&self.root)
    }

    /// Converts a value of this pickle to JSON: a tuple or set becomes an array, NaN and infinities become texts, a
    /// key that is not a text becomes its text. Recurses as deep as the value, at most [`MAX_DEPTH`].
    pub fn json_of(&self, value: &Value<'a>) -> Result<Json, NotPlain> {
        Conversion { pickle: self, left: MAX_JSON_BYTES, depth: 0 }.convert(value)
    }

    fn container(&self, value: &Value<'a>) -> Option<&Container<'a>> {
        match value {
            Value::Container(ContainerId(number)) => self.containers.get(*number),
            _ => None,
        }
    }
}

struct Conversion<'p, 'a> {
    pickle: &'p Pickle<'a>,
    /// The bytes that the result may still get.
    left: usize,
    depth: usize,
}

impl<'a> Conversion<'_, 'a> {
    fn convert(&mut self, value: &Value<'a>) -> Result<Json, NotPlain> {
        // Brackets, a comma or the digits of a number.
        let size = 8 + value.as_text().map_or(0, str::len);
        self.left = self.left.checked_sub(size).ok_or(NotPlain::TooLarge)?;
        Ok(match value {
            Value::None => json!(null),
            Value::Bool(value) => json!(value),
            Value::Int(value) => json!(value),
            // As everywhere else, since JSON has no such numbers.
            Value::Float(value) if value.is_nan() => json!("NaN"),
            Value::Float(f64::INFINITY) => json!("Infinity"),
            Value::Float(f64::NEG_INFINITY) => json!("-Infinity"),
            Value::Float(value) => json!(value),
            Value::Text(text) => json!(text),
            Value::Unescaped(text) => json!(&**text),
            Value::Skipped(skipped) => return Err(NotPlain::Type(*skipped)),
            Value::Class(class) => return Err(NotPlain::Type(class.skipped())),
            Value::Container(_) => {
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(NotPlain::TooLarge);
                }
                let json = self.convert_container(value)?;
                self.depth -= 1;
                json
            }
        })
    }

    fn convert_container(&mut self, value: &Value<'a>) -> Result<Json, NotPlain> {
        match self.pickle.container(value) {
            Some(Container::Dict(pairs)) => {
                let mut members = Map::new();
                for (key, value) in pairs {
                    let name = match self.convert(key)? {
                        Json::String(text) => text,
                        other => other.to_string(),
                    };
                    // Of equal keys, the last one wins.
                    members.insert(name, self.convert(value)?);
                }
                Ok(members.into())
            }
            Some(Container::List(items) | Container::Tuple(items) | Container::Set(items)) => {
                items.iter().map(|item| self.convert(item)).collect()
            }
            None => Err(NotPlain::TooLarge),
        }
    }
}
