//! One reading of a configuration: what its tables share and what comes out of it.
//!
//! Owns the collecting: reading goes on after a mistake, overrides that no key took are found at the
//! end, and every key that was asked for is recorded for the reference page. The tables themselves
//! are read by [`Section`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::effective::Setting;
use super::environment::{Environment, Override, override_path, override_variable};
use super::given::read_file;
use super::mistakes::{Mistake, nearest};
use super::section::Section;

/// A key as the reference page shows it.
#[derive(Debug, Clone)]
pub(super) struct Definition {
    /// The table's headline: `[server]`, `[[route]]`.
    pub heading: String,
    /// The name below the headline: `listen`, `circuit.open`.
    pub name: String,
    /// Where it was read: `route[0].idle_ping`.
    pub path: String,
    /// Whether a `TIDEGATE__…` variable can set it.
    pub overridable: bool,
    pub kind: String,
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
    /// Every key's value, in the order of reading.
    settings: Vec<Setting>,
    /// Keys of Redis URLs whose server's certificate is not checked.
    pub(super) unchecked_redis: Vec<String>,
}

/// What is left of a reading: its mistakes and the keys it asked for.
pub(super) struct Outcome {
    pub mistakes: Vec<Mistake>,
    pub definitions: Vec<Definition>,
    pub headings: Vec<(String, &'static str)>,
    pub settings: Vec<Setting>,
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
            settings: Vec::new(),
            unchecked_redis: Vec::new(),
        }
    }

    /// Reads the whole document.
    pub(super) fn read<T>(
        mut self,
        document: Table,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> (T, Outcome) {
        let value = Section::document(&mut self, document, read);
        self.finish_overrides();
        let Self { mistakes, definitions, headings, settings, .. } = self;
        (value, Outcome { mistakes, definitions, headings, settings })
    }

    pub(super) fn mistake(&mut self, mistake: Mistake) {
        self.mistakes.push(mistake);
    }

    pub(super) fn define(&mut self, definition: Definition) {
        self.definitions.push(definition);
    }

    pub(super) fn setting(&mut self, setting: Setting) {
        self.settings.push(setting);
    }

    pub(super) fn heading(&mut self, heading: &str, doc: &'static str) {
        if !self.headings.iter().any(|(known, _)| known == heading) {
            self.headings.push((heading.to_owned(), doc));
        }
    }

    pub(super) fn unchecked_redis(&mut self, key: String) {
        self.unchecked_redis.push(key);
    }

    /// The variable that sets the key at `path`, and its value.
    pub(super) fn take_override(&mut self, path: &str) -> Option<(String, OsString)> {
        let found = self.overrides.get_mut(&override_path(path))?;
        found.used = true;
        Some((found.variable.clone(), found.value.clone()))
    }

    /// Overrides of keys below `path` are not judged.
    pub(super) fn abandon_overrides(&mut self, path: &str) {
        let below = format!("{}.", override_path(path));
        for (path, found) in &mut self.overrides {
            found.used |= path.starts_with(&below);
        }
    }

    /// See [`Environment::substitute`].
    pub(super) fn substitute(&self, text: &str) -> Result<String, String> {
        self.environment.substitute(text)
    }

    /// See [`read_file`].
    pub(super) fn file(&self, path: &str) -> Result<String, String> {
        read_file(&self.base.join(path))
    }

    /// Every override that no key took is a mistake.
    fn finish_overrides(&mut self) {
        let known = self.definitions.iter().filter(|key| key.overridable);
        let known: Vec<String> = known.map(|key| override_path(&key.path)).collect();
        for (path, Override { variable, .. }) in self.overrides.iter().filter(|(_, o)| !o.used) {
            let right = match nearest(path, known.iter().map(String::as_str)) {
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
