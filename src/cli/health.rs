//! `tidegate health`: what a container's probe asks.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::server_api::{Answer, ServerApi, block_on};
use super::target::{Authority, authority, deadline};
use super::{Failure, say};
use crate::config::{Config, Environment};

/// As `[admin] listen` is where no file says otherwise.
const DEFAULT_LISTEN: &str = "127.0.0.1:9000";

/// Overrides it, as it does for the gateway.
const LISTEN_VARIABLE: &str = "TIDEGATE__ADMIN__LISTEN";

/// Ask whether a gateway is ready, or alive: exit code 0 or 1, for container probes
///
/// Asks /readyz of the admin port, which needs no key, and prints what keeps it from being ready. The
/// port is that of the config file, of which nothing else is read; without one it is that of the
/// variable TIDEGATE__ADMIN__LISTEN, or 127.0.0.1:9000.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The config file of the gateway
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    config: Option<PathBuf>,
    /// The admin port instead, such as http://127.0.0.1:9000
    #[arg(long, value_name = "URL", value_parser = authority)]
    url: Option<Authority>,
    /// Ask only whether the process is alive (/livez), whatever state Redis is in
    #[arg(long)]
    live: bool,
    /// How long the answer may take
    #[arg(long, value_name = "DURATION", value_parser = deadline, default_value = "2s")]
    timeout: Duration,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let api = port(args, &Environment::from_process(), std::env::var(LISTEN_VARIABLE).ok())?;
    let path = if args.live { "/livez" } else { "/readyz" };
    let answer = block_on(api.look(path, args.timeout))??;
    let (healthy, lines) = judge(args.live, &answer);
    say(lines);
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn port(
    args: &Args,
    environment: &Environment,
    variable: Option<String>,
) -> Result<ServerApi, Failure> {
    if let Some(Authority(authority)) = &args.url {
        return Ok(ServerApi::at(authority.clone(), None));
    }
    let listen = match &args.config {
        Some(path) => Config::admin_listen(path, environment)
            .map_err(|mistakes| Failure(format!("{}: {mistakes}", path.display())))?,
        None => {
            let text = variable.as_deref().unwrap_or(DEFAULT_LISTEN);
            text.parse::<SocketAddr>().map_err(|_| {
                Failure(format!("{LISTEN_VARIABLE}: write an IP address and a port"))
            })?
        }
    };
    Ok(ServerApi::new(listen, None))
}

/// Whether the answer is a good one, and what to tell of it.
fn judge(live: bool, answer: &Answer) -> (bool, String) {
    #[derive(Deserialize)]
    struct Readiness {
        ready: bool,
        checks: Map<String, Value>,
    }
    let is_ok = answer.status == StatusCode::OK;
    if live {
        let told = if is_ok { "alive".to_owned() } else { format!("not alive: {}", answer.status) };
        return (is_ok, told);
    }
    let Ok(Readiness { ready, checks }) = serde_json::from_slice(&answer.body) else {
        return (false, format!("not ready: {}, and no reasons: no gateway?", answer.status));
    };
    let ready = ready && is_ok;
    let mut lines = vec![if ready { "ready" } else { "not ready" }.to_owned()];
    let bad = checks.iter().filter(|(_, state)| *state != "ok");
    lines.extend(bad.map(|(name, state)| {
        format!("  {name}: {}", state.as_str().map_or_else(|| state.to_string(), str::to_owned))
    }));
    (ready, lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, body: body.to_owned().into() }
    }

    #[test]
    fn reasons_are_told() {
        let ready = answer(200, r#"{"ready":true,"checks":{"redis":"ok","shutdown":"ok"}}"#);
        assert_eq!(judge(false, &ready), (true, "ready".to_owned()));
        let not = answer(
            503,
            r#"{"ready":false,"checks":{"redis":"Redis cannot be reached","shutdown":"ok"}}"#,
        );
        let told = "not ready\n  redis: Redis cannot be reached".to_owned();
        assert_eq!(judge(false, &not), (false, told));
        for other in [answer(200, "ok"), answer(404, "{}"), answer(200, r#"{"ready":true}"#)] {
            assert!(!judge(false, &other).0);
        }
        assert!(judge(true, &answer(200, "ok\n")).0);
        assert!(!judge(true, &answer(502, "")).0);
    }

    #[test]
    fn the_port_is_that_of_the_gateway() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.toml");
        let args = |config: Option<PathBuf>| Args {
            config,
            url: None,
            live: false,
            timeout: Duration::from_secs(1),
        };
        let at = |args: &Args, variable: Option<&str>| {
            let environment = Environment::from_iter(variable.map(|v| (LISTEN_VARIABLE, v)));
            let port = port(args, &environment, variable.map(str::to_owned));
            port.map(|api| api.authority().to_owned()).map_err(|failure| failure.0)
        };
        assert_eq!(at(&args(None), None).unwrap(), "127.0.0.1:9000");
        assert_eq!(at(&args(None), Some("0.0.0.0:9100")).unwrap(), "127.0.0.1:9100");
        assert!(at(&args(None), Some("here")).unwrap_err().contains(LISTEN_VARIABLE));
        // Mistakes elsewhere are not the probe's.
        std::fs::write(&path, "x = 1\n[admin]\nlisten = \"0.0.0.0:9200\"\nnot = 1").unwrap();
        assert_eq!(at(&args(Some(path.clone())), None).unwrap(), "127.0.0.1:9200");
        assert_eq!(
            at(&args(Some(path.clone())), Some("127.0.0.1:9300")).unwrap(),
            "127.0.0.1:9300"
        );
        std::fs::write(&path, "[admin]\nlisten = \"nowhere\"").unwrap();
        assert!(at(&args(Some(path)), None).unwrap_err().contains("admin.listen"));
    }
}
