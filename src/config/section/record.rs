//! Records the definition of every key for the reference page, and its effective value for
//! `tidegate config show`.

use toml::Value;

use super::substitute::is_in_list;
use super::{Section, Shape};
use crate::config::context::Definition;
use crate::config::effective::{self, Setting, Source};
use crate::config::raw_value::{Origin, RawValue};

impl Section<'_> {
    pub(super) fn define(
        &mut self,
        name: &str,
        shape: Shape,
        default: Option<&Value>,
        doc: &'static str,
    ) {
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

    /// Records the effective value of the key `name`, as far as it may be shown.
    pub(super) fn record_raw(&mut self, name: &str, kind: &str, raw: &RawValue) {
        let value = match &raw.origin {
            Origin::Substituted(text) if !effective::is_safe_to_show(kind) => {
                Value::from(text.as_str())
            }
            _ => effective::to_typed_value(kind, raw.value.clone()),
        };
        self.record(name, value, source(&raw.origin));
    }

    /// Does the same for a list or table, in whose texts `${NAME}` has not been replaced yet.
    pub(super) fn record_all(&mut self, name: &str, kind: &str, value: &Value) {
        let mut variables = Vec::new();
        collect_variables(value, &mut variables);
        let value = match effective::is_safe_to_show(kind) {
            // A failed substitution is reported when the value is parsed.
            true => self.substitute_for_display(value),
            false => value.clone(),
        };
        self.record(name, value, Source::File { variables });
    }

    pub(super) fn record(&mut self, name: &str, value: Value, source: Source) {
        let inline = self.prefix.trim_end_matches('.');
        let table = self.path.strip_suffix(inline).unwrap_or(&self.path).trim_end_matches('.');
        let (table, name) = (table.to_owned(), format!("{}{name}", self.prefix));
        self.context.setting(Setting { table, name, value, source });
    }
}

pub(super) fn source(origin: &Origin) -> Source {
    match origin {
        Origin::File => Source::File { variables: Vec::new() },
        Origin::Substituted(text) => Source::File { variables: effective::variables(text) },
        Origin::Variable(name) => Source::Variable(name.clone()),
    }
}

pub(super) fn collect_variables(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::String(text) => names.extend(effective::variables(text)),
        Value::Array(elements) => elements.iter().for_each(|e| collect_variables(e, names)),
        Value::Table(table) => table.iter().for_each(|(_, e)| collect_variables(e, names)),
        _ => {}
    }
}
