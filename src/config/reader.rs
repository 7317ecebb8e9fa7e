//! Typed reading of one section. Each call is the one definition of its key: name, default and
//! meaning; mistakes are collected, never thrown, so that all of them are told at once.

use std::cell::RefCell;

use toml::{Table, Value};

use super::Secret;
use super::mistakes::Mistake;

/// A key as the reference page shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// `route[].idle_ping`, `upstream.*.url`.
    pub key: String,
    /// A TOML literal; `None` = must be given.
    pub default: Option<&'static str>,
    pub doc: &'static str,
}

/// What reading leaves behind.
#[derive(Default)]
pub struct Findings {
    pub mistakes: RefCell<Vec<Mistake>>,
    pub definitions: RefCell<Vec<Definition>>,
}

/// One table of the file, or its absence.
pub struct Section<'a> {
    /// `route[0]`; empty for the file itself.
    path: String,
    /// `route[]`.
    general: String,
    table: Option<&'a Table>,
    known: RefCell<Vec<String>>,
    findings: &'a Findings,
}

const NO_TABLE: &str = "write a table";

impl<'a> Section<'a> {
    pub fn root(table: &'a Table, findings: &'a Findings) -> Self {
        let (path, general) = (String::new(), String::new());
        Self { path, general, table: Some(table), known: RefCell::default(), findings }
    }

