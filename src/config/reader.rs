//! Reads tables key by key. Each call of a getter is the one definition of a key: its name, kind,
//! default and meaning.
//!
//! Owns the collecting: every mistake is kept and reading goes on, unknown keys are found because
//! each table knows which keys were asked for, and every definition is recorded for the reference
//! page. Invariant: values of secrets, of the environment and of files never reach a mistake.
//!
//! A getter answers `None` where it recorded a mistake, so a section is read as "ask for all keys,
//! then build the checked value with `?`".

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::environment::{Environment, Override, override_path, override_variable};
use super::kinds::{Kind, Wrong};
use super::mistakes::{Mistake, nearest};

/// Secret files are a line, a list of keys or a PEM text; more is surely the wrong file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Longer values are cut where a mistake shows them.
const MAX_SHOWN_CHARS: usize = 60;

/// A key as the reference page shows it.
#[derive(Debug, Clone)]
pub(super) struct Definition {
    /// The table's headline: `[server]`, `[[route]]`.
    pub heading: String,
    /// The name below the headline: `listen`, `circuit.open`.
    pub name: String,
    /// Where it was read.
    pub path: String,
    pub kind: &'static str,
    /// `None` where it must be written.
    pub default: Option<Value>,
    pub doc: &'static str,
}

/// What one reading shares over all its tables.
pub(super) struct Context {
    environment: Environment,
    overrides: BTreeMap<String, Override>,
    /// Relative paths of files begin here.
    base: PathBuf,
    mistakes: Vec<Mistake>,
    definitions: Vec<Definition>,
    /// What stands below each headline of the reference page.
    headings: Vec<(String, &'static str)>,
    /// Paths that an override could have set.
    overridable: BTreeSet<String>,
}

/// What is left of a reading: its mistakes and the keys it asked for.
pub(super) struct Outcome {
    pub mistakes: Vec<Mistake>,
    pub definitions: Vec<Definition>,
    pub headings: Vec<(String, &'static str)>,
}

impl Context {
    pub(super) fn new(environment: &Environment, base: &Path) -> Self {
        Self {
            environment: environment.clone(),
            overrides: environment.overrides(),
            base: base.to_owned(),
            mistakes: Vec::new(),
            definitions: Vec::new(),
            headings: Vec::new(),
            overridable: BTreeSet::new(),
        }
    }

    /// Reads the whole document.
    pub(super) fn read<T>(
        mut self,
        document: Table,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> (T, Outcome) {
        let mut root = Section {
            context: &mut self,
            path: String::new(),
            heading: String::new(),
            prefix: String::new(),
            table: document,
            known: Vec::new(),
        };
        let value = read(&mut root);
        root.finish();
        self.finish_overrides();
        let Self { mistakes, definitions, headings, .. } = self;
        (value, Outcome { mistakes, definitions, headings })
    }

    fn heading(&mut self, heading: &str, doc: &'static str) {
        if !self.headings.iter().any(|(known, _)| known == heading) {
            self.headings.push((heading.to_owned(), doc));
        }
    }

    fn finish_overrides(&mut self) {
        for (path, Override { variable, .. }) in self.overrides.iter().filter(|(_, o)| !o.used) {
            let right = match nearest(path, self.overridable.iter().map(String::as_str)) {
                Some(nearest) => {
                    format!("it names no key; did you mean {}?", override_variable(nearest))
                }
                None => {
                    "it names no key that a variable can set; write it into the file".to_owned()
                }
            };
            self.mistakes.push(Mistake { key: variable.clone(), found: None, right });
        }
    }
}

/// A value ready to be read, and what a mistake may tell of it.
struct Given {
    value: Value,
    shown: String,
    /// Whether `shown` is the value, so that a mistake may quote from it.
    open: bool,
}

impl Given {
    /// A value that stands in the file as it is.
    fn open(value: Value) -> Self {
        match shown(&value) {
            Some(shown) => Self { value, shown, open: true },
            None => Self { value, shown: "a URL with a password".to_owned(), open: false },
        }
    }

