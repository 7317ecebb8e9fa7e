//! Keys whose values are hidden and whose files are read: secrets, and the URLs of Redis servers.

use std::path::PathBuf;

use toml::Value;

use super::record::{collect_variables, source};
use super::{Reported, Section, Shape};
use crate::config::effective::{self, Source};
use crate::config::kinds::Kind;
use crate::config::raw_value::RawValue;
use crate::config::redis_url::{CertificateCheck, RedisUrl, UnloadedRedisUrl};

impl Section<'_> {
    /// Reads a secret. Its twin `NAME_file` holds the path of a file that contains the secret.
    pub(in crate::config) fn secret<T>(
        &mut self,
        name: &str,
        kind: Kind<T>,
        default: &str,
        doc: &'static str,
    ) -> Option<T> {
        let default = Value::from(default);
        self.define(name, Shape::One(kind.name), Some(&default), doc);
        let raw = self.raw_value(name);
        let is_set = match &raw {
            Ok(raw) => raw.as_ref().is_some_and(|raw| raw.value.as_str() != Some("")),
            Err(Reported) => true,
        };
        let file = self.file_twin(name, is_set, "Path of a file with the value.");
        let (raw, file) = (raw.ok()?, file.ok()?);
        match file {
            Some((path, text)) => {
                let redacted = effective::redact(kind.name, &Value::from(text.as_str()));
                self.record(name, redacted, Source::SecretFile(path));
                let raw = RawValue::hidden(text, "file contents (not shown)");
                self.parse(&format!("{name}_file"), kind, raw)
            }
            None => {
                let source = raw.as_ref().map_or(Source::Default, |raw| source(&raw.origin));
                let raw = raw.unwrap_or_else(|| RawValue::visible(default)).into_hidden();
                let redacted = effective::redact(kind.name, &raw.value);
                self.record(name, redacted, source);
                self.parse(name, kind, raw)
            }
        }
    }

    /// Reads the URL of a Redis server, which has a file twin as a [secret](Self::secret) has, and the
    /// files that the URL names. The inner `None` means that the key is empty, if `kind` allows that.
    pub(in crate::config) fn redis_url(
        &mut self,
        name: &str,
        kind: Kind<Option<UnloadedRedisUrl>>,
        default: &str,
        doc: &'static str,
    ) -> Option<Option<RedisUrl>> {
        let Some(url) = self.secret(name, kind, default, doc)? else { return Some(None) };
        self.load_redis_url(name, url).map(Some)
    }

    /// Reads a [list](Self::secret_list) of such URLs.
    pub(in crate::config) fn redis_url_list(
        &mut self,
        name: &str,
        kind: Kind<Option<UnloadedRedisUrl>>,
        doc: &'static str,
    ) -> Option<Vec<RedisUrl>> {
        let urls = self.secret_list(name, kind, doc)?;
        urls.into_iter().flatten().map(|url| self.load_redis_url(name, url)).collect()
    }

    fn load_redis_url(&mut self, name: &str, url: UnloadedRedisUrl) -> Option<RedisUrl> {
        match url.load(|path| self.context.file(path)) {
            Ok(url) => {
                if url.check() == CertificateCheck::Nothing {
                    self.context.unchecked_redis(self.path_of(name));
                }
                Some(url)
            }
            Err(fix) => {
                self.mistake(name, None, fix);
                None
            }
        }
    }

    /// The keys read so far whose Redis URL turns the check of the server certificate off.
    pub(in crate::config) fn unchecked_redis(&self) -> Vec<String> {
        self.context.unchecked_redis.clone()
    }

    /// The path of a file that a config names, whose own directory relative paths begin at.
    pub(in crate::config) fn resolve(&self, path: &str) -> PathBuf {
        self.context.resolve(path)
    }

    /// Reads the file at `path`, which the key `name` holds.
    pub(in crate::config) fn pem_file(&mut self, name: &str, path: &str) -> Option<String> {
        match self.context.file(path) {
            Ok(text) => Some(text),
            Err(fix) => {
                self.mistake(name, Some(format!("{path:?}")), fix);
                None
            }
        }
    }

    /// Reads a list of secrets. Its twin `NAME_file` holds the path of a file with one secret per line.
    pub(in crate::config) fn secret_list<T>(
        &mut self,
        name: &str,
        kind: Kind<T>,
        doc: &'static str,
    ) -> Option<Vec<T>> {
        let none = Value::Array(Vec::new());
        self.define(name, Shape::List(kind.name), Some(&none), doc);
        let value = self.take(name);
        let is_set = value.as_ref().is_some_and(|value| *value != none);
        match self.file_twin(name, is_set, "Path of a file with one value per line.").ok()? {
            Some((path, text)) => {
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                let values = Value::Array(lines.clone().map(Value::from).collect());
                let redacted = effective::redact(kind.name, &values);
                self.record(name, redacted, Source::SecretFile(path));
                let lines = lines.map(|line| RawValue::hidden(line, "a line (not shown)"));
                lines.map(|line| self.parse(&format!("{name}_file"), kind, line)).collect()
            }
            None => {
                match &value {
                    None => self.record(name, none.clone(), Source::Default),
                    Some(value) => {
                        let mut variables = Vec::new();
                        collect_variables(value, &mut variables);
                        let values = self.substitute_for_display(value);
                        let redacted = effective::redact(kind.name, &values);
                        self.record(name, redacted, Source::File { variables });
                    }
                }
                self.parse_elements(name, kind, value.unwrap_or(none), RawValue::into_hidden)
            }
        }
    }

    /// Path and contents of the file that `NAME_file` names, without the newline at its end. `is_set`
    /// says that `NAME` itself has a value, which excludes the file.
    fn file_twin(
        &mut self,
        name: &str,
        is_set: bool,
        doc: &'static str,
    ) -> Result<Option<(String, String)>, Reported> {
        let twin = format!("{name}_file");
        self.define(&twin, Shape::One("path"), Some(&Value::from("")), doc);
        let Some(raw) = self.raw_value(&twin)? else {
            self.record(&twin, Value::from(""), Source::Default);
            return Ok(None);
        };
        self.record_raw(&twin, "path", &raw);
        let Some(path) = raw.value.as_str() else {
            self.mistake(&twin, Some(raw.display), "write the path of a file");
            return Err(Reported);
        };
        if path.is_empty() {
            return Ok(None);
        }
        if is_set {
            let fix = format!("write either {name} or {twin}, not both");
            self.mistake(&twin, Some(raw.display), fix);
            return Err(Reported);
        }
        let contents = self.context.file(path).map(|text| Some((path.to_owned(), text)));
        contents.map_err(|fix| {
            self.mistake(&twin, Some(raw.display), fix);
            Reported
        })
    }
}
