//! The text of faults in any of the forms in which frameworks list them: texts, lists, fields with their faults, and
//! objects that name the place of one fault.

use serde_json::Value;
use serde_json::value::RawValue;

/// No more is added to a text with as many bytes.
const MAX_BYTES: usize = 2000;

/// The members that say what is wrong, of an object for one fault.
const TEXTS: [&str; 4] = ["msg", "message", "detail", "title"];
/// The members that say where.
const PLACES: [&str; 4] = ["loc", "path", "field", "param"];
/// The names of lists that belong to no field.
const NOT_FIELDS: [&str; 6] =
    ["non_field_errors", "__all__", "error", "errors", "detail", "message"];

/// Returns what the faults say; empty if they say nothing.
pub(super) fn text(json: &RawValue) -> String {
    match serde_json::from_str(json.get()) {
        Ok(value) => describe(&value),
        // Half of a surrogate pair.
        Err(_) => super::escaped::Escaped::of_value(json).decode().into_owned(),
    }
}

fn describe(fault: &Value) -> String {
    match fault {
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) => fault.to_string(),
        Value::String(text) => text.trim().to_owned(),
        Value::Array(faults) => joined(faults.iter().map(describe), "; "),
        Value::Object(members) => {
            let text = TEXTS.iter().find_map(|name| members.get(*name)?.as_str());
            match text {
                Some(text) => {
                    let place = PLACES.iter().find_map(|name| members.get(*name));
                    in_field(&place.map(place_name).unwrap_or_default(), text.trim())
                }
                None => {
                    let fields = members.iter().map(|(name, faults)| {
                        let is_field = !NOT_FIELDS.contains(&name.as_str());
                        in_field(if is_field { name } else { "" }, &describe(faults))
                    });
                    joined(fields, "; ")
                }
            }
        }
    }
}

fn in_field(name: &str, text: &str) -> String {
    match (name, text) {
        (_, "") => String::new(),
        ("", text) => text.to_owned(),
        (name, text) => format!("{name}: {text}"),
    }
}

/// The place of a fault: a name, or a path of names and numbers.
fn place_name(place: &Value) -> String {
    match place {
        Value::Array(parts) => joined(parts.iter().map(describe), "."),
        place => describe(place),
    }
}

fn joined(parts: impl Iterator<Item = String>, separator: &str) -> String {
    let mut all = String::new();
    for part in parts.filter(|part| !part.is_empty()) {
        if all.len() >= MAX_BYTES {
            break;
        }
        if !all.is_empty() {
            all.push_str(separator);
        }
        all.push_str(&part);
    }
    all
}
