//! Reads values that are filled from a message: the `kwargs` of a Celery task and the `body` of an HTTP request.
//!
//! Texts are filled and become JSON strings, tables become objects and lists lists, at any depth. A table that names a
//! source is none of these: `{ field = … }`, `{ spread = … }`, and a table with the only key `int`, `value` or `null`.
//! What would be taken for one is written as `{ value = { field = "x" } }`.

use serde_json::Value as Json;
use toml::{Table, Value};

use super::kinds::choice;
use super::mistakes::nearest;
use super::raw_value::RawValue;
use super::section::Section;
use super::{ClientField, FieldType, ListItem, Missing, ObjectTemplate, ReadBy, ValueTemplate};
use crate::protocol::Template;

/// How to write a value, as it completes "write …".
pub(super) const EXPECTED: &str = r#"a text such as "{message}", a number, a boolean, a table, a list, { int = "{user_id}" }, { field = "image_url" }, { value = … } or { null = true }"#;

/// The keys that, alone in a table, name the source of a value. `field` and `spread` do so with others as well.
const SOURCES: [&str; 3] = ["int", "value", "null"];

/// Reads templates, and records each mistake under its own key.
pub(super) struct TemplateReader<'s, 'c> {
    section: &'s mut Section<'c>,
    read_by: ReadBy,
}

impl<'s, 'c> TemplateReader<'s, 'c> {
    pub(super) fn new(section: &'s mut Section<'c>, read_by: ReadBy) -> Self {
        Self { section, read_by }
    }

    /// Reads the members of an object. All of them are read before the first mistake ends the reading.
    pub(super) fn object(&mut self, key: &str, table: &Table) -> Option<ObjectTemplate> {
        if !self.check_names(key, table) {
            return None;
        }
        let member = |(name, value): (&String, &Value)| {
            Some((name.clone(), self.value(&format!("{key}.{name}"), value)?))
        };
        let members: Vec<Option<_>> = table.iter().map(member).collect();
        members.into_iter().collect()
    }

    pub(super) fn value(&mut self, key: &str, value: &Value) -> Option<ValueTemplate> {
        match value {
            Value::String(_) => self.template(key, value).map(ValueTemplate::Text),
            Value::Array(elements) => self.list(key, elements),
            Value::Table(table) => self.table(key, value, table),
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {
                self.constant(key, value).map(ValueTemplate::Constant)
            }
        }
    }

    fn list(&mut self, key: &str, elements: &[Value]) -> Option<ValueTemplate> {
        let item = |(index, element): (usize, &Value)| {
            let key = format!("{key}[{index}]");
            match element {
                Value::Table(table) if table.contains_key("spread") => {
                    self.spread(&key, element, table).map(ListItem::Spread)
                }
                _ => self.value(&key, element).map(ListItem::One),
            }
        };
        let items: Vec<Option<_>> = elements.iter().enumerate().map(item).collect();
        items.into_iter().collect::<Option<_>>().map(ValueTemplate::List)
    }

