//! The `kwargs` of a Celery task: where each keyword argument comes from.

use serde_json::Value as Json;
use toml::{Table, Value};

use super::kinds::{Kind, ValueError, choice, kind};
use super::mistakes::nearest;
use super::section::Section;
use super::{ClientField, FieldType, Kwarg, Kwargs, Missing};
use crate::protocol::Template;

const KWARG: Kind<Kwarg> = kind(
    "argument",
    r#"a text such as "{message}", a number, a boolean, { int = "{user_id}" }, { field = "image_url" }, { value = … } or { null = true }"#,
    kwarg,
);

/// Reads the table `kwargs`, whose names must be valid in Python.
pub(super) fn kwargs(s: &mut Section<'_>) -> Option<Kwargs> {
    let kwargs = s.map("kwargs", KWARG, "Its keyword arguments, by name.")?;
    let mut is_valid = true;
    for (name, _) in &kwargs {
        if !is_argument_name(name) {
            let fix = "name arguments with letters, digits and _, not starting with a digit or __";
            s.mistake(&format!("kwargs.{name}"), None, fix);
            is_valid = false;
        }
    }
    is_valid.then_some(kwargs)
}

/// Whether a Python function can have an argument of this name; names with `__` belong to Celery.
fn is_argument_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    !name.starts_with("__")
        && bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn rule<T>(fix: impl Into<String>) -> Result<T, ValueError> {
    Err(ValueError::Rule(fix.into()))
}

fn kwarg(value: &Value) -> Result<Kwarg, ValueError> {
    match value {
        Value::String(text) => Template::parse(text).map(Kwarg::Text).map_err(ValueError::Quoting),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => {
            constant(value).map(Kwarg::Constant)
        }
        Value::Table(table) => kwarg_table(table),
        Value::Array(_) | Value::Datetime(_) => Err(ValueError::WrongKind),
    }
}

fn kwarg_table(table: &Table) -> Result<Kwarg, ValueError> {
    if table.contains_key("field") {
        return field(table).map(Kwarg::Field);
    }
    let mut entries = table.iter();
    let (Some((key, value)), None) = (entries.next(), entries.next()) else {
        return Err(ValueError::WrongKind);
    };
    match (key.as_str(), value) {
        ("int", Value::String(text)) => {
            let fix = r#"write int as a text such as "{user_id}""#;
            Template::parse(text).map(Kwarg::Integer).map_err(|_| ValueError::Rule(fix.to_owned()))
        }
        ("null", Value::Boolean(true)) => Ok(Kwarg::Constant(Json::Null)),
        ("value", value) => constant(value).map(Kwarg::Constant),
        _ => Err(ValueError::WrongKind),
    }
}

/// Parses `{ field = "image_url", type = "text", default = "null" }`.
fn field(table: &Table) -> Result<ClientField, ValueError> {
    const KEYS: [&str; 4] = ["field", "type", "default", "required"];
    if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return rule(match nearest(key, KEYS) {
            Some(nearest) => format!("unknown key {key:?}; did you mean {nearest:?}?"),
            None => format!("unknown key {key:?}; the keys here are {}", KEYS.join(", ")),
        });
    }
    let Some(name) = table.get("field").and_then(Value::as_str).filter(|name| !name.is_empty())
    else {
        return rule(
            "write the name of a field of the client's message, such as { field = \"image_url\" }",
        );
    };
    let types = [
        ("any", FieldType::Any),
        ("text", FieldType::Text),
        ("int", FieldType::Int),
        ("number", FieldType::Number),
        ("bool", FieldType::Bool),
        ("object", FieldType::Object),
        ("list", FieldType::List),
    ];
    let Ok(kind) = table.get("type").map_or(Ok(FieldType::Any), |kind| choice(kind, &types)) else {
        return rule(
            "write type as \"any\", \"text\", \"int\", \"number\", \"bool\", \"object\" or \"list\"",
        );
    };
    let missing = match (table.get("required"), table.get("default")) {
        (Some(Value::Boolean(true)), None) => Missing::Refuse,
        (Some(Value::Boolean(true)), Some(_)) => {
            return rule("write either required = true or a default, not both");
        }
        (None | Some(Value::Boolean(false)), default) => {
            default.map_or(Ok(Missing::Default(Json::Null)), default_of_field)?
        }
        (Some(_), _) => return rule("write required as true or false"),
    };
    Ok(ClientField { name: name.into(), kind, missing })
}

fn default_of_field(value: &Value) -> Result<Missing, ValueError> {
    match value {
        Value::String(word) if word == "null" => Ok(Missing::Default(Json::Null)),
        Value::String(word) if word == "omit" => Ok(Missing::Omit),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => {
            constant(value).map(Missing::Default)
        }
        Value::Table(table) if table.len() == 1 && table.contains_key("value") => {
            constant(&table["value"]).map(Missing::Default)
        }
        _ => rule("write default as \"null\", \"omit\", a number, a boolean or { value = … }"),
    }
}

/// Converts a value to JSON that a worker reads unchanged. Celery's decoder gives objects with `__type__`
/// and `__value__` a special meaning.
fn constant(value: &Value) -> Result<Json, ValueError> {
    Ok(match value {
        Value::String(text) => Json::from(text.as_str()),
        Value::Integer(number) => Json::from(*number),
        Value::Float(number) if number.is_finite() => Json::from(*number),
        Value::Float(_) => return rule("write a finite number"),
        Value::Boolean(boolean) => Json::from(*boolean),
        Value::Array(elements) => elements.iter().map(constant).collect::<Result<_, _>>()?,
        Value::Table(table) if table.contains_key("__type__") => {
            return rule(
                "write a table without \"__type__\", which has a special meaning in Celery",
            );
        }
        Value::Table(table) => {
            let entry = |(name, value): (&String, &Value)| Ok((name.clone(), constant(value)?));
            Json::Object(table.iter().map(entry).collect::<Result<_, _>>()?)
        }
        Value::Datetime(_) => return rule("write dates as text"),
    })
}

#[cfg(test)]
mod tests;
