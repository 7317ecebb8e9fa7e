//! Values on their way from the file, the environment or a secret's file to a key, each with what a
//! mistake may tell of it.
//!
//! Invariant: `shown` never holds a secret, nor what the environment or a secret's file said.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use toml::Value;

/// Secret files are a line, a list of keys or a PEM text; of more only this much is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Longer values are cut where a mistake shows them.
const MAX_SHOWN_CHARS: usize = 60;

/// A value ready to be read, and what a mistake may tell of it.
pub(super) struct Given {
    pub value: Value,
    pub shown: String,
    /// Whether `shown` is the value, so that a mistake may quote from it.
    pub open: bool,
    pub origin: Origin,
}

/// Where a value stands.
pub(super) enum Origin {
    /// As it is.
    File,
    /// As this text, in which `${NAME}` was replaced.
    Replaced(String),
    /// In this variable.
    Variable(String),
}

impl Given {
    /// A value that stands in the file as it is.
    pub(super) fn open(value: Value) -> Self {
        match shown(&value) {
            Some(shown) => Self { value, shown, open: true, origin: Origin::File },
            None => Self::hidden(value, "a URL with a password"),
        }
    }

    pub(super) fn hidden(value: impl Into<Value>, shown: impl Into<String>) -> Self {
        Self { value: value.into(), shown: shown.into(), open: false, origin: Origin::File }
    }

    pub(super) fn of(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }

    /// Only what type it is may be told.
    pub(super) fn concealed(self) -> Self {
        let shown = format!("{} that is not shown", type_of(&self.value));
        Self::hidden(self.value, shown).of(self.origin)
    }
}

/// How a mistake shows a value of the file; `None` where it may hold a password.
fn shown(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if text.contains("://") && text.contains('@') => None,
        Value::String(text) if text.chars().count() > MAX_SHOWN_CHARS => {
            Some(format!("{:?} and more", text.chars().take(MAX_SHOWN_CHARS).collect::<String>()))
        }
        Value::String(text) => Some(format!("{text:?}")),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Some(value.to_string()),
        Value::Datetime(_) | Value::Array(_) | Value::Table(_) => Some(type_of(value)),
    }
}

/// What type a value has, with its article.
pub(super) fn type_of(value: &Value) -> String {
    match value {
        Value::Integer(_) => "an integer".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        other => format!("a {}", other.type_str()),
    }
}

/// The contents of a secret's file, without the newline at its end. `Err` tells of the file alone.
pub(super) fn read_file(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text))
        .map_err(|error| format!("this file cannot be read: {error}"))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}
