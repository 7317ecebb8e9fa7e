//! Which gateway a command speaks to, and with which key.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::Failure;
use super::server_api::ServerApi;
use crate::config::{Config, Environment, Secret, parse_duration};

/// Holds an API key, for commands that are not run where the config file is.
const KEY_VARIABLE: &str = "TIDEGATE_API_KEY";

/// The admin port of a gateway that runs, with a key for its server API.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true, id = "gateway")]
pub struct Target {
    /// The config file of the gateway: its admin.listen, and the first of its admin.api_keys
    #[arg(long, value_name = "FILE", group = "gateway")]
    config: Option<PathBuf>,
    /// The admin port instead, such as http://10.0.0.5:9000
    #[arg(long, value_name = "URL", value_parser = authority, group = "gateway")]
    url: Option<Authority>,
    /// A file with an API key; else it is taken from TIDEGATE_API_KEY, else from the config file
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
}

/// Host and port of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority(pub String);

impl Target {
    /// The admin port, with a key where there is one.
    pub fn api(&self) -> Result<ServerApi, Failure> {
        let admin = match &self.config {
            None => None,
            Some(path) => Some(
                Config::admin_section(path, &Environment::from_process())
                    .map_err(|mistakes| Failure(format!("{}: {mistakes}", path.display())))?,
            ),
        };
        let first = admin.as_ref().and_then(|admin| admin.api_keys.first().cloned());
        let key = self.given_key()?.or(first);
        Ok(match (&self.url, admin) {
            (Some(Authority(authority)), _) => ServerApi::at(authority.clone(), key.as_ref()),
            (None, Some(admin)) => ServerApi::new(admin.listen, key.as_ref()),
            (None, None) => return Err(Failure("write --config or --url".to_owned())),
        })
    }

    /// The admin port for calls that need a key.
    pub fn api_with_key(&self) -> Result<ServerApi, Failure> {
        let api = self.api()?;
        if api.has_key() {
            return Ok(api);
        }
        let why = match &self.config {
            Some(path) => format!(
                "the server API needs a key, and {} has none: set admin.api_keys there, and reload the gateway",
                path.display()
            ),
            None => format!(
                "the server API needs one of the gateway's admin.api_keys: set {KEY_VARIABLE}, or write --api-key-file or --config"
            ),
        };
        Err(Failure(why))
    }

    fn given_key(&self) -> Result<Option<Secret>, Failure> {
        if let Some(path) = &self.api_key_file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure(format!("{}: {error}", path.display())))?;
            // As a file with one a line, of which the first counts.
            let first = text.lines().map(str::trim).find(|line| !line.is_empty());
            let first = first.ok_or_else(|| Failure(format!("{}: it is empty", path.display())))?;
            return Ok(Some(Secret::new(first)));
        }
        Ok(std::env::var(KEY_VARIABLE).ok().filter(|key| !key.is_empty()).map(Secret::new))
    }
}

/// Reads `http://127.0.0.1:9000`; the admin port speaks no TLS.
pub fn authority(text: &str) -> Result<Authority, String> {
    let wrong = || format!("{text:?} is no URL of an admin port; write http://127.0.0.1:9000");
    let url = Url::parse(text).map_err(|_| wrong())?;
    let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    let anonymous = url.username().is_empty() && url.password().is_none();
    let host = url.host_str().filter(|_| url.scheme() == "http" && bare && anonymous);
    let port = url.port_or_known_default();
    match (host, port) {
        (Some(host), Some(port)) => Ok(Authority(format!("{host}:{port}"))),
        _ => Err(wrong()),
    }
}

/// Reads a deadline such as `500ms` or `2s`.
pub fn deadline(text: &str) -> Result<Duration, String> {
    let read = parse_duration(text).filter(|time| !time.is_zero() && time.as_secs() <= 60 * 60);
    read.ok_or_else(|| format!("{text:?} is no time to wait; write 500ms, 2s or 1m, at most 1h"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_port_is_a_bare_url() {
        for (text, read) in [
            ("http://127.0.0.1:9000", Some("127.0.0.1:9000")),
            ("http://gateway.svc:9000/", Some("gateway.svc:9000")),
            ("http://[::1]:9000", Some("[::1]:9000")),
            ("http://gateway", Some("gateway:80")),
            ("https://gateway", None),
            ("http://gateway/readyz", None),
            ("http://u:p@gateway", None),
            ("gateway:9000", None),
            ("", None),
        ] {
            let wanted = read.map(|authority| Authority(authority.to_owned()));
            assert_eq!(authority(text).ok(), wanted, "{text}");
        }
    }

    #[test]
    fn deadlines_are_positive_and_short() {
        assert_eq!(deadline("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["0s", "2h", "2", "soon", ""] {
            assert!(deadline(wrong).is_err(), "{wrong}");
        }
    }
}
