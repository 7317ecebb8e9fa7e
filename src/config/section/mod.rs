//! Reads one table key by key. Each call of a getter is the only definition of a key: its name, kind,
//! default and meaning.
//!
//! A getter returns `None` after it has recorded a mistake. A table is therefore read as "get all keys,
//! then build the checked value with `?`". A key that no getter was called for is an unknown key.

mod files;
mod headers;
mod raw;
mod record;
mod substitute;
mod tables;

pub(super) use super::context::Written;
pub(super) use headers::SecretEntry;
pub(super) use tables::read_document;

use toml::{Table, Value};

use self::substitute::is_in_list;
use super::context::Context;
use super::effective::Source;
use super::kinds::{Kind, ValueError};
use super::mistakes::Mistake;
use super::raw_value::{RawValue, type_of};

/// A mistake was recorded in place of a value.
struct Reported;

/// How many values of a kind a key holds.
#[derive(Clone, Copy)]
enum Shape {
    One(&'static str),
    List(&'static str),
    Map(&'static str),
}

/// One table that is being read.
pub(super) struct Section<'c> {
    context: &'c mut Context,
    /// The path of the table: `""`, `server`, `route[0].limits`.
    path: String,
    /// The heading that its keys have on the reference page.
    heading: String,
    /// The prefix of an inline table's keys under that heading: `circuit.`.
    prefix: String,
    /// The keys that have not been read yet.
    table: Table,
    /// The names of the keys that getters were called for.
    known: Vec<String>,
}

impl Section<'_> {
    /// Reads a key with a default.
    pub(super) fn key<T>(
        &mut self,
        name: &str,
        kind: Kind<T>,
        default: impl Into<Value>,
        doc: &'static str,
    ) -> Option<T> {
        let default = default.into();
        self.define(name, Shape::One(kind.name), Some(&default), doc);
        let value = match self.raw_value(name) {
            Ok(Some(raw)) => {
                self.record_raw(name, kind.name, &raw);
                self.parse(name, kind, raw)
            }
            Ok(None) => {
                self.record(name, default.clone(), Source::Default);
                None
            }
            Err(Reported) => None,
        };
        // After a mistake the default stands in, so that the checks that follow still run.
        value.or_else(|| self.parse(name, kind, RawValue::visible(default)))
    }

    /// Reads a required key.
    pub(super) fn required<T>(
        &mut self,
        name: &str,
        kind: Kind<T>,
        doc: &'static str,
    ) -> Option<T> {
        self.define(name, Shape::One(kind.name), None, doc);
        let Some(raw) = self.raw_value(name).ok()? else {
            self.mistake(name, None, format!("missing; write {}", kind.expected));
            return None;
        };
        self.record_raw(name, kind.name, &raw);
        self.parse(name, kind, raw)
    }

    /// Reads a list whose elements are all of one kind.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        kind: Kind<T>,
        default: &[&str],
        doc: &'static str,
    ) -> Option<Vec<T>> {
        let default = Value::from(default.to_vec());
        self.define(name, Shape::List(kind.name), Some(&default), doc);
        let value = match self.take(name) {
            Some(value) => {
                self.record_all(name, kind.name, &value);
                value
            }
            None => {
                self.record(name, default.clone(), Source::Default);
                default
            }
        };
        self.parse_elements(name, kind, value, |raw| raw)
    }

    /// Takes a key that another one replaces, so that it is not reported as unknown.
    pub(super) fn skip(&mut self, name: &str) {
        let _ = self.take(name);
    }

    /// Whether the key holds a list with elements.
    pub(super) fn has_elements(&self, name: &str) -> bool {
        self.table.get(name).and_then(Value::as_array).is_some_and(|list| !list.is_empty())
    }

    pub(super) fn is_list(&self, name: &str) -> bool {
        self.table.get(name).is_some_and(Value::is_array)
    }

