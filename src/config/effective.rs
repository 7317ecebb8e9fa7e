//! The effective value of every setting and where it comes from, for `tidegate config show`.
//!
//! Invariant: nothing here holds a secret. A secret is recorded as [`REDACTED`], the URL of a Redis server
//! without its password, and a free text with its `${NAME}`s as they are written in the file.

use std::fmt;

use toml::Value;
use url::Url;

/// The placeholder for a hidden value.
pub const REDACTED: &str = "<redacted>";

/// Kinds with a fixed syntax, whose values cannot be secrets even if they come from a variable. Kinds that
/// accept a few words are not listed: their names start with a quote.
const SAFE_KINDS: [&str; 9] = [
    "address",
    "address block",
    "boolean",
    "duration",
    "integer",
    "log filter",
    "origin",
    "rate",
    "size",
];

/// One setting of a configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The path of its table: `server`, `route[0].limits`.
    pub table: String,
    /// Its name in the table: `listen`, `circuit.open`.
    pub name: String,
    /// The value, with [`REDACTED`] in place of secrets.
    pub value: Value,
    pub source: Source,
}

impl Setting {
    /// The full path: `server.listen`, `route[0].limits.messages_per_user`.
    pub fn key(&self) -> String {
        match self.table.as_str() {
            "" => self.name.clone(),
            table => format!("{table}.{}", self.name),
        }
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The default of its key.
    Default,
    /// The config file, with the names of the environment variables that it refers to.
    File { variables: Vec<String> },
    /// The `TIDEGATE__…` variable of this name.
    Variable(String),
    /// The file at this path, which is the value of the key's twin `…_file`.
    SecretFile(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { variables } if variables.is_empty() => f.write_str("file"),
            Self::File { variables } => {
                let names: Vec<String> =
                    variables.iter().map(|name| format!("${{{name}}}")).collect();
                write!(f, "file, with {}", names.join(", "))
            }
            Self::Variable(name) => write!(f, "environment: {name}"),
            Self::SecretFile(path) => write!(f, "secret file: {path}"),
        }
    }
}

/// The names of the `${NAME}`s in `text`.
pub(super) fn variables(text: &str) -> Vec<String> {
    // `$$` is an escaped dollar sign, which starts no name.
    let text = text.replace("$$", "");
    let names = text.split("${").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
    names.map(str::to_owned).collect()
}

/// Whether a value of this kind may be shown if it comes from the environment.
pub(super) fn is_safe_to_show(kind: &str) -> bool {
    kind.starts_with('"') || SAFE_KINDS.contains(&kind)
}

/// Converts the text of a variable to the type that values of this kind have in a file.
pub(super) fn to_typed_value(kind: &str, value: Value) -> Value {
    let Value::String(text) = &value else { return value };
    let typed = match kind {
        "integer" | "size" => text.parse().ok().map(Value::Integer),
        "boolean" => text.parse().ok().map(Value::Boolean),
        _ => None,
    };
    typed.unwrap_or(value)
}

/// Replaces a secret by what may be shown of it. An empty text is not a secret.
pub(super) fn redact(kind: &str, value: &Value) -> Value {
    match value {
        Value::String(text) if text.is_empty() => value.clone(),
        Value::String(text) if kind == "Redis URL" => {
            Value::from(redact_url(text).unwrap_or_else(|| REDACTED.to_owned()))
        }
        Value::Array(elements) => {
            Value::Array(elements.iter().map(|element| redact(kind, element)).collect())
        }
        _ => Value::from(REDACTED),
    }
}

/// The URL without its secrets; `None` if it is not certain which parts are secret.
fn redact_url(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let after_host = &text[text.find("://")? + 3..];
    // Another @, or one after the start of the path or query, belongs to an unescaped password.
    if after_host.matches('@').count() > usize::from(has_user(&url)) || url.fragment().is_some() {
        return None;
    }
    let user = match (url.username(), url.password()) {
        ("", None) => String::new(),
        (user, Some(_)) => format!("{user}:{REDACTED}@"),
        // Some URLs have the password in place of the user.
        (_, None) => format!("{REDACTED}@"),
    };
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let parameter = |(name, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| {
        let is_safe = name == "db" || name.starts_with("ssl_");
        format!("{name}={}", if is_safe { &value } else { REDACTED })
    };
    let query: Vec<String> = url.query_pairs().map(parameter).collect();
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    Some(format!("{}://{user}{host}{port}{}{query}", url.scheme(), url.path()))
}

fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

#[cfg(test)]
mod tests;
