//! A value before it is parsed, whether it comes from the file, the environment or a secret file, with
//! the text that a mistake may show for it.
//!
//! Invariant: `display` never holds a secret, nor a value from the environment or from a secret file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use toml::Value;

/// A secret file holds one line, a list of keys or a PEM text. No more than this is read of it.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A mistake shows this many characters of a longer value.
const MAX_DISPLAY_CHARS: usize = 60;

/// A value that is ready to be parsed, and what a mistake may show of it.
pub(super) struct RawValue {
    pub value: Value,
    pub display: String,
    /// Whether `display` is the value itself, so that an error text may quote it.
    pub is_quotable: bool,
    pub origin: Origin,
}

/// Where a value comes from.
pub(super) enum Origin {
    /// The file, where it is written as it is.
    File,
    /// The file, where it is written as this text with at least one `${NAME}` in it.
    Substituted(String),
    /// The environment variable of this name.
    Variable(String),
}

impl RawValue {
    /// A value of the file, which may be shown unless it looks like a URL with a password.
    pub(super) fn visible(value: Value) -> Self {
        match display(&value) {
            Some(display) => Self { value, display, is_quotable: true, origin: Origin::File },
            None => Self::hidden(value, "a URL with a password"),
        }
    }

    /// A value that is shown as `display` only.
    pub(super) fn hidden(value: impl Into<Value>, display: impl Into<String>) -> Self {
        let (value, display) = (value.into(), display.into());
        Self { value, display, is_quotable: false, origin: Origin::File }
    }

    pub(super) fn with_origin(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }

    /// The same value, of which only the type is shown.
    pub(super) fn into_hidden(self) -> Self {
        let display = format!("{} (not shown)", type_of(&self.value));
        Self::hidden(self.value, display).with_origin(self.origin)
    }
}

/// How a mistake shows a value of the file; `None` if the value may hold a password.
fn display(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if text.contains("://") && text.contains('@') => None,
        Value::String(text) if text.chars().count() > MAX_DISPLAY_CHARS => {
            let start: String = text.chars().take(MAX_DISPLAY_CHARS).collect();
            Some(format!("{start:?} (truncated)"))
        }
        Value::String(text) => Some(format!("{text:?}")),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Some(value.to_string()),
        Value::Datetime(_) | Value::Array(_) | Value::Table(_) => Some(type_of(value)),
    }
}

/// The name of a value's type, with its article.
pub(super) fn type_of(value: &Value) -> String {
    match value {
        Value::Integer(_) => "an integer".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        other => format!("a {}", other.type_str()),
    }
}

/// The contents of a secret file without the newline at its end. The error names no contents.
pub(super) fn read_file(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text))
        .map_err(|error| format!("cannot read this file: {error}"))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}
