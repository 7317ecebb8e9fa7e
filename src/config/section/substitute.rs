//! Applies the environment to the values of a table: overrides, and `${NAME}` inside of texts.

use std::ffi::OsStr;

use toml::Value;

use super::{Reported, Section};
use crate::config::raw_value::{Origin, RawValue};

impl Section<'_> {
    /// The value of the override `variable` of the key `name`.
    pub(super) fn override_value(
        &mut self,
        name: &str,
        variable: String,
        value: &OsStr,
    ) -> Result<RawValue, Reported> {
        let Some(text) = value.to_str() else {
            self.mistake(name, None, format!("the value of {variable} is not valid UTF-8"));
            return Err(Reported);
        };
        let raw = RawValue::hidden(text, format!("the value of {variable}"));
        Ok(raw.with_origin(Origin::Variable(variable)))
    }

    /// Replaces every `${NAME}` of a text; other values are returned as they are.
    pub(super) fn substitute(&mut self, name: &str, value: Value) -> Result<RawValue, Reported> {
        let raw = RawValue::visible(value);
        let Value::String(text) = &raw.value else { return Ok(raw) };
        match self.context.substitute(text) {
            Ok(substituted) if substituted == *text => Ok(raw),
            // A mistake may show the text with its ${NAME}, but not the value of the variable.
            Ok(substituted) => {
                let origin = Origin::Substituted(text.clone());
                Ok(RawValue::hidden(substituted, raw.display).with_origin(origin))
            }
            Err(fix) => {
                self.mistake(name, None, fix);
                Err(Reported)
            }
        }
    }

    /// Replaces every `${NAME}` that can be replaced, without recording mistakes.
    pub(super) fn substitute_for_display(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => {
                Value::from(self.context.substitute(text).unwrap_or_else(|_| text.clone()))
            }
            Value::Array(elements) => {
                Value::Array(elements.iter().map(|e| self.substitute_for_display(e)).collect())
            }
            other => other.clone(),
        }
    }
}

/// Whether a key is below an element of a list, which no variable can name.
pub(super) fn is_in_list(path: &str) -> bool {
    path.contains('[')
}