    fn table(&mut self, key: &str, whole: &Value, table: &Table) -> Option<ValueTemplate> {
        if table.contains_key("field") {
            return self.field(key, whole, table).map(ValueTemplate::Field);
        }
        if table.contains_key("spread") {
            let fix = "write { spread = … } in a list, or { value = { spread = … } } for a table with this key";
            return self.mistake(key, whole, fix);
        }
        if table.is_empty() || !table.keys().all(|name| SOURCES.contains(&name.as_str())) {
            return self.object(key, table).map(ValueTemplate::Object);
        }
        let mut entries = table.iter();
        let (Some((name, value)), None) = (entries.next(), entries.next()) else {
            return self.mistake(key, whole, "write only one of int, value and null");
        };
        match (name.as_str(), value) {
            ("int", Value::String(_)) => {
                self.template(&format!("{key}.int"), value).map(ValueTemplate::Integer)
            }
            ("int", _) => self.mistake(key, whole, r#"write int as a text such as "{user_id}""#),
            ("null", Value::Boolean(true)) => Some(ValueTemplate::Constant(Json::Null)),
            ("null", _) => self.mistake(key, whole, "write { null = true }"),
            _ => self.constant(&format!("{key}.value"), value).map(ValueTemplate::Constant),
        }
    }

    /// Reads `{ field = "image_url", type = "text", default = "null" }`.
    fn field(&mut self, key: &str, whole: &Value, table: &Table) -> Option<ClientField> {
        self.check_keys(key, whole, table, &["field", "type", "default", "required"])?;
        let example = r#"{ field = "image_url" }"#;
        let name = self.field_name(key, whole, table.get("field"), example)?;
        let types = [
            ("any", FieldType::Any),
            ("text", FieldType::Text),
            ("int", FieldType::Int),
            ("number", FieldType::Number),
            ("bool", FieldType::Bool),
            ("object", FieldType::Object),
            ("list", FieldType::List),
        ];
        let Ok(kind) = table.get("type").map_or(Ok(FieldType::Any), |kind| choice(kind, &types))
        else {
            let fix = r#"write type as "any", "text", "int", "number", "bool", "object" or "list""#;
            return self.mistake(key, whole, fix);
        };
        let is_required = self.required(key, whole, table)?;
        let missing = match table.get("default") {
            Some(_) if is_required => {
                return self.mistake(
                    key,
                    whole,
                    "write either required = true or a default, not both",
                );
            }
            None if is_required => Missing::Refuse,
            None => Missing::Default(Json::Null),
            Some(default) => self.default_of_field(key, whole, default)?,
        };
        Some(ClientField { name, kind, missing })
    }

    /// Reads `{ spread = "messages", required = true }`.
    fn spread(&mut self, key: &str, whole: &Value, table: &Table) -> Option<ClientField> {
        self.check_keys(key, whole, table, &["spread", "required"])?;
        let example = r#"{ spread = "messages" }"#;
        let name = self.field_name(key, whole, table.get("spread"), example)?;
        let is_required = self.required(key, whole, table)?;
        let missing = if is_required { Missing::Refuse } else { Missing::Omit };
        Some(ClientField { name, kind: FieldType::List, missing })
    }

    fn field_name(
        &mut self,
        key: &str,
        whole: &Value,
        name: Option<&Value>,
        example: &str,
    ) -> Option<Box<str>> {
        match name {
            Some(Value::String(name)) if !name.is_empty() => {
                self.substitute(key, name).map(|(name, _)| name.into())
            }
            _ => {
                let fix =
                    format!("write the name of a field of the client's message, such as {example}");
                self.mistake(key, whole, fix)
            }
        }
    }

    fn required(&mut self, key: &str, whole: &Value, table: &Table) -> Option<bool> {
        match table.get("required") {
            None => Some(false),
            Some(Value::Boolean(is_required)) => Some(*is_required),
            Some(_) => self.mistake(key, whole, "write required as true or false"),
        }
    }

    fn default_of_field(&mut self, key: &str, whole: &Value, default: &Value) -> Option<Missing> {
        let key = format!("{key}.default");
        match default {
            Value::String(word) if word == "null" => Some(Missing::Default(Json::Null)),
            Value::String(word) if word == "omit" => Some(Missing::Omit),
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => {
                self.constant(&key, default).map(Missing::Default)
            }
            Value::Table(table) if table.len() == 1 && table.contains_key("value") => {
                self.constant(&format!("{key}.value"), &table["value"]).map(Missing::Default)
            }
            _ => {
                let fix =
                    r#"write default as "null", "omit", a number, a boolean or { value = … }"#;
                self.mistake(key.trim_end_matches(".default"), whole, fix)
            }
        }
    }

    /// Checks that a table which names a source has no other keys than `keys`.
    fn check_keys(&mut self, key: &str, whole: &Value, table: &Table, keys: &[&str]) -> Option<()> {
        let Some(unknown) = table.keys().find(|name| !keys.contains(&name.as_str())) else {
            return Some(());
        };
        let fix = match nearest(unknown, keys.iter().copied()) {
            Some(nearest) => format!("unknown key {unknown:?}; did you mean {nearest:?}?"),
            None => {
                let (first, all) = (keys[0], keys.join(", "));
                format!(
                    "unknown key {unknown:?}; the keys here are {all}. A table that is meant as it is stands in \
                     {{ value = {{ {first} = … }} }}"
                )
            }
        };
        self.mistake(key, whole, fix)
    }

    /// Converts a value to JSON that is read unchanged.
    fn constant(&mut self, key: &str, value: &Value) -> Option<Json> {
        Some(match value {
            Value::String(text) => Json::from(self.substitute(key, text)?.0),
            Value::Integer(number) => Json::from(*number),
            Value::Float(number) if number.is_finite() => Json::from(*number),
            Value::Float(_) => return self.mistake(key, value, "write a finite number"),
            Value::Boolean(boolean) => Json::from(*boolean),
            Value::Array(elements) => {
                let each = |(index, element): (usize, &Value)| {
                    self.constant(&format!("{key}[{index}]"), element)
                };
                let elements: Vec<Option<_>> = elements.iter().enumerate().map(each).collect();
                Json::Array(elements.into_iter().collect::<Option<_>>()?)
            }
            Value::Table(table) => {
                if !self.check_names(key, table) {
                    return None;
                }
                let entry = |(name, value): (&String, &Value)| {
                    Some((name.clone(), self.constant(&format!("{key}.{name}"), value)?))
                };
                let entries: Vec<Option<_>> = table.iter().map(entry).collect();
                Json::Object(entries.into_iter().collect::<Option<_>>()?)
            }
            Value::Datetime(_) => return self.mistake(key, value, "write dates as text"),
        })
    }

    /// Whether the names of an object mean nothing but themselves to its reader.
    fn check_names(&mut self, key: &str, table: &Table) -> bool {
        if self.read_by == ReadBy::Celery && table.contains_key("__type__") {
            let fix = "write a table without \"__type__\", which has a special meaning in Celery";
            self.section.mistake(key, Some("a table".to_owned()), fix);
            return false;
        }
        true
    }

    fn template(&mut self, key: &str, value: &Value) -> Option<Template> {
        let (text, is_written_so) = self.substitute(key, value.as_str()?)?;
        match Template::parse(&text) {
            Ok(template) => Some(template),
            Err(fix) => {
                let shown = RawValue::visible(value.clone());
                let fix = match is_written_so && shown.is_quotable {
                    // The text begins with the value, which the mistake shows already.
                    true => fix.replacen(&shown.display, "it", 1),
                    false => "it has a brace that is not part of a {name}".to_owned(),
                };
                let fix = format!("{fix}; write {{ value = … }} for a text with braces");
                self.section.mistake(key, Some(shown.display), fix);
                None
            }
        }
    }

    /// Replaces every `${NAME}`. Returns as well whether nothing was replaced, so that the text may be shown.
    fn substitute(&mut self, key: &str, text: &str) -> Option<(String, bool)> {
        match self.section.substitute_text(text) {
            Ok(substituted) => {
                let is_written_so = substituted == text;
                Some((substituted, is_written_so))
            }
            Err(fix) => {
                self.section.mistake(key, None, fix);
                None
            }
        }
    }

    /// Records a mistake of `value`, which is shown as it is written in the file.
    fn mistake<T>(&mut self, key: &str, value: &Value, fix: impl Into<String>) -> Option<T> {
        self.section.mistake(key, Some(RawValue::visible(value.clone()).display), fix);
        None
    }
}

#[cfg(test)]
mod tests;
