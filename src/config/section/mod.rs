//! Reads one table key by key. Each call of a getter is the one definition of a key: its name, kind,
//! default and meaning.
//!
//! A getter answers `None` where it recorded a mistake, so a table is read as "ask for all keys, then
//! build the checked value with `?`". What was not asked for is an unknown key.

mod files;

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::effective::{self, Setting, Source};
use super::given::{Given, Origin, type_of};
use super::kinds::{Kind, Wrong};
use super::mistakes::{Mistake, nearest};
use super::reader::{Context, Definition};

/// A mistake was recorded in place of the value.
struct Mistaken;

/// How many values of a kind a key holds.
#[derive(Clone, Copy)]
enum Shape {
    One(&'static str),
    List(&'static str),
    Map(&'static str),
}

/// One table.
pub(super) struct Section<'c> {
    context: &'c mut Context,
    /// `""`, `server`, `route[0].limits`.
    path: String,
    heading: String,
    /// Before the names of an inline table's keys: `circuit.`.
    prefix: String,
    table: Table,
    known: Vec<String>,
}

impl<'c> Section<'c> {
    /// Reads the whole document.
    pub(super) fn document<T>(
        context: &'c mut Context,
        document: Table,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let (path, heading, prefix) = (String::new(), String::new(), String::new());
        let known = Vec::new();
        let mut root = Self { context, path, heading, prefix, table: document, known };
        let value = read(&mut root);
        root.finish();
        value
    }

    /// A key with a default.
    pub(super) fn key<T>(
        &mut self,
        name: &str,
        kind: Kind<T>,
        default: impl Into<Value>,
        doc: &'static str,
    ) -> Option<T> {
        let default = default.into();
        self.define(name, Shape::One(kind.name), Some(&default), doc);
        // After a wrong value, whose mistake is told, the default stands in for the checks that follow.
        let read = match self.given(name) {
            Ok(Some(given)) => {
                self.settle(name, kind.name, &given);
                self.read(name, kind, given)
            }
            Ok(None) => {
                self.settled(name, default.clone(), Source::Default);
                None
            }
            Err(Mistaken) => None,
        };
        read.or_else(|| self.read(name, kind, Given::open(default)))
    }

    /// A key that must be written.
    pub(super) fn required<T>(
        &mut self,
        name: &str,
        kind: Kind<T>,
        doc: &'static str,
    ) -> Option<T> {
        self.define(name, Shape::One(kind.name), None, doc);
        let Some(given) = self.given(name).ok()? else {
            self.mistake(name, None, format!("missing; write {}", kind.right));
            return None;
        };
        self.settle(name, kind.name, &given);
        self.read(name, kind, given)
    }

    /// A list whose elements are all of one kind.
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
                self.settle_all(name, kind.name, &value);
                value
            }
            None => {
                self.settled(name, default.clone(), Source::Default);
                default
            }
        };
        self.elements(name, kind, value, |given| given)
    }

    /// A table that must be written, with names of the file's own choice, whose values are all of one
    /// kind. `${NAME}` is replaced in every text of it.
    pub(super) fn map<T>(
        &mut self,
        name: &str,
        kind: Kind<T>,
        doc: &'static str,
    ) -> Option<Vec<(String, T)>> {
        self.define(name, Shape::Map(kind.name), None, doc);
        let Some(value) = self.take(name) else {
            let right = format!("missing; write {{ name = … }}, and in it {}", kind.right);
            self.mistake(name, None, right);
            return None;
        };
        self.settle_all(name, kind.name, &value);
        let table = self.as_table(name, value)?;
        let read = |(entry, value): (String, Value)| {
            let name = format!("{name}.{entry}");
            let given = self.substituted_throughout(&name, value).ok()?;
            Some((entry, self.read(&name, kind, given)?))
        };
        let read: Vec<Option<_>> = table.into_iter().map(read).collect();
        read.into_iter().collect()
    }

    /// A table of its own with its own headline.
    pub(super) fn section<T>(
        &mut self,
        name: &str,
        heading: &str,
        doc: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let table = self.take_table(name);
        self.child(name, heading, doc, table, read)
    }

    /// An inline table, whose keys belong to this headline: `circuit = { open = "5s" }`.
    pub(super) fn inline<T>(&mut self, name: &str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
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
        child.finish();
        value
    }

    /// A list of tables: `[[route]]`. `None` stands for one with mistakes.
    pub(super) fn tables<T>(
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
                    self.settled(name, Value::Array(Vec::new()), Source::Default);
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

    /// Tables under names of the file's own choice: `[upstream.NAME]`.
    pub(super) fn named<T>(
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

    /// Whether the key holds a table, where it may hold a plain value as well.
    pub(super) fn is_table(&self, name: &str) -> bool {
        self.table.get(name).is_some_and(Value::is_table)
    }

    /// Whether the key holds anything.
    pub(super) fn is_written(&self, name: &str) -> bool {
        self.table.get(name).is_some_and(|value| value.as_str() != Some(""))
    }

    /// The keys that were not asked for yet may not be there; `right` says why.
    pub(super) fn no_other_keys(&mut self, right: &str) {
        for (name, _) in std::mem::take(&mut self.table) {
            self.mistake(&name, None, right);
        }
    }

    /// What follows is told under another headline.
    pub(super) fn continue_under(&mut self, heading: String, doc: &'static str) {
        self.context.heading(&heading, doc);
        self.heading = heading;
    }

    /// Leaves the other keys unread and unjudged, because what they mean is not known.
    pub(super) fn abandon(&mut self) {
        self.table.clear();
        self.context.abandon_overrides(&self.path);
    }

    /// Records a mistake of the key `name`; `""` is the table itself.
    pub(super) fn mistake(&mut self, name: &str, found: Option<String>, right: impl Into<String>) {
        let key = self.path_of(name);
        self.context.mistake(Mistake { key, found, right: right.into() });
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
        child.finish();
        value
    }

    fn path_of(&self, name: &str) -> String {
        match (self.path.as_str(), name) {
            ("", name) => name.to_owned(),
            (path, "") => path.to_owned(),
            (path, name) => format!("{path}.{name}"),
        }
    }

    fn define(&mut self, name: &str, shape: Shape, default: Option<&Value>, doc: &'static str) {
        let path = self.path_of(name);
        let (kind, single) = match shape {
            Shape::One(kind) => (kind.to_owned(), true),
            Shape::List(kind) => (format!("list: {kind}"), false),
            Shape::Map(kind) => (format!("table: {kind}"), false),
        };
        self.context.define(Definition {
            heading: self.heading.clone(),
            name: format!("{}{name}", self.prefix),
            overridable: single && !is_in_list(&path),
            path,
            kind,
            default: default.cloned(),
            doc,
        });
    }

    /// Records what the key `name` came to, as far as it may be shown.
    fn settle(&mut self, name: &str, kind: &str, given: &Given) {
        let shown = match &given.origin {
            Origin::Replaced(text) if !effective::is_closed(kind) => Value::from(text.as_str()),
            _ => effective::typed(kind, given.value.clone()),
        };
        self.settled(name, shown, source(&given.origin));
    }

    /// The same of a list or table, in whose texts `${NAME}` has not been replaced yet.
    fn settle_all(&mut self, name: &str, kind: &str, value: &Value) {
        let mut variables = Vec::new();
        collect_variables(value, &mut variables);
        let shown = match effective::is_closed(kind) {
            // Its mistakes are told when it is read.
            true => self.replaced_throughout(value),
            false => value.clone(),
        };
        self.settled(name, shown, Source::File { variables });
    }

    fn settled(&mut self, name: &str, value: Value, source: Source) {
        let inline = self.prefix.trim_end_matches('.');
        let table = self.path.strip_suffix(inline).unwrap_or(&self.path).trim_end_matches('.');
        let (table, name) = (table.to_owned(), format!("{}{name}", self.prefix));
        self.context.setting(Setting { table, name, value, source });
    }

    fn replaced_throughout(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => {
                Value::from(self.context.substitute(text).unwrap_or_else(|_| text.clone()))
            }
            Value::Array(elements) => {
                Value::Array(elements.iter().map(|e| self.replaced_throughout(e)).collect())
            }
            other => other.clone(),
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.known.push(name.to_owned());
        self.table.remove(name)
    }

    fn take_table(&mut self, name: &str) -> Table {
        let value = self.take(name).unwrap_or_else(|| Value::Table(Table::new()));
        self.as_table(name, value).unwrap_or_default()
    }

    fn as_table(&mut self, name: &str, value: Value) -> Option<Table> {
        match value {
            Value::Table(table) => Some(table),
            other => {
                self.mistake(name, Some(type_of(&other)), "write a table of keys");
                None
            }
        }
    }

    /// What the file or an override says of a key; `None` where neither does.
    fn given(&mut self, name: &str) -> Result<Option<Given>, Mistaken> {
        let value = self.take(name);
        let path = self.path_of(name);
        if !is_in_list(&path)
            && let Some((variable, value)) = self.context.take_override(&path)
        {
            let Some(text) = value.to_str() else {
                self.mistake(name, None, format!("the value of {variable} is not UTF-8"));
                return Err(Mistaken);
            };
            let given = Given::hidden(text, format!("the value of {variable}"));
            return Ok(Some(given.of(Origin::Variable(variable))));
        }
        value.map(|value| self.substituted(name, value)).transpose()
    }

    fn substituted(&mut self, name: &str, value: Value) -> Result<Given, Mistaken> {
        let given = Given::open(value);
        let Value::String(text) = &given.value else { return Ok(given) };
        match self.context.substitute(text) {
            Ok(replaced) if replaced == *text => Ok(given),
            // The text with its ${NAME} may be told, what the environment made of it may not.
            Ok(replaced) => {
                let origin = Origin::Replaced(text.clone());
                Ok(Given::hidden(replaced, given.shown).of(origin))
            }
            Err(right) => {
                self.mistake(name, None, right);
                Err(Mistaken)
            }
        }
    }

    /// The same, in every text of a table or list.
    fn substituted_throughout(&mut self, name: &str, value: Value) -> Result<Given, Mistaken> {
        let value = match value {
            Value::Array(elements) => {
                let each = |value| Ok(self.substituted_throughout(name, value)?.value);
                Value::Array(elements.into_iter().map(each).collect::<Result<_, _>>()?)
            }
            Value::Table(table) => {
                let each =
                    |(key, value)| Ok((key, self.substituted_throughout(name, value)?.value));
                Value::Table(table.into_iter().map(each).collect::<Result<_, _>>()?)
            }
            other => return self.substituted(name, other),
        };
        Ok(Given::open(value))
    }

    fn read<T>(&mut self, name: &str, kind: Kind<T>, given: Given) -> Option<T> {
        let right = match (kind.read)(&given.value) {
            Ok(value) => return Some(value),
            Err(Wrong::Rule(right)) => right,
            // It begins with the value, which stands before it already.
            Err(Wrong::Quoting(right)) if given.open => right.replacen(&given.shown, "it", 1),
            Err(Wrong::Quoting(_) | Wrong::Kind) => format!("write {}", kind.right),
        };
        self.mistake(name, Some(given.shown), right);
        None
    }

    /// Reads every element, so that every mistake is told.
    fn elements<T>(
        &mut self,
        name: &str,
        kind: Kind<T>,
        list: Value,
        show: fn(Given) -> Given,
    ) -> Option<Vec<T>> {
        let Value::Array(elements) = list else {
            self.mistake(
                name,
                Some(type_of(&list)),
                format!("write a list: [ ], and in it {}", kind.right),
            );
            return None;
        };
        let read = |(index, value)| {
            let name = format!("{name}[{index}]");
            let given = self.substituted(&name, value).ok()?;
            self.read(&name, kind, show(given))
        };
        let read: Vec<Option<T>> = elements.into_iter().enumerate().map(read).collect();
        read.into_iter().collect()
    }

    /// Every key that was not asked for is a mistake.
    fn finish(self) {
        for name in self.table.keys() {
            let right = match nearest(name, self.known.iter().map(String::as_str)) {
                Some(nearest) => format!("unknown key; did you mean {nearest:?}?"),
                None => format!("unknown key; the keys here are {}", self.known.join(", ")),
            };
            let key = self.path_of(name);
            self.context.mistake(Mistake { key, found: None, right });
        }
    }
}

fn source(origin: &Origin) -> Source {
    match origin {
        Origin::File => Source::File { variables: Vec::new() },
        Origin::Replaced(text) => Source::File { variables: effective::variables(text) },
        Origin::Variable(name) => Source::Variable(name.clone()),
    }
}

fn collect_variables(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::String(text) => names.extend(effective::variables(text)),
        Value::Array(elements) => elements.iter().for_each(|e| collect_variables(e, names)),
        Value::Table(table) => table.iter().for_each(|(_, e)| collect_variables(e, names)),
        _ => {}
    }
}

/// Whether a key is below an element of a list, which no variable can name.
fn is_in_list(path: &str) -> bool {
    path.contains('[')
}
