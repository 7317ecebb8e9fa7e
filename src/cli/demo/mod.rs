//! `tidegate demo`: a gateway on the memory engine, and in the same process the two things that a team
//! already has: an app that serves a page and signs people in, and a worker that streams replies. The
//! app is an ordinary HTTP server on a loopback port of its own; the gateway knows it only by its URL.

use std::net::SocketAddr;
use std::process::ExitCode;

use super::{done, ended, logging};
use crate::config::{Config, Secret};
use crate::gateway::{self, StartError};
use crate::protocol::{OriginPattern, random_hex};

mod announce;
mod app;
mod reply;
mod worker;

#[derive(Debug, clap::Args)]
pub struct DemoArguments {
    /// The public port; port 0 takes any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// The admin port: metrics, health and the server API
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    admin: SocketAddr,
    /// A further origin that may connect, where the page is not opened on this machine
    #[arg(long, value_name = "ORIGIN", value_parser = OriginPattern::parse)]
    allow_origin: Vec<OriginPattern>,
    /// What the gateway logs to stderr: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log: tracing::Level,
}

/// Made anew for each run.
#[derive(Clone)]
struct Secrets {
    api_key: Secret,
    jwt: Secret,
    signing: Secret,
}

impl Secrets {
    fn generate() -> Self {
        let secret = || Secret::new(random_hex(24));
        Self { api_key: secret(), jwt: secret(), signing: secret() }
    }
}

/// Runs until Ctrl-C.
pub fn run(arguments: &DemoArguments) -> ExitCode {
    let secrets = Secrets::generate();
    let prepared = app::start(&secrets)
        .map_err(|error| format!("the demo's app did not start: {error}"))
        .and_then(|app| configure(arguments, app, &secrets));
    let config = match prepared {
        Ok(config) => config,
        Err(error) => return done(Err(error)),
    };
    if let Err(wrong) = logging::install(&config.log) {
        return done(Err(wrong));
    }
    // Whoever announces asks the admin port for tokens, so it must not block the gateway's thread.
    let ready = |addresses| announce::in_background(addresses, secrets.api_key.clone());
    match gateway::run(config, ready) {
        Ok(outcome) => ended(outcome),
        Err(error) => done(Err(explain(&error))),
    }
}

/// The demo's configuration: `demo.toml`, read as any other.
fn configure(
    arguments: &DemoArguments,
    app: SocketAddr,
    secrets: &Secrets,
) -> Result<Config, String> {
    let text = include_str!("demo.toml")
        .replace("@listen@", &arguments.listen.to_string())
        .replace("@admin@", &arguments.admin.to_string())
        .replace("@app@", &app.to_string())
        .replace("@log@", &arguments.log.to_string().to_lowercase())
        .replace("@api_key@", secrets.api_key.expose())
        .replace("@jwt_secret@", secrets.jwt.expose())
        .replace("@signing_secret@", secrets.signing.expose());
    let mut config = Config::from_toml(&text).map_err(|mistakes| mistakes.to_string())?;
    config.origins.allow.extend(arguments.allow_origin.iter().cloned());
    Ok(config)
}

/// Names the option that helps.
fn explain(error: &StartError) -> String {
    match error {
        StartError::Bind { key, address, error } => {
            let option = if key.starts_with("admin") { "--admin" } else { "--listen" };
            let other = SocketAddr::new(address.ip(), 0);
            format!(
                "cannot listen on {address}: {error}; choose another with {option}, for example {option} {other}"
            )
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: DemoArguments,
    }

    #[test]
    fn its_configuration_has_no_mistakes() {
        let line = ["demo", "--listen", "[::1]:0", "--allow-origin", "http://192.0.2.1:8000"];
        let arguments = Line::try_parse_from(line).unwrap().arguments;
        let secrets = Secrets::generate();
        let config = configure(&arguments, "127.0.0.1:1".parse().unwrap(), &secrets).unwrap();
        assert_eq!(config.server.listen, arguments.listen);
        assert_eq!(config.origins.allow.len(), 4);
        assert_eq!(config.log.level, "warn");
        assert!(config.admin.api_keys[0].matches(secrets.api_key.expose()));
    }

    #[test]
    fn a_port_in_use_names_the_option() {
        let address = "127.0.0.1:9000".parse().unwrap();
        let error = std::io::ErrorKind::AddrInUse.into();
        let text = explain(&StartError::Bind { key: "admin.listen", address, error });
        assert!(text.contains("127.0.0.1:9000") && text.contains("--admin 127.0.0.1:0"), "{text}");
    }
}