    fn hidden(value: impl Into<Value>, shown: impl Into<String>) -> Self {
        Self { value: value.into(), shown: shown.into(), open: false }
    }

    /// Only what type it is may be told.
    fn concealed(self) -> Self {
        let shown = format!("{} that is not shown", type_of(&self.value));
        Self::hidden(self.value, shown)
    }
}

/// A mistake was recorded in place of the value.
struct Mistaken;

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

impl Section<'_> {
    /// A key with a default.
    pub(super) fn key<T>(
        &mut self,
        name: &str,
        kind: Kind<T>,
        default: impl Into<Value>,
        doc: &'static str,
    ) -> Option<T> {
        let default = default.into();
        self.define(name, kind.name, Some(&default), doc);
        let given = self.given(name).ok()?.unwrap_or_else(|| Given::open(default));
        self.read(name, kind, given)
    }

    /// A key that must be written.
    pub(super) fn required<T>(
        &mut self,
        name: &str,
        kind: Kind<T>,
        doc: &'static str,
    ) -> Option<T> {
        self.define(name, kind.name, None, doc);
        let Some(given) = self.given(name).ok()? else {
            self.mistake(name, None, format!("missing; write {}", kind.right));
            return None;
        };
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
        self.define(name, "list", Some(&default), doc);
        let value = self.take(name).unwrap_or(default);
        self.elements(name, kind, value, |given| given)
    }

    /// A secret. Its twin `NAME_file` holds the path of a file with it.
    pub(super) fn secret<T>(
        &mut self,
        name: &str,
        kind: Kind<T>,
        default: &str,
        doc: &'static str,
    ) -> Option<T> {
        let default = Value::from(default);
        self.define(name, kind.name, Some(&default), doc);
        let given = self.given(name);
        let written = match &given {
            Ok(given) => given.as_ref().is_some_and(|given| given.value.as_str() != Some("")),
            Err(Mistaken) => true,
        };
        let file = self.file_twin(name, written);
        let (given, file) = (given.ok()?, file.ok()?);
        match file {
            Some(text) => {
                let given = Given::hidden(text, "contents of a file that are not shown");
                self.read(&format!("{name}_file"), kind, given)
            }
            None => {
                let given = given.unwrap_or_else(|| Given::open(default)).concealed();
                self.read(name, kind, given)
            }
        }
    }

