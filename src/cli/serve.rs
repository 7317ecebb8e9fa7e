//! `tidegate serve`: runs the gateway in the foreground.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use super::{Failure, check, logging, spans};
use crate::config::{Config, Environment};
use crate::gateway::{self, Inherited, Outcome, Process, ReadConfig};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The config file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let inherited = Inherited::take()?;
    let config = check::load(&args.config)?;
    let log = logging::start(&config.log)?;
    let tracing = spans::start(&config.tracing)?;
    let flush = config.tracing.timeout;
    let path = args.config.clone();
    let read: ReadConfig = Arc::new(move || {
        Config::load(&path, &Environment::from_process()).map_err(|mistakes| mistakes.to_string())
    });
    let process = Process { inherited, log: log.clone(), read: Some(read) };
    let outcome = gateway::run(config, process, |addresses| {
        tracing::info!(
            event = "listening",
            public = %addresses.public,
            admin = %addresses.admin,
            redirect = addresses.redirect.map(tracing::field::display),
            "listening"
        );
    })?;
    if let Some(tracing) = tracing {
        tracing.finish(flush);
    }
    log.finish();
    Ok(exit_code(outcome))
}

/// A shutdown that had to abort something is a failure.
pub fn exit_code(outcome: Outcome) -> ExitCode {
    match outcome {
        Outcome::Drained => ExitCode::SUCCESS,
        Outcome::Forced => ExitCode::FAILURE,
    }
}
