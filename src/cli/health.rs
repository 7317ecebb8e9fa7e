//! `tidegate health`: a health check for container probes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::arguments::{Authority, TlsArgs, parse_authority, parse_deadline};
use super::server_api::{ApiResponse, ServerApi, block_on};
use super::{Failure, print_line};
use crate::config::{Config, Environment};
use crate::http_client::ServerTrust;

/// The default of `[admin] listen`.
const DEFAULT_LISTEN: &str = "127.0.0.1:9000";

/// The variable that overrides it, as for the gateway.
const LISTEN_VARIABLE: &str = "TIDEGATE__ADMIN__LISTEN";

/// The variable that turns TLS on, as for the gateway.
const CERTIFICATE_VARIABLE: &str = "TIDEGATE__ADMIN__TLS__CERTIFICATE";

/// Check whether a gateway is ready, or alive: exit code 0 or 1, for container probes
///
/// Requests /readyz on the admin port, which needs no API key, and prints the checks that fail. The address is
/// admin.listen of the config file, whose other settings are ignored. Without a file it is the variable
/// TIDEGATE__ADMIN__LISTEN, or 127.0.0.1:9000.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The gateway's config file
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    config: Option<PathBuf>,
    /// The admin port, such as http://127.0.0.1:9000 or https://gateway:9000, instead of the config file
    #[arg(long, value_name = "URL", value_parser = parse_authority)]
    url: Option<Authority>,
    /// Check only whether the process is alive (/livez), whatever the state of Redis
    #[arg(long)]
    live: bool,
    /// Time limit for the response
    #[arg(long, value_name = "DURATION", value_parser = parse_deadline, default_value = "2s")]
    timeout: Duration,
    #[command(flatten)]
    tls: TlsArgs,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let api = admin_port(args, &Environment::from_process(), std::env::var(LISTEN_VARIABLE).ok())?;
    let path = if args.live { "/livez" } else { "/readyz" };
    let response = block_on(api.get_any_status(path, args.timeout))??;
    let (healthy, lines) = evaluate(args.live, &response);
    print_line(lines);
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn admin_port(
    args: &Args,
    environment: &Environment,
    variable: Option<String>,
) -> Result<ServerApi, Failure> {
    if let Some(Authority { text, has_tls }) = &args.url {
        let tls = has_tls.then(|| args.tls.client(ServerTrust::System)).transpose()?;
        return Ok(ServerApi::at(text.clone(), None).with_tls(tls));
    }
    let (listen, has_tls) = match &args.config {
        Some(path) => Config::admin_listen(path, environment)
            .map_err(|mistakes| Failure(format!("{}: {mistakes}", path.display())))?,
        None => {
            let text = variable.as_deref().unwrap_or(DEFAULT_LISTEN);
            let listen = text.parse::<SocketAddr>().map_err(|_| {
                Failure(format!(
                    "{LISTEN_VARIABLE}: write an IP address and a port such as {DEFAULT_LISTEN}"
                ))
            })?;
            (listen, std::env::var(CERTIFICATE_VARIABLE).is_ok_and(|path| !path.is_empty()))
        }
    };
    // The gateway may still have another certificate than its file, and the request tells nothing.
    let tls = has_tls.then(|| args.tls.client(ServerTrust::Anything)).transpose()?;
    Ok(ServerApi::new(listen, None).with_tls(tls))
}

/// Whether the gateway is healthy, and the lines to print about it.
fn evaluate(live: bool, response: &ApiResponse) -> (bool, String) {
    #[derive(Deserialize)]
    struct Readiness {
        ready: bool,
        checks: Map<String, Value>,
    }
    let is_ok = response.status == StatusCode::OK;
    if live {
        let line =
            if is_ok { "alive".to_owned() } else { format!("not alive: {}", response.status) };
        return (is_ok, line);
    }
    let Ok(Readiness { ready, checks }) = serde_json::from_slice(&response.body) else {
        return (false, format!("not ready: {}, but not a gateway's response", response.status));
    };
    let ready = ready && is_ok;
    let mut lines = vec![if ready { "ready" } else { "not ready" }.to_owned()];
    let failed = checks.iter().filter(|(_, state)| *state != "ok");
    lines.extend(failed.map(|(name, state)| {
        format!("  {name}: {}", state.as_str().map_or_else(|| state.to_string(), str::to_owned))
    }));
    (ready, lines.join("\n"))
}

#[cfg(test)]
mod tests;
