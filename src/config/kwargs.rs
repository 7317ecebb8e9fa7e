//! The `kwargs` of a Celery task: its keyword arguments, by name.

use super::section::Section;
use super::value_template::{EXPECTED, TemplateReader};
use super::{ObjectTemplate, ReadBy};

/// Reads the table `kwargs`, whose names must be valid in Python.
pub(super) fn kwargs(s: &mut Section<'_>) -> Option<ObjectTemplate> {
    let kwargs = s.raw_table("kwargs", "argument", EXPECTED, "Its keyword arguments, by name.")?;
    let mut is_valid = true;
    for name in kwargs.keys().filter(|name| !is_argument_name(name)) {
        let fix = "name arguments with letters, digits and _, not starting with a digit or __";
        s.mistake(&format!("kwargs.{name}"), None, fix);
        is_valid = false;
    }
    let mut reader = TemplateReader::new(s, ReadBy::Celery);
    let argument = |(name, value): (&String, &toml::Value)| {
        Some((name.clone(), reader.value(&format!("kwargs.{name}"), value)?))
    };
    let arguments: Vec<Option<_>> = kwargs.iter().map(argument).collect();
    arguments.into_iter().collect::<Option<_>>().filter(|_| is_valid)
}

/// Whether a Python function can have an argument of this name; names with `__` belong to Celery.
fn is_argument_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    !name.starts_with("__")
        && bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
