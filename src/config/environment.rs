//! The environment variables of a configuration: `${NAME}` values and `TIDEGATE__…` overrides.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// The prefix of a variable that overrides a key. The parts of the key's path follow, separated by two
/// underscores, in upper or lower case.
const OVERRIDE_PREFIX: &str = "TIDEGATE__";

/// What looks like that prefix and is not, with one of [`SEPARATORS`] behind it.
const LOOKALIKE_PREFIX: &str = "TIDEGATE";
const SEPARATORS: [char; 4] = ['_', '-', '.', ':'];

/// What follows it in the variables that commands, the build and the examples read.
const READ_ELSEWHERE: [&str; 6] = ["api_key", "server", "build", "rust", "tag", "screenshot"];

/// A snapshot of the environment variables, so that one configuration is read from one state of them.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// An environment without variables.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The variables of this process, without those whose names are not UTF-8.
    pub fn from_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
                .collect(),
        )
    }

    /// Every override by the path of the key that it sets, in lower case and joined by dots.
    pub(super) fn overrides(&self) -> BTreeMap<String, Override> {
        let parse = |(name, value): (&String, &OsString)| {
            let begin = name.get(..OVERRIDE_PREFIX.len())?;
            let rest = begin
                .eq_ignore_ascii_case(OVERRIDE_PREFIX)
                .then(|| name.get(OVERRIDE_PREFIX.len()..))??;
            let path = override_path(&rest.replace("__", "."));
            Some((path, Override { variable: name.clone(), value: value.clone(), used: false }))
        };
        self.0.iter().filter_map(parse).collect()
    }

    /// The variables that look like overrides and are none, and what follows `TIDEGATE_` in them, in lower case and with
    /// `_` as the only separator. Those that the command line or the build reads are left out, and those that Kubernetes
    /// sets in every container for a service called `tidegate…`.
    pub(super) fn lookalikes(&self) -> impl Iterator<Item = (&str, String)> {
        self.0.iter().filter_map(|(name, value)| {
            let (start, rest) = name.split_at_checked(LOOKALIKE_PREFIX.len())?;
            let is_override = rest.starts_with("__");
            let rest = rest.strip_prefix(SEPARATORS)?.to_ascii_lowercase();
            let rest = rest.replace(SEPARATORS, "_");
            let is_read = READ_ELSEWHERE.contains(&rest.as_str()) || rest.starts_with("test_");
            let is_lookalike = start.eq_ignore_ascii_case(LOOKALIKE_PREFIX)
                && !is_override
                && !is_read
                && !is_of_kubernetes(&rest, value);
            is_lookalike.then_some((name.as_str(), rest))
        })
    }

    /// Replaces every `${NAME}` by the variable's value and every `$$` by `$`. A `$` before anything else
    /// stays as it is.
    ///
    /// # Errors
    /// A sentence that says what is wrong and holds no value of a variable.
    pub(super) fn substitute(&self, text: &str) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let (before, after) = rest.split_at(at);
            out.push_str(before);
            if let Some(tail) = after.strip_prefix("$$") {
                out.push('$');
                rest = tail;
            } else if let Some(tail) = after.strip_prefix("${") {
                let (name, tail) =
                    tail.split_once('}').filter(|(name, _)| !name.is_empty()).ok_or(
                        "a ${ is not followed by a name and }; write ${NAME}, or $$ for a dollar sign",
                    )?;
                out.push_str(self.value(name)?);
                rest = tail;
            } else {
                out.push('$');
                rest = after.strip_prefix('$').unwrap_or_default();
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    fn value(&self, name: &str) -> Result<&str, String> {
        let value = self
            .0
            .get(name)
            .ok_or_else(|| format!("the environment variable {name} is not set"))?;
        value.to_str().ok_or_else(|| format!("the environment variable {name} is not valid UTF-8"))
    }
}

impl<K: Into<String>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// A `TIDEGATE__…` variable.
pub(super) struct Override {
    pub variable: String,
    pub value: OsString,
    /// Whether it has set a key. An override that is never used is a mistake.
    pub used: bool,
}

/// Whether Kubernetes sets a variable of this name for a service: `…_SERVICE_HOST`, `…_SERVICE_PORT…`,
/// `…_PORT=tcp://10.0.0.1:80` and `…_PORT_80_TCP…`.
fn is_of_kubernetes(rest: &str, value: &OsString) -> bool {
    let rest = format!("_{rest}");
    let mut after_port = rest.split("_port_").skip(1);
    rest.ends_with("_service_host")
        || rest.contains("_service_port")
        || after_port.any(|part| part.starts_with(|c: char| c.is_ascii_digit()))
        || (rest.ends_with("_port") && value.to_string_lossy().contains("://"))
}

/// A key's path as overrides have it: in lower case, and with `_` for `-`, which variables cannot have.
pub(super) fn override_path(path: &str) -> String {
    path.to_ascii_lowercase().replace('-', "_")
}

/// The variable that overrides the key at `path`.
pub(super) fn override_variable(path: &str) -> String {
    format!("{OVERRIDE_PREFIX}{}", override_path(path).replace('.', "__").to_ascii_uppercase())
}

#[cfg(test)]
mod tests;
