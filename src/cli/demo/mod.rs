//! `tidegate demo`: a gateway on the memory engine, in front of a small app in the same process.
//!
//! The gateway is the real one, started by [`gateway::run`] with an ordinary config, whose secrets and ports
//! are generated at the start. The app ([`app`]) stands for an existing API: it serves a page with a
//! session, and replies to messages with a stream.

mod app;
mod banner;
mod page;
mod reply;
mod responses;
mod worker;

use std::net::SocketAddr;
use std::process::ExitCode;

use self::app::App;
use self::banner::Banner;
use super::{Failure, logging, print_error, serve};
use crate::config::{Config, Secret};
use crate::gateway::{self, Addresses, Inherited, Process, StartError};
use crate::protocol::random_hex;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The address of the page and the WebSockets
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// The address of metrics, health and the server API
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    admin: SocketAddr,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let secrets = Secrets::random();
    let app = App::start(&secrets.jwt)?;
    let config = Config::from_toml(&settings(args, &secrets, &app))
        .map_err(|mistakes| Failure(format!("the config of the demo:\n{mistakes}")))?;
    let log = logging::start(&config.log)?;
    let process = Process { inherited: Inherited::default(), log, read: None };
    let outcome =
        gateway::run(config, process, |addresses| print_banner(addresses, secrets.api_key))
            .map_err(|error| Failure(with_advice(&error)))?;
    Ok(serve::exit_code(outcome))
}

/// Secrets that are generated at each start.
struct Secrets {
    jwt: Secret,
    api_key: Secret,
}

impl Secrets {
    fn random() -> Self {
        Self { jwt: Secret::new(random_hex(32)), api_key: Secret::new(random_hex(16)) }
    }
}

fn settings(args: &Args, secrets: &Secrets, app: &App) -> String {
    let origins: Vec<String> =
        origins(args.listen).iter().map(|origin| format!("{origin:?}")).collect();
    [
        ("{{LISTEN}}", args.listen.to_string()),
        ("{{ADMIN}}", args.admin.to_string()),
        ("{{API_KEY}}", secrets.api_key.expose().to_owned()),
        ("{{JWT_SECRET}}", secrets.jwt.expose().to_owned()),
        ("{{ORIGINS}}", origins.join(", ")),
        ("{{PAGE}}", app.page.to_string()),
        ("{{WORKER}}", app.worker.to_string()),
    ]
    .iter()
    .fold(include_str!("demo.toml").to_owned(), |toml, (name, value)| toml.replace(name, value))
}

/// The allowed origins: pages of this machine, and of the listen address.
fn origins(listen: SocketAddr) -> Vec<String> {
    let mut allowed = vec!["http://localhost:*".to_owned(), "http://127.0.0.1:*".to_owned()];
    let own = match listen {
        SocketAddr::V4(v4) => format!("http://{}:*", v4.ip()),
        SocketAddr::V6(v6) => format!("http://[{}]:*", v6.ip()),
    };
    if !listen.ip().is_unspecified() && !allowed.contains(&own) {
        allowed.push(own);
    }
    allowed
}

/// Prints the banner, on a thread of its own because it requests tokens from the gateway.
fn print_banner(addresses: Addresses, api_key: Secret) {
    let thread = std::thread::Builder::new().name("banner".to_owned());
    let spawned = thread.spawn(move || {
        if let Err(reason) = Banner::request(addresses, &api_key).map(|banner| banner.print()) {
            print_error(format_args!("tidegate: failed to issue demo tokens: {reason}"));
        }
    });
    if let Err(error) = spawned {
        print_error(format_args!("tidegate: {error}"));
    }
}

fn with_advice(error: &StartError) -> String {
    match error {
        StartError::Bind { key, .. } => {
            let flag = if *key == "admin.listen" { "--admin" } else { "--listen" };
            format!("{error}; choose another address with {flag}")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