    fn child(&self, name: &str, general: &str, table: Option<&'a Table>) -> Self {
        Self {
            path: join(&self.path, name),
            general: join(&self.general, general),
            table,
            known: RefCell::default(),
            findings: self.findings,
        }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn key_path(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Whether the file has this key.
    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.table?.get(key)
    }

    fn note(&self, key: &str) {
        self.known.borrow_mut().push(key.to_owned());
    }

    /// Reports a mistake of `key`.
    pub fn mistake(&self, key: &str, found: impl Into<String>, right: impl Into<String>) {
        let key = self.key_path(key);
        let (found, right) = (found.into(), right.into());
        self.findings.mistakes.borrow_mut().push(Mistake { key, found, right });
    }

    /// A section below this one; absent is the same as empty.
    pub fn section(&self, key: &'static str) -> Section<'a> {
        self.note(key);
        let table = self.get(key).and_then(|value| {
            let table = value.as_table();
            if table.is_none() {
                self.mistake(key, format!("found {value}"), NO_TABLE);
            }
            table
        });
        self.child(key, key, table)
    }

    /// The tables of `[[key]]`.
    pub fn list(&self, key: &'static str) -> Vec<Section<'a>> {
        self.note(key);
        let Some(value) = self.get(key) else { return Vec::new() };
        let Some(values) = value.as_array() else {
            self.mistake(key, format!("found {}", kind(value)), "write a list of tables");
            return Vec::new();
        };
        let general = format!("{key}[]");
        let tables = values.iter().enumerate().filter_map(|(index, value)| {
            let name = format!("{key}[{index}]");
            match value.as_table() {
                Some(table) => Some(self.child(&name, &general, Some(table))),
                None => {
                    self.mistake(&name, format!("found {}", kind(value)), NO_TABLE);
                    None
                }
            }
        });
        tables.collect()
    }

    /// The named tables below `[key]`.
    pub fn named(&self, key: &'static str) -> Vec<(String, Section<'a>)> {
        let below = self.section(key);
        let Some(table) = below.table else { return Vec::new() };
        let tables = table.iter().filter_map(|(name, value)| match value.as_table() {
            Some(table) => Some((name.clone(), below.child(name, "*", Some(table)))),
            None => {
                below.mistake(name, format!("found {}", kind(value)), NO_TABLE);
                None
            }
        });
        tables.collect()
    }

    fn define(&self, key: &'static str, default: Option<&'static str>, doc: &'static str) {
        self.note(key);
        let key = join(&self.general, key);
        let mut definitions = self.findings.definitions.borrow_mut();
        if !definitions.iter().any(|known| known.key == key) {
            definitions.push(Definition { key, default, doc });
        }
    }

    /// A key with a default, which is a TOML literal that `read` accepts.
    pub fn value<T>(
        &self,
        key: &'static str,
        default: &'static str,
        doc: &'static str,
        read: impl Fn(&Value) -> Result<T, String>,
    ) -> T {
        self.define(key, Some(default), doc);
        if let Some(value) = self.get(key) {
            match read(value) {
                Ok(read) => return read,
                Err(right) => self.mistake(key, format!("found {}", shown(value)), right),
            }
        }
        let literal: Table = format!("x = {default}").parse().expect("a default is TOML");
        read(&literal["x"]).expect("a default is a right value")
    }

    /// A key without a default.
    pub fn required<T>(
        &self,
        key: &'static str,
        doc: &'static str,
        read: impl Fn(&Value) -> Result<T, String>,
        right: &str,
    ) -> Option<T> {
        self.define(key, None, doc);
        match self.get(key) {
            None => {
                self.mistake(key, "missing", right);
                None
            }
            Some(value) => match read(value) {
                Ok(read) => Some(read),
                Err(right) => {
                    self.mistake(key, format!("found {}", shown(value)), right);
                    None
                }
            },
        }
    }

    /// A text with a default.
    pub fn text<T>(
        &self,
        key: &'static str,
        default: &'static str,
        doc: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        self.value(key, default, doc, |value| read(text(value)?))
    }

    /// A list of texts, empty by default unless `default` says otherwise.
    pub fn texts<T>(
        &self,
        key: &'static str,
        default: &'static str,
        doc: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        self.value(key, default, doc, |value| {
            let values = value.as_array().ok_or("write a list of texts")?;
            values.iter().map(|value| read(text(value)?)).collect()
        })
    }

    /// A whole number within `range`.
    pub fn number(
        &self,
        key: &'static str,
        default: &'static str,
        doc: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> u64 {
        self.value(key, default, doc, |value| {
            value
                .as_integer()
                .and_then(|number| u64::try_from(number).ok())
                .filter(|number| range.contains(number))
                .ok_or_else(|| {
                    format!("write a whole number from {} to {}", range.start(), range.end())
                })
        })
    }

    /// A secret, given by `key` or read from the file that `key_file` names; `None` if it is empty.
    pub fn secret(
        &self,
        key: &'static str,
        key_file: &'static str,
        doc: &'static str,
    ) -> Option<Secret> {
        self.define(key, Some("\"\""), doc);
        self.define(key_file, Some("\"\""), "The same, read from this file.");
        let read = |key: &str| {
            let value = self.get(key)?;
            let read = value.as_str();
            if read.is_none() {
                self.mistake(key, "found no text", "write a text");
            }
            read.filter(|text| !text.is_empty())
        };
        match (read(key), read(key_file)) {
            (Some(_), Some(_)) => {
                self.mistake(key, format!("given together with {key_file}"), "give one of them");
                None
            }
            (Some(secret), None) => Some(Secret::new(secret)),
            (None, Some(file)) => self.file(key_file, file).map(Secret::new),
            (None, None) => None,
        }
    }

    /// The text of a file that `key` names, without the last line's end.
    pub fn file(&self, key: &str, file: &str) -> Option<String> {
        match std::fs::read_to_string(file) {
            Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) => {
                self.mistake(key, format!("{file}: {error}"), "name a file that can be read");
                None
            }
        }
    }

    /// Reports every key that no definition asked for.
    pub fn finish(self) {
        let known = self.known.borrow();
        for key in self.table.into_iter().flat_map(Table::keys) {
            if !known.contains(key) {
                let right = match nearest(key, &known) {
                    Some(near) => format!("did you mean {near}?"),
                    None if known.is_empty() => "remove it".to_owned(),
                    None => format!("known here: {}", known.join(", ")),
                };
                self.mistake(key, "unknown key", right);
            }
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

pub fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| "write a text in quotes".to_owned())
}

/// A value as a mistake shows it.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Table(_) => kind(value).to_owned(),
        value => value.to_string(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
        Value::String(_) => "a text",
        Value::Boolean(_) => "a yes or no",
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::Datetime(_) => "a date",
    }
}

/// The known key that `key` is most likely a slip of.
pub fn nearest<'k>(key: &str, known: &'k [String]) -> Option<&'k str> {
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(key, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 3)
        .min()
        .map(|(_, candidate)| &**candidate)
}
