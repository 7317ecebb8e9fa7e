//! The kinds of values that keys can have: the name of each, how to write one, and how one is parsed.
//!
//! A mistake quotes [`Kind::expected`], and the reference page lists [`Kind::name`].

mod numbers;
mod text;
mod urls;

pub(super) use numbers::*;
pub(super) use text::*;
pub(super) use urls::*;

use toml::Value;

/// One kind of value.
pub(super) struct Kind<T> {
    /// The name on the reference page.
    pub name: &'static str,
    /// How to write one, as it completes "write …".
    pub expected: &'static str,
    pub parse: fn(&Value) -> Result<T, ValueError>,
}

impl<T> Clone for Kind<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Kind<T> {}

/// Why a value is not of its kind.
#[derive(Debug)]
pub(super) enum ValueError {
    /// [`Kind::expected`] says everything that there is to say.
    WrongKind,
    /// A sentence that says how to fix the value, without any part of the value.
    Rule(String),
    /// A sentence that says what is wrong and quotes the value.
    Quoting(String),
}

pub(super) const fn kind<T>(
    name: &'static str,
    expected: &'static str,
    parse: fn(&Value) -> Result<T, ValueError>,
) -> Kind<T> {
    Kind { name, expected, parse }
}

pub(super) const BOOLEAN: Kind<bool> = kind("boolean", "true or false", |value| match value {
    Value::Boolean(boolean) => Ok(*boolean),
    // The environment has strings only.
    Value::String(text) => text.parse().map_err(|_| ValueError::WrongKind),
    _ => Err(ValueError::WrongKind),
});

/// A kind that is named by the words that it accepts.
pub(super) const fn words<T>(
    words: &'static str,
    parse: fn(&Value) -> Result<T, ValueError>,
) -> Kind<T> {
    kind(words, words, parse)
}

/// Parses one of a few words.
pub(super) fn choice<T: Copy>(value: &Value, words: &[(&str, T)]) -> Result<T, ValueError> {
    let text = text(value)?;
    let choice = words.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
    choice.ok_or(ValueError::WrongKind)
}

fn text(value: &Value) -> Result<&str, ValueError> {
    value.as_str().ok_or(ValueError::WrongKind)
}

fn parsed<T>(value: &Value, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, ValueError> {
    parse(text(value)?).ok_or(ValueError::WrongKind)
}
