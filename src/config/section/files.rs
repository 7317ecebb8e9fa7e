//! Keys whose values are not shown, and whose files are read: secrets, and the URLs of Redis servers.

use toml::Value;

use super::{Mistaken, Section, Shape};
use crate::config::effective::{self, Source};
use crate::config::given::Given;
use crate::config::kinds::Kind;
use crate::config::redis_url::{CertificateCheck, RedisUrl, Written};

impl Section<'_> {
    /// A secret. Its twin `NAME_file` holds the path of a file with it.
    pub(in crate::config) fn secret<T>(
        &mut self,
        name: &str,
        kind: Kind<T>,
        default: &str,
        doc: &'static str,
    ) -> Option<T> {
        let default = Value::from(default);
        self.define(name, Shape::One(kind.name), Some(&default), doc);
        let given = self.given(name);
        let written = match &given {
            Ok(given) => given.as_ref().is_some_and(|given| given.value.as_str() != Some("")),
            Err(Mistaken) => true,
        };
        let file = self.file_twin(name, written, "The path of a file that holds it.");
        let (given, file) = (given.ok()?, file.ok()?);
        match file {
            Some((path, text)) => {
                let shown = effective::redacted(kind.name, &Value::from(text.as_str()));
                self.settled(name, shown, Source::SecretFile(path));
                let given = Given::hidden(text, "contents of a file that are not shown");
                self.read(&format!("{name}_file"), kind, given)
            }
            None => {
                let source = given.as_ref().map_or(Source::Default, |g| super::source(&g.origin));
                let given = given.unwrap_or_else(|| Given::open(default)).concealed();
                let shown = effective::redacted(kind.name, &given.value);
                self.settled(name, shown, source);
                self.read(name, kind, given)
            }
        }
    }

    /// The URL of a Redis server, with its twin as a [secret](Self::secret); reads the files that it names.
    /// The inner `None` is one that is not written, where `kind` allows that.
    pub(in crate::config) fn redis_url(
        &mut self,
        name: &str,
        kind: Kind<Option<Written>>,
        default: &str,
        doc: &'static str,
    ) -> Option<Option<RedisUrl>> {
        let Some(written) = self.secret(name, kind, default, doc)? else { return Some(None) };
        self.loaded(name, written).map(Some)
    }

    /// The same for a [list](Self::secret_list).
    pub(in crate::config) fn redis_url_list(
        &mut self,
        name: &str,
        kind: Kind<Option<Written>>,
        doc: &'static str,
    ) -> Option<Vec<RedisUrl>> {
        let written = self.secret_list(name, kind, doc)?;
        written.into_iter().flatten().map(|one| self.loaded(name, one)).collect()
    }

    fn loaded(&mut self, name: &str, written: Written) -> Option<RedisUrl> {
        match written.load(|path| self.context.file(path)) {
            Ok(url) => {
                if url.check() == CertificateCheck::Nothing {
                    self.context.unchecked_redis(self.path_of(name));
                }
                Some(url)
            }
            Err(right) => {
                self.mistake(name, None, right);
                None
            }
        }
    }

    /// The keys with a Redis URL so far that let any server be the right one.
    pub(in crate::config) fn unchecked_redis(&self) -> Vec<String> {
        self.context.unchecked_redis.clone()
    }

    /// A list of secrets. Its twin `NAME_file` holds the path of a file with one a line.
    pub(in crate::config) fn secret_list<T>(
        &mut self,
        name: &str,
        kind: Kind<T>,
        doc: &'static str,
    ) -> Option<Vec<T>> {
        let none = Value::Array(Vec::new());
        self.define(name, Shape::List(kind.name), Some(&none), doc);
        let value = self.take(name);
        let written = value.as_ref().is_some_and(|value| *value != none);
        match self.file_twin(name, written, "The path of a file with one a line.").ok()? {
            Some((path, text)) => {
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                let shown = Value::Array(lines.clone().map(Value::from).collect());
                let shown = effective::redacted(kind.name, &shown);
                self.settled(name, shown, Source::SecretFile(path));
                let lines = lines.map(|line| Given::hidden(line, "a line that is not shown"));
                lines.map(|line| self.read(&format!("{name}_file"), kind, line)).collect()
            }
            None => {
                match &value {
                    None => self.settled(name, none.clone(), Source::Default),
                    Some(value) => {
                        let mut variables = Vec::new();
                        super::collect_variables(value, &mut variables);
                        let shown = self.replaced_throughout(value);
                        let shown = effective::redacted(kind.name, &shown);
                        self.settled(name, shown, Source::File { variables });
                    }
                }
                self.elements(name, kind, value.unwrap_or(none), Given::concealed)
            }
        }
    }

    /// Path and contents of the file that `NAME_file` names, without the newline at its end. `written`
    /// says that `NAME` itself holds something.
    fn file_twin(
        &mut self,
        name: &str,
        written: bool,
        doc: &'static str,
    ) -> Result<Option<(String, String)>, Mistaken> {
        let twin = format!("{name}_file");
        self.define(&twin, Shape::One("path"), Some(&Value::from("")), doc);
        let Some(given) = self.given(&twin)? else {
            self.settled(&twin, Value::from(""), Source::Default);
            return Ok(None);
        };
        self.settle(&twin, "path", &given);
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
        let read = self.context.file(path).map(|text| Some((path.to_owned(), text)));
        read.map_err(|right| {
            self.mistake(&twin, Some(given.shown), right);
            Mistaken
        })
    }
}