    /// Whether the key holds a table. For keys that may also hold a plain value.
    pub(super) fn is_table(&self, name: &str) -> bool {
        self.table.get(name).is_some_and(Value::is_table)
    }

    /// Whether the key is set to anything but `""`.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.table.get(name).is_some_and(|value| value.as_str() != Some(""))
    }

    /// Whether the table `name` is in the file, or a variable sets one of its keys.
    pub(super) fn is_written(&self, name: &str) -> bool {
        self.table.contains_key(name) || self.context.has_overrides_below(&self.path_of(name))
    }

    /// Every key of the configuration that is set to something, in the order of reading.
    pub(super) fn written(&self) -> Vec<Written> {
        self.context.written()
    }

    /// Records that the key `name` is valid and probably not meant.
    pub(super) fn warn(&mut self, name: &str, text: &str) {
        let key = self.path_of(name);
        self.context.warnings.push(format!("{key}: {text}"));
    }

    /// Whether the key at this path has a mistake, or another one of its table or of a table around it.
    pub(super) fn has_mistake_beside(&self, path: &str) -> bool {
        self.context.mistakes().any(|key| {
            let table = key.rsplit_once('.').map_or("", |(table, _)| table);
            key == path
                || path
                    .strip_prefix(table)
                    .is_some_and(|rest| !table.is_empty() && rest.starts_with('.'))
        })
    }

    /// Everything that was recorded with [`Section::warn`].
    pub(super) fn warnings(&self) -> Vec<String> {
        self.context.warnings.clone()
    }

    /// Records a mistake of the key `name`; `""` stands for the table itself.
    pub(super) fn mistake(&mut self, name: &str, found: Option<String>, fix: impl Into<String>) {
        let key = self.path_of(name);
        self.context.mistake(Mistake { key, found, fix: fix.into() });
    }

    fn path_of(&self, name: &str) -> String {
        match (self.path.as_str(), name) {
            ("", name) => name.to_owned(),
            (path, "") => path.to_owned(),
            (path, name) => format!("{path}.{name}"),
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.known.push(name.to_owned());
        self.table.remove(name)
    }

    /// The value of a key in the file or in an override; `None` if neither has one.
    fn raw_value(&mut self, name: &str) -> Result<Option<RawValue>, Reported> {
        let value = self.take(name);
        let path = self.path_of(name);
        if !is_in_list(&path)
            && let Some((variable, value)) = self.context.take_override(&path)
        {
            return self.override_value(name, variable, &value).map(Some);
        }
        value.map(|value| self.substitute(name, value)).transpose()
    }

    fn parse<T>(&mut self, name: &str, kind: Kind<T>, raw: RawValue) -> Option<T> {
        let fix = match (kind.parse)(&raw.value) {
            Ok(value) => return Some(value),
            Err(ValueError::Rule(fix)) => fix,
            // The text begins with the value, which the mistake shows already.
            Err(ValueError::Quoting(fix)) if raw.is_quotable => fix.replacen(&raw.display, "it", 1),
            Err(ValueError::Quoting(_) | ValueError::WrongKind) => {
                format!("write {}", kind.expected)
            }
        };
        self.mistake(name, Some(raw.display), fix);
        None
    }

    /// Parses every element, so that every mistake is reported.
    fn parse_elements<T>(
        &mut self,
        name: &str,
        kind: Kind<T>,
        list: Value,
        conceal: fn(RawValue) -> RawValue,
    ) -> Option<Vec<T>> {
        let Value::Array(elements) = list else {
            let fix = format!("write a list, [ … ], with each element {}", kind.expected);
            self.mistake(name, Some(type_of(&list)), fix);
            return None;
        };
        let parse = |(index, value)| {
            let name = format!("{name}[{index}]");
            let raw = self.substitute(&name, value).ok()?;
            self.parse(&name, kind, conceal(raw))
        };
        let parsed: Vec<Option<T>> = elements.into_iter().enumerate().map(parse).collect();
        parsed.into_iter().collect()
    }
}
