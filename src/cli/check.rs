//! `tidegate check`: prints every mistake in a config file, without starting the gateway.

mod connect;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::server_api::block_on;
use super::{Failure, print_line};
use crate::config::{Config, Environment, Mistakes};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The config file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Fail if there are warnings
    #[arg(long)]
    strict: bool,

    /// Also ask every server that the file names, once and without changing anything
    ///
    /// Redis servers get PING and, where the gateway runs scripts, SCRIPT LOAD; a key set is fetched; upstreams, the
    /// proxy's servers, authorize and on_complete URLs and the collector of spans get an OPTIONS request, whose status
    /// does not matter except for 502, 503 and 504. A server has the timeout of its section, at most 10 seconds.
    #[arg(long)]
    connect: bool,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let config = load(&args.config)?;
    let file = args.config.display();
    let routes = routes(config.routes.len(), config.replies.len());
    let upstreams = count(config.upstreams.len(), "upstream");
    let unchecked = config.unchecked_redis.iter().map(|key| {
        format!("{key}: the certificate of this Redis server is not checked (ssl_cert_reqs=none)")
    });
    let warnings: Vec<String> = unchecked.chain(config.notices()).collect();
    for warning in &warnings {
        print_line(format_args!("{file}: warning: {warning}"));
    }
    if args.strict && !warnings.is_empty() {
        let warnings = count(warnings.len(), "warning");
        print_line(format_args!("{file}: {warnings}, {routes}, {upstreams}"));
        return Ok(ExitCode::FAILURE);
    }
    print_line(format_args!("{file}: ok, {routes}, {upstreams}"));
    if args.connect && !block_on(connect::all(&config))? {
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Loads the config at `path`. The error lists all of its mistakes; see [`load_error`].
pub fn load(path: &Path) -> Result<Config, Failure> {
    Config::load(path, &Environment::from_process()).map_err(|mistakes| load_error(path, &mistakes))
}

/// A line with the number of mistakes, then one line per mistake.
pub fn load_error(path: &Path, mistakes: &Mistakes) -> Failure {
    let total = count(mistakes.iter().len(), "mistake");
    Failure(format!("{}: {total}\n{mistakes}", path.display()))
}

/// Every `[[route]]` counts, also one with a fixed reply.
fn routes(with_channel: usize, with_reply: usize) -> String {
    let all = count(with_channel + with_reply, "route");
    match with_reply {
        0 => all,
        _ => format!("{all} ({with_reply} with a fixed reply)"),
    }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