    /// A list of secrets. Its twin `NAME_file` holds the path of a file with one a line.
    pub(super) fn secret_list<T>(
        &mut self,
        name: &str,
        kind: Kind<T>,
        doc: &'static str,
    ) -> Option<Vec<T>> {
        let none = Value::Array(Vec::new());
        self.define(name, "list", Some(&none), doc);
        let value = self.take(name);
        let written = value.as_ref().is_some_and(|value| *value != none);
        match self.file_twin(name, written).ok()? {
            Some(text) => {
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                let lines = lines.map(|line| Given::hidden(line, "a line that is not shown"));
                lines.map(|line| self.read(&format!("{name}_file"), kind, line)).collect()
            }
            None => self.elements(name, kind, value.unwrap_or(none), Given::concealed),
        }
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
        let elements = match self.take(name) {
            None => Vec::new(),
            Some(Value::Array(elements)) => elements,
            Some(other) => {
                self.mistake(name, Some(type_of(&other)), "write a list of tables".to_owned());
                Vec::new()
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

    /// What follows is told under another headline.
    pub(super) fn continue_under(&mut self, heading: String, doc: &'static str) {
        self.context.heading(&heading, doc);
        self.heading = heading;
    }

    /// Leaves the other keys unread and unjudged, because what they mean is not known.
    pub(super) fn abandon(&mut self) {
        self.table.clear();
        let below = format!("{}.", override_path(&self.path));
        for (path, found) in &mut self.context.overrides {
            found.used |= path.starts_with(&below);
        }
    }

    /// Records a mistake of the key `name`; `""` is the table itself.
    pub(super) fn mistake(&mut self, name: &str, found: Option<String>, right: impl Into<String>) {
        let key = self.path_of(name);
        self.context.mistakes.push(Mistake { key, found, right: right.into() });
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

    fn define(
        &mut self,
        name: &str,
        kind: &'static str,
        default: Option<&Value>,
        doc: &'static str,
    ) {
        let definition = Definition {
            heading: self.heading.clone(),
            name: format!("{}{name}", self.prefix),
            path: self.path_of(name),
            kind,
            default: default.cloned(),
            doc,
        };
        self.context.definitions.push(definition);
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
        let path = override_path(&self.path_of(name));
        // The elements of lists have no name that a variable could say.
        if !path.contains('[') {
            self.context.overridable.insert(path.clone());
            if let Some(found) = self.context.overrides.get_mut(&path) {
                found.used = true;
                let variable = found.variable.clone();
                return match found.value.to_str() {
                    Some(text) => Ok(Some(Given::hidden(text, format!("the value of {variable}")))),
                    None => {
                        self.mistake(name, None, format!("the value of {variable} is not UTF-8"));
                        Err(Mistaken)
                    }
                };
            }
        }
        value.map(|value| self.substituted(name, value)).transpose()
    }

    fn substituted(&mut self, name: &str, value: Value) -> Result<Given, Mistaken> {
        let given = Given::open(value);
        let Value::String(text) = &given.value else { return Ok(given) };
        match self.context.environment.substitute(text) {
            Ok(replaced) if replaced == *text => Ok(given),
            // The text with its ${NAME} may be told, what the environment made of it may not.
            Ok(replaced) => Ok(Given::hidden(replaced, given.shown)),
            Err(right) => {
                self.mistake(name, None, right);
                Err(Mistaken)
            }
        }
    }

    fn read<T>(&mut self, name: &str, kind: Kind<T>, given: Given) -> Option<T> {
        let right = match (kind.read)(&given.value) {
            Ok(value) => return Some(value),
            Err(Wrong::Because(right)) if given.open => right,
            Err(Wrong::Because(_) | Wrong::Kind) => format!("write {}", kind.right),
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

    /// The contents of the file that `NAME_file` names, without the newline at its end. `written`
    /// says that `NAME` itself holds something.
    fn file_twin(&mut self, name: &str, written: bool) -> Result<Option<String>, Mistaken> {
        let twin = format!("{name}_file");
        self.define(&twin, "path", Some(&Value::from("")), "A file that holds it.");
        let Some(given) = self.given(&twin)? else { return Ok(None) };
        let Some(path) = given.value.as_str() else {
            self.mistake(&twin, Some(given.shown), "write the path of a file");
            return Err(Mistaken);
        };
        if path.is_empty() {
            return Ok(None);
        }
        if written {
            let right = format!("write either {name} or {twin}, not both");
            self.mistake(&twin, Some(given.shown), right);
            return Err(Mistaken);
        }
        read_file(&self.context.base.join(path)).map(Some).map_err(|right| {
            self.mistake(&twin, Some(given.shown), right);
            Mistaken
        })
    }

    /// Every key that was not asked for is a mistake.
    fn finish(self) {
        for name in self.table.keys() {
            let right = match nearest(name, self.known.iter().map(String::as_str)) {
                Some(nearest) => format!("unknown key; did you mean {nearest:?}?"),
                None => format!("unknown key; the keys here are {}", self.known.join(", ")),
            };
            let key = self.path_of(name);
            self.context.mistakes.push(Mistake { key, found: None, right });
        }
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
fn type_of(value: &Value) -> String {
    match value {
        Value::Integer(_) => "an integer".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        other => format!("a {}", other.type_str()),
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text))
        .map_err(|error| format!("this file cannot be read: {error}"))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}
