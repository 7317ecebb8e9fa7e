//! Parsers for the values of arguments.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use url::Url;

use super::Failure;
use crate::config::parse_duration;
use crate::http_client::{ServerTrust, trusting};
use crate::protocol::ChannelName;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Host and port of a URL, and whether it is an https one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    pub text: String,
    pub has_tls: bool,
}

/// How an admin port with TLS is talked to.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TlsArgs {
    /// A PEM file with the authorities that may have signed the admin port's certificate [default: the system's]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A PEM file with a client certificate, for admin.tls.client_ca
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_certificate: Option<PathBuf>,
    /// A PEM file with its private key
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    client_key: Option<PathBuf>,
}

impl TlsArgs {
    /// The TLS settings of requests. Without `--ca`, servers are trusted as `otherwise` says.
    pub fn client(&self, otherwise: ServerTrust) -> Result<Arc<ClientConfig>, Failure> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path)
                .map_err(|error| Failure(format!("{}: {error}", path.display())))
        };
        let trust = match &self.ca {
            Some(path) => ServerTrust::Authorities(read(path)?),
            None => otherwise,
        };
        let chain = self.client_certificate.as_ref().map(read).transpose()?;
        let key = self.client_key.as_ref().map(read).transpose()?;
        let identity = chain.as_deref().zip(key.as_deref());
        trusting(&trust, identity).map_err(|error| Failure(format!("TLS: {error}")))
    }
}

/// Parses the URL of an admin port, such as `http://127.0.0.1:9000`.
pub fn parse_authority(text: &str) -> Result<Authority, String> {
    let invalid =
        || format!("{text:?} is not the URL of an admin port; write http://127.0.0.1:9000");
    let url = Url::parse(text).map_err(|_| invalid())?;
    let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    let anonymous = url.username().is_empty() && url.password().is_none();
    let is_http = matches!(url.scheme(), "http" | "https");
    let host = url.host_str().filter(|_| is_http && bare && anonymous);
    let port = url.port_or_known_default();
    match (host, port) {
        (Some(host), Some(port)) => {
            Ok(Authority { text: format!("{host}:{port}"), has_tls: url.scheme() == "https" })
        }
        _ => Err(invalid()),
    }
}

/// Parses the name of a channel, or a pattern: `*` is an ordinary character of names.
pub fn parse_channel(text: &str) -> Result<String, String> {
    ChannelName::new(text).map(|name| name.to_string()).map_err(|invalid| invalid.to_string())
}

/// Parses a waiting time such as `500ms` or `2s`, longer than zero and at most an hour.
pub fn parse_deadline(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(60 * 60);
    parse_duration(text).filter(|time| !time.is_zero() && *time <= longest).ok_or_else(|| {
        format!("{text:?} is not a valid duration; write 500ms, 2s or 1m, at most 1h")
    })
}

/// Parses the lifetime of a session such as `90s`, `15m`, `2h` or `7d`: whole seconds, at most a leap year.
pub fn parse_lifetime(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|time| !time.is_zero() && *time <= DAY * 366 && !text.ends_with("ms"))
        .ok_or_else(|| {
            format!("{text:?} is not a valid duration; write 90s, 15m, 2h or 7d, at most 366d")
        })
}

#[cfg(test)]
mod tests;
