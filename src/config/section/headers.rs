//! Tables of secrets whose names are chosen freely: the headers of an upstream's requests.

use toml::{Table, Value};

use super::record::collect_variables;
use super::{Section, Shape};
use crate::config::effective::{REDACTED, Source};
use crate::config::raw_value::RawValue;

/// One entry of a table of secrets.
pub(in crate::config) struct SecretEntry {
    /// The key of the entry, for mistakes.
    pub key: String,
    pub name: String,
    pub value: String,
    /// What a mistake may show of the value.
    pub display: &'static str,
}

impl Section<'_> {
    /// Reads a table of secrets. An entry is a text, or `{ file = "path", prefix = "Bearer " }`; `NAME_file = "path"` is
    /// the same as `NAME = { file = "path" }`. No value of it is ever shown. Returns `None` for each entry with a mistake.
    pub(in crate::config) fn secret_table(
        &mut self,
        name: &str,
        kind: &'static str,
        doc: &'static str,
    ) -> Vec<Option<SecretEntry>> {
        let none = Value::Table(Table::new());
        self.define(name, Shape::Map(kind), Some(&none), doc);
        let Some(value) = self.take(name) else {
            self.record_default(name, &none);
            return Vec::new();
        };
        let Some(table) = self.as_table(name, value) else { return vec![None] };
        let mut variables = Vec::new();
        table.values().for_each(|value| collect_variables(value, &mut variables));
        let shown = table.iter().map(|(entry, value)| (entry.clone(), shown(entry, value)));
        self.record(name, Value::Table(shown.collect()), Source::File { variables });
        let entry = |(entry, value)| self.secret_entry(name, entry, value);
        table.into_iter().map(entry).collect()
    }

    fn secret_entry(&mut self, table: &str, entry: String, value: Value) -> Option<SecretEntry> {
        let key = format!("{table}.{entry}");
        match (entry.strip_suffix("_file"), value) {
            (Some(name), path @ Value::String(_)) => {
                let file = Table::from_iter([("file".to_owned(), path)]);
                self.secret_of_file(key, name.to_owned(), &file)
            }
            (None, Value::Table(file)) => self.secret_of_file(key, entry, &file),
            (None, text @ Value::String(_)) => {
                let raw = self.substitute(&key, text).ok()?;
                let value = raw.value.as_str()?.to_owned();
                Some(SecretEntry { key, name: entry, value, display: "a string (not shown)" })
            }
            (_, other) => {
                let found = RawValue::visible(other).into_hidden().display;
                let fix = "write a text, or { file = \"/run/secrets/key\" } for a text in a file";
                self.mistake(&key, Some(found), fix);
                None
            }
        }
    }

    /// Reads `{ file = "path", prefix = "Bearer " }`.
    fn secret_of_file(&mut self, key: String, name: String, entry: &Table) -> Option<SecretEntry> {
        const KEYS: [&str; 2] = ["file", "prefix"];
        let is_known =
            |(name, value): (&String, &Value)| KEYS.contains(&name.as_str()) && value.is_str();
        let path = entry.get("file").and_then(Value::as_str).filter(|path| !path.is_empty());
        let (Some(path), true) = (path, entry.iter().all(is_known)) else {
            let fix = "write { file = \"/run/secrets/key\" }, and prefix = \"Bearer \" where the file holds a bare key";
            self.mistake(&key, Some("a table".to_owned()), fix);
            return None;
        };
        let prefix = entry.get("prefix").and_then(Value::as_str).unwrap_or_default();
        let text = |text: &str| self.substitute_text(text);
        let read = text(path).and_then(|path| self.context.file(&path));
        let read = read.and_then(|text| match text.trim().is_empty() {
            true => Err("this file is empty; write the secret into it".to_owned()),
            false => Ok(text),
        });
        match text(prefix).and_then(|prefix| Ok(format!("{prefix}{}", read?))) {
            Ok(value) => {
                Some(SecretEntry { key, name, value, display: "file contents (not shown)" })
            }
            Err(fix) => {
                self.mistake(&key, None, fix);
                None
            }
        }
    }
}

/// What the effective configuration shows of an entry: the path of a file, and nothing else.
fn shown(entry: &str, value: &Value) -> Value {
    match value {
        Value::String(_) if entry.ends_with("_file") => value.clone(),
        Value::Table(table) => {
            let shown = table.iter().map(|(name, value)| match name.as_str() {
                "file" if value.is_str() => (name.clone(), value.clone()),
                _ => (name.clone(), Value::from(REDACTED)),
            });
            Value::Table(shown.collect())
        }
        _ => Value::from(REDACTED),
    }
}
