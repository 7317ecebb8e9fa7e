//! The arguments that select a gateway and an API key.

use std::path::PathBuf;

use super::Failure;
use super::arguments::{Authority, TlsArgs, parse_authority};
use super::server_api::ServerApi;
use crate::config::{Config, Environment, Secret};
use crate::http_client::ServerTrust;

/// The variable with an API key, for machines without the config file.
const KEY_VARIABLE: &str = "TIDEGATE_API_KEY";

/// The admin port of a running gateway, with a key for its server API.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true, id = "gateway")]
pub struct Target {
    /// The gateway's config file, for admin.listen and the first of admin.api_keys
    #[arg(long, value_name = "FILE", group = "gateway")]
    config: Option<PathBuf>,
    /// The admin port, such as http://10.0.0.5:9000 or https://gateway:9000, instead of admin.listen
    #[arg(long, value_name = "URL", value_parser = parse_authority, group = "gateway")]
    url: Option<Authority>,
    /// A file with an API key [default: TIDEGATE_API_KEY, then the config file]
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsArgs,
}

impl Target {
    /// The admin port, with an API key if there is one.
    pub fn api(&self) -> Result<ServerApi, Failure> {
        let admin = match &self.config {
            None => None,
            Some(path) => Some(
                Config::admin_access(path, &Environment::from_process())
                    .map_err(|mistakes| Failure(format!("{}: {mistakes}", path.display())))?,
            ),
        };
        let configured = admin.as_ref().and_then(|admin| admin.api_keys.first().cloned());
        let key = self.explicit_key()?.or(configured);
        Ok(match (&self.url, admin) {
            (Some(Authority { text, has_tls }), _) => {
                let tls = has_tls.then(|| self.tls.client(ServerTrust::System)).transpose()?;
                ServerApi::at(text.clone(), key.as_ref()).with_tls(tls)
            }
            (None, Some(admin)) => {
                // The certificate need not be for the address that the port listens on.
                let trust = admin.certificate.map(ServerTrust::Exactly);
                let tls = trust.map(|trust| self.tls.client(trust)).transpose()?;
                ServerApi::new(admin.listen, key.as_ref()).with_tls(tls)
            }
            (None, None) => return Err(Failure("pass --config or --url".to_owned())),
        })
    }

    /// The admin port, for calls that need an API key.
    pub fn api_with_key(&self) -> Result<ServerApi, Failure> {
        let api = self.api()?;
        if api.has_key() {
            return Ok(api);
        }
        let reason = match &self.config {
            Some(path) => format!(
                "the server API needs a key, and {} has none: set admin.api_keys in it and reload the gateway",
                path.display()
            ),
            None => format!(
                "the server API needs one of the gateway's admin.api_keys: set {KEY_VARIABLE}, or pass --api-key-file or --config"
            ),
        };
        Err(Failure(reason))
    }

    /// The key of the arguments or of the environment.
    fn explicit_key(&self) -> Result<Option<Secret>, Failure> {
        if let Some(path) = &self.api_key_file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure(format!("{}: {error}", path.display())))?;
            // The file may have one key per line, as for api_keys_file; the first is used.
            let first = text.lines().map(str::trim).find(|line| !line.is_empty());
            let first =
                first.ok_or_else(|| Failure(format!("{}: the file is empty", path.display())))?;
            return Ok(Some(Secret::new(first)));
        }
        Ok(std::env::var(KEY_VARIABLE).ok().filter(|key| !key.is_empty()).map(Secret::new))
    }
}
