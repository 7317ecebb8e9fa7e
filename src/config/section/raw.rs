//! Values that a reader of their own parses: tables and lists of any depth, in which `${NAME}` is not replaced yet.

use toml::{Table, Value};

use super::{Section, Shape};
use crate::config::effective::Source;

impl Section<'_> {
    /// Reads a required table whose keys are chosen freely. `expected` says how to write a value.
    pub(in crate::config) fn raw_table(
        &mut self,
        name: &str,
        kind: &'static str,
        expected: &str,
        doc: &'static str,
    ) -> Option<Table> {
        self.define(name, Shape::Map(kind), None, doc);
        let Some(value) = self.take(name) else {
            let fix = format!("missing; write {{ name = … }} with each value {expected}");
            self.mistake(name, None, fix);
            return None;
        };
        self.record_all(name, kind, &value);
        self.as_table(name, value)
    }

    /// Takes a key that holds a table or a list, in the place of a value of the kind that it is defined with.
    pub(in crate::config) fn nested(
        &mut self,
        name: &str,
        kind: &'static str,
        default: impl Into<Value>,
        doc: &'static str,
    ) -> Option<Value> {
        self.define(name, Shape::One(kind), Some(&default.into()), doc);
        let value = self.take(name)?;
        self.record_all(name, kind, &value);
        Some(value)
    }

    /// Records that a key has its default, which is no value of the file.
    pub(super) fn record_default(&mut self, name: &str, default: &Value) {
        self.record(name, default.clone(), Source::Default);
    }

    /// Whether the key holds a table or a list.
    pub(in crate::config) fn is_nested(&self, name: &str) -> bool {
        self.table.get(name).is_some_and(|value| value.is_table() || value.is_array())
    }

    /// Replaces every `${NAME}` of a text.
    ///
    /// # Errors
    /// A sentence that says what is wrong and holds no value of a variable.
    pub(in crate::config) fn substitute_text(&self, text: &str) -> Result<String, String> {
        self.context.substitute(text)
    }
}
