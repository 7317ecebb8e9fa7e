//! Tables inside of tables: sections, inline tables, lists of tables and freely named tables. Each ends
//! with a report of its unknown keys.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::{Section, Shape};
use crate::config::context::{Context, Outcome};
use crate::config::effective::Source;
use crate::config::mistakes::{Mistake, nearest};
use crate::config::raw_value::type_of;

/// Reads a whole document with `read`.
pub(in crate::config) fn read_document<T>(
    mut context: Context,
    document: Table,
    read: impl FnOnce(&mut Section<'_>) -> T,
) -> (T, Outcome) {
    let mut root = Section {
        context: &mut context,
        path: String::new(),
        heading: String::new(),
        prefix: String::new(),
        table: document,
        known: Vec::new(),
    };
    let value = read(&mut root);
    root.report_unknown_keys();
    (value, context.finish())
}

impl Section<'_> {
    /// Reads a table that has its own heading on the reference page.
    pub(in crate::config) fn section<T>(
        &mut self,
        name: &str,
        heading: &str,
        doc: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let table = self.take_table(name);
        self.child(name, heading, doc, table, read)
    }

    /// Reads an inline table, whose keys belong to this heading: `circuit = { open = "5s" }`.
    pub(in crate::config) fn inline<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let table = self.take_table(name);
        let mut child = Section {
            path: self.path_of(name),
            heading: self.heading.clone(),
            prefix: format!("{}{name}.", self.prefix),
            context: &mut *self.context,
            table,
            known: Vec::new(),
        };
        let value = read(&mut child);
        child.report_unknown_keys();
        value
    }

    /// Reads a list of tables, such as `[[route]]`. `None` stands for a table with mistakes.
    pub(in crate::config) fn tables<T>(
        &mut self,
        name: &str,
        heading: &str,
        doc: &'static str,
        mut read: impl FnMut(&mut Section<'_>) -> Option<T>,
    ) -> Vec<Option<T>> {
        if !self.path.is_empty() {
            self.define(name, Shape::List("table"), Some(&Value::Array(Vec::new())), doc);
        }
        let elements = match self.take(name) {
            None => {
                if !self.path.is_empty() {
                    self.record(name, Value::Array(Vec::new()), Source::Default);
                }
                Vec::new()
            }
            Some(Value::Array(elements)) => elements,
            Some(other) => {
                self.mistake(name, Some(type_of(&other)), format!("write {heading}"));
                return vec![None];
            }
        };
        let mut element = |(index, element)| {
            let name = format!("{name}[{index}]");
            let table = self.as_table(&name, element)?;
            self.child(&name, heading, doc, table, &mut read)
        };
        elements.into_iter().enumerate().map(&mut element).collect()
    }

    /// Reads tables whose names are chosen freely: `[upstream.NAME]`.
    pub(in crate::config) fn named<T>(
        &mut self,
        name: &str,
        heading: &str,
        doc: &'static str,
        mut read: impl FnMut(&mut Section<'_>, &str) -> Option<T>,
    ) -> BTreeMap<String, Option<T>> {
        let mut all = BTreeMap::new();
        for (entry, value) in self.take_table(name) {
            let path = format!("{name}.{entry}");
            let value = self
                .as_table(&path, value)
                .and_then(|table| self.child(&path, heading, doc, table, |s| read(s, &entry)));
            all.insert(entry, value);
        }
        all
    }

    /// Reports every key that has not been read yet as a mistake; `fix` says why.
    pub(in crate::config) fn reject_other_keys(&mut self, fix: &str) {
        for (name, _) in std::mem::take(&mut self.table) {
            self.mistake(&name, None, fix);
        }
    }

    /// Puts the keys that follow under another heading of the reference page.
    pub(in crate::config) fn set_heading(&mut self, heading: String, doc: &'static str) {
        self.context.heading(&heading, doc);
        self.heading = heading;
    }

    /// Skips the keys that have not been read yet, because their meaning is not known.
    pub(in crate::config) fn skip_rest(&mut self) {
        self.table.clear();
        self.context.ignore_overrides_below(&self.path);
    }

    pub(super) fn as_table(&mut self, name: &str, value: Value) -> Option<Table> {
        match value {
            Value::Table(table) => Some(table),
            other => {
                self.mistake(name, Some(type_of(&other)), "write a table");
                None
            }
        }
    }

    fn take_table(&mut self, name: &str) -> Table {
        let value = self.take(name).unwrap_or_else(|| Value::Table(Table::new()));
        self.as_table(name, value).unwrap_or_default()
    }

    fn child<T>(
        &mut self,
        name: &str,
        heading: &str,
        doc: &'static str,
        table: Table,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        self.context.heading(heading, doc);
        let path = self.path_of(name);
        let mut child = Section {
            context: &mut *self.context,
            path,
            heading: heading.to_owned(),
            prefix: String::new(),
            table,
            known: Vec::new(),
        };
        let value = read(&mut child);
        child.report_unknown_keys();
        value
    }

    /// Reports every key that no getter was called for as a mistake.
    fn report_unknown_keys(self) {
        for name in self.table.keys() {
            let fix = match nearest(name, self.known.iter().map(String::as_str)) {
                Some(nearest) => format!("unknown key; did you mean {nearest:?}?"),
                None => format!("unknown key; the keys here are {}", self.known.join(", ")),
            };
            let key = self.path_of(name);
            self.context.mistake(Mistake { key, found: None, fix });
        }
    }
}
