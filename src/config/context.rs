//! What the tables of one configuration share while they are read, and what is collected on the way.
//!
//! Reading goes on after a mistake, overrides that set no key are found at the end, and every key that
//! was read is recorded for the reference page. The tables themselves are read by
//! [`Section`](super::section::Section).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use toml::Value;

use super::effective::{Setting, Source};
use super::environment::{Environment, Override, override_path, override_variable};
use super::mistakes::{Mistake, nearest};
use super::raw_value::read_file;

/// A key as the reference page shows it.
#[derive(Debug, Clone)]
#[cfg_attr(not(test), expect(dead_code, reason = "a test generates the reference page"))]
pub(super) struct Definition {
    /// The heading of its table: `[server]`, `[[route]]`.
    pub heading: String,
    /// The name below the heading: `listen`, `circuit.open`.
    pub name: String,
    /// The full path under which it was read: `route[0].idle_ping`.
    pub path: String,
    /// Whether a `TIDEGATE__…` variable can set it.
    pub overridable: bool,
    pub kind: String,
    /// `None` where the key is required.
    pub default: Option<Value>,
    pub doc: &'static str,
}

/// A key that is set to something.
pub(super) struct Written {
    /// The full path: `route[0].limits.messages_per_user`.
    pub path: String,
    /// As far as it may be shown.
    pub value: Value,
    /// `None` where the key is required.
    pub default: Option<Value>,
}

/// The state that all tables of one configuration share while they are read.
pub(super) struct Context {
    environment: Environment,
    overrides: BTreeMap<String, Override>,
    /// The folder that relative file paths start from.
    base: PathBuf,
    mistakes: Vec<Mistake>,
    definitions: Vec<Definition>,
    /// The headings of the reference page, each with its introduction.
    headings: Vec<(String, &'static str)>,
    /// The value of every key, in the order of reading.
    settings: Vec<Setting>,
    /// Keys of Redis URLs whose server certificate is not checked.
    pub(super) unchecked_redis: Vec<String>,
    /// What is valid and probably not meant, each with its key.
    pub(super) warnings: Vec<String>,
}

/// Everything that was collected while a configuration was read.
#[cfg_attr(not(test), expect(dead_code, reason = "a test generates the reference page"))]
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
            warnings: Vec::new(),
        }
    }

    /// Ends the reading. Every override that set no key becomes a mistake.
    pub(super) fn finish(mut self) -> Outcome {
        self.report_unused_overrides();
        let Self { mistakes, definitions, headings, settings, .. } = self;
        Outcome { mistakes, definitions, headings, settings }
    }

    /// The keys of the mistakes so far.
    pub(super) fn mistakes(&self) -> impl Iterator<Item = &str> {
        self.mistakes.iter().map(|mistake| &*mistake.key)
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

    /// Every key whose value is not only its default.
    pub(super) fn written(&self) -> Vec<Written> {
        let defaults: BTreeMap<&str, &Option<Value>> =
            self.definitions.iter().map(|key| (key.path.as_str(), &key.default)).collect();
        let written = self.settings.iter().filter(|setting| setting.source != Source::Default);
        let written = written.map(|setting| {
            let path = setting.key();
            let default = defaults.get(path.as_str()).and_then(|default| (*default).clone());
            Written { path, value: setting.value.clone(), default }
        });
        written.collect()
    }

    pub(super) fn heading(&mut self, heading: &str, doc: &'static str) {
        if !self.headings.iter().any(|(known, _)| known == heading) {
            self.headings.push((heading.to_owned(), doc));
        }
    }

    pub(super) fn unchecked_redis(&mut self, key: String) {
        self.unchecked_redis.push(key);
    }

    /// Whether a variable overrides a key below `path`.
    pub(super) fn has_overrides_below(&self, path: &str) -> bool {
        let below = format!("{}.", override_path(path));
        self.overrides.keys().any(|path| path.starts_with(&below))
    }

    /// The variable that overrides the key at `path`, and its value.
    pub(super) fn take_override(&mut self, path: &str) -> Option<(String, OsString)> {
        let found = self.overrides.get_mut(&override_path(path))?;
        found.used = true;
        Some((found.variable.clone(), found.value.clone()))
    }

    /// Accepts every override of a key below `path` without reading it.
    pub(super) fn ignore_overrides_below(&mut self, path: &str) {
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
        read_file(&self.resolve(path))
    }

    /// The path of a file that the config names.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }

    fn report_unused_overrides(&mut self) {
        let known = self.definitions.iter().filter(|key| key.overridable);
        let known: Vec<String> = known.map(|key| override_path(&key.path)).collect();
        for (path, Override { variable, .. }) in self.overrides.iter().filter(|(_, o)| !o.used) {
            let fix = match nearest(path, known.iter().map(String::as_str)) {
                Some(nearest) => {
                    format!("no such key; did you mean {}?", override_variable(nearest))
                }
                None => "no key that a variable can override; set it in the file".to_owned(),
            };
            self.mistakes.push(Mistake { key: variable.clone(), found: None, fix });
        }
    }
}
