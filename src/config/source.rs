//! The text of a configuration before anything is checked: TOML, `${NAME}` values and
//! `TIDEGATE__SECTION__KEY` overrides.

use toml::{Table, Value};

use super::mistakes::Mistake;

const OVERRIDE: &str = "TIDEGATE__";

/// The environment that a configuration is read in.
pub struct Environment(Vec<(String, String)>);

impl Environment {
    pub fn of_process() -> Self {
        let text = |value: std::ffi::OsString| value.into_string().ok();
        Self(std::env::vars_os().filter_map(|(k, v)| Some((text(k)?, text(v)?))).collect())
    }

    pub fn empty() -> Self {
        Self(Vec::new())
    }

    #[cfg(test)]
    pub fn of(vars: &[(&str, &str)]) -> Self {
        Self(vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }
}

/// The table with overrides and environment values in place. A file that is no TOML is one mistake.
pub fn read(text: &str, environment: &Environment, mistakes: &mut Vec<Mistake>) -> Table {
    let mut table = match text.parse::<Table>() {
        Ok(table) => table,
        Err(error) => {
            mistakes.push(Mistake {
                key: String::new(),
                found: format!("not TOML: {}", error.to_string().trim().replace('\n', " ")),
                right: "see https://toml.io".to_owned(),
            });
            return Table::new();
        }
    };
    for (key, value) in &mut table {
        substitute(key, value, environment, mistakes);
    }
    // After the file's own, so that what the environment says is taken as it is.
    for (name, value) in &environment.0 {
        if let Some(path) = name.strip_prefix(OVERRIDE) {
            set(&mut table, &path.to_lowercase(), value, name, mistakes);
        }
    }
    table
}

fn substitute(
    path: &str,
    value: &mut Value,
    environment: &Environment,
    mistakes: &mut Vec<Mistake>,
) {
    match value {
        Value::String(text) if text.contains('$') => {
            *text = fill(path, text, environment, mistakes);
        }
        Value::Array(values) => {
            for (index, value) in values.iter_mut().enumerate() {
                substitute(&format!("{path}[{index}]"), value, environment, mistakes);
            }
        }
        Value::Table(table) => {
            for (key, value) in table {
                substitute(&format!("{path}.{key}"), value, environment, mistakes);
            }
        }
        _ => {}
    }
}

/// `${NAME}` is the environment's value, `$$` is one dollar.
fn fill(path: &str, text: &str, environment: &Environment, mistakes: &mut Vec<Mistake>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) =
            rest.strip_prefix('{').and_then(|rest| rest.split_once('}'))
        {
            match environment.get(name) {
                Some(value) => out.push_str(value),
                None => mistakes.push(Mistake {
                    key: path.to_owned(),
                    found: format!("the environment has no {name}"),
                    right: "set it, or write $$ for a dollar".to_owned(),
                }),
            }
            rest = tail;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// Puts an override where it belongs. Whether there is such a key, the reader will say.
fn set(table: &mut Table, path: &str, text: &str, name: &str, mistakes: &mut Vec<Mistake>) {
    let mut keys: Vec<&str> = path.split("__").collect();
    let last = keys.pop().unwrap_or_default();
    let mut at = table;
    for key in keys {
        let next = at.entry(key).or_insert_with(|| Value::Table(Table::new()));
        match next {
            Value::Table(table) => at = table,
            _ => {
                mistakes.push(Mistake {
                    key: name.to_owned(),
                    found: format!("{key} is no section"),
                    right: "only keys of sections can be overridden".to_owned(),
                });
                return;
            }
        }
    }
    if matches!(at.get(last), Some(Value::Array(_) | Value::Table(_))) {
        mistakes.push(Mistake {
            key: name.to_owned(),
            found: "a list or a section".to_owned(),
            right: "only single values can be overridden".to_owned(),
        });
        return;
    }
    let value = match text.parse::<i64>() {
        Ok(number) => Value::Integer(number),
        Err(_) => match text {
            "true" => Value::Boolean(true),
            "false" => Value::Boolean(false),
            text => Value::String(text.to_owned()),
        },
    };
    at.insert(last.to_owned(), value);
}
