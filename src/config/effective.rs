//! What every setting came to and where it was said, for people who look for the reason.
//!
//! Invariant: nothing here holds a secret. A key that holds one is recorded without its value, a URL
//! of a Redis server without its password, and what `${NAME}` made of a free text as it was written.

use std::fmt;

use toml::Value;
use url::Url;

/// Stands for what is not shown.
pub const REDACTED: &str = "<redacted>";

/// Kinds of which only values of a fixed syntax are taken, so that what a variable made of one cannot
/// be a secret. Words are named by their own list, which begins with a quote.
const CLOSED: [&str; 9] = [
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
    /// The table that it is in: `server`, `route[0].limits`.
    pub table: String,
    /// Its name there: `listen`, `circuit.open`.
    pub name: String,
    /// With [`REDACTED`] in the place of secrets.
    pub value: Value,
    pub source: Source,
}

impl Setting {
    /// `server.listen`, `route[0].limits.messages_per_user`.
    pub fn key(&self) -> String {
        match self.table.as_str() {
            "" => self.name.clone(),
            table => format!("{table}.{}", self.name),
        }
    }
}

/// Where a value was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nowhere.
    Default,
    /// In the config file; with these `${NAME}`s of the environment.
    File { variables: Vec<String> },
    /// By this `TIDEGATE__…` variable.
    Variable(String),
    /// In the file at this path, which the key's twin `…_file` names.
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

/// The names in the `${NAME}`s of `text`.
pub(super) fn variables(text: &str) -> Vec<String> {
    // `$$` is a dollar sign: cut out, it begins no name.
    let text = text.replace("$$", "");
    let names = text.split("${").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
    names.map(str::to_owned).collect()
}

/// Whether what the environment made of a value of this kind may be shown.
pub(super) fn is_closed(kind: &str) -> bool {
    kind.starts_with('"') || CLOSED.contains(&kind)
}

/// A variable's text as the kind means it.
pub(super) fn typed(kind: &str, value: Value) -> Value {
    let Value::String(text) = &value else { return value };
    let typed = match kind {
        "integer" | "size" => text.parse().ok().map(Value::Integer),
        "boolean" => text.parse().ok().map(Value::Boolean),
        _ => None,
    };
    typed.unwrap_or(value)
}

/// A secret as it is shown; a text that is empty is none.
pub(super) fn redacted(kind: &str, value: &Value) -> Value {
    match value {
        Value::String(text) if text.is_empty() => value.clone(),
        Value::String(text) if kind == "Redis URL" => {
            Value::from(without_password(text).unwrap_or_else(|| REDACTED.to_owned()))
        }
        Value::Array(elements) => {
            Value::Array(elements.iter().map(|element| redacted(kind, element)).collect())
        }
        _ => Value::from(REDACTED),
    }
}

/// The URL without its secrets; `None` where what is a secret in it is not certain.
fn without_password(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let after_host = &text[text.find("://")? + 3..];
    // More than one @, or one behind the path's or query's begin, is a password that was not escaped.
    if after_host.matches('@').count() > usize::from(has_user(&url)) || url.fragment().is_some() {
        return None;
    }
    let user = match (url.username(), url.password()) {
        ("", None) => String::new(),
        (user, Some(_)) => format!("{user}:{REDACTED}@"),
        // Some write the password alone.
        (_, None) => format!("{REDACTED}@"),
    };
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let shown = |(name, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| {
        let is_open = name == "db" || name.starts_with("ssl_");
        format!("{name}={}", if is_open { &value } else { REDACTED })
    };
    let query: Vec<String> = url.query_pairs().map(shown).collect();
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    Some(format!("{}://{user}{host}{port}{}{query}", url.scheme(), url.path()))
}

fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_their_passwords() {
        for (url, shown) in [
            ("redis://127.0.0.1:6379/3", Some("redis://127.0.0.1:6379/3")),
            ("redis://:hunter2@r:6379", Some("redis://:<redacted>@r:6379")),
            ("redis://ana:hunter2@r/1", Some("redis://ana:<redacted>@r/1")),
            ("redis://hunter2@r/1", Some("redis://<redacted>@r/1")),
            (
                "rediss://r/?password=hunter2&ssl_cert_reqs=none&db=2",
                Some("rediss://r/?password=<redacted>&ssl_cert_reqs=none&db=2"),
            ),
            ("unix:///run/redis.sock?db=1", Some("unix:///run/redis.sock?db=1")),
            ("redis://:hunter/2@r/1", None),
            ("redis://:1?hunter2@r/1", None),
            ("redis://:hun@ter2@r/1", None),
            ("redis://r/1#hunter2", None),
            ("hunter2", None),
        ] {
            assert_eq!(without_password(url).as_deref(), shown, "{url}");
            assert!(!shown.is_some_and(|shown| shown.contains("hunter2")));
        }
    }

    #[test]
    fn names_of_variables_are_found() {
        assert_eq!(variables("a${B}$${C}${D}"), ["B", "D"]);
        assert_eq!(variables("$$${A}$"), ["A"]);
        assert!(variables("plain $5").is_empty());
    }
}
