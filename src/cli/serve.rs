//! `tidegate serve`: the gateway in the foreground.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Failure, check, logging};
use crate::gateway::{self, Outcome};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The config file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let config = check::load(&args.config)?;
    let _log = logging::start(&config.log)?;
    let outcome = gateway::run(config, |addresses| {
        tracing::info!(
            event = "listening",
            public = %addresses.public,
            admin = %addresses.admin,
            "listening"
        );
    })?;
    Ok(exit_code(outcome))
}

/// A shutdown that had to cut something is a failure.
pub fn exit_code(outcome: Outcome) -> ExitCode {
    match outcome {
        Outcome::Drained => ExitCode::SUCCESS,
        Outcome::Cut => ExitCode::FAILURE,
    }
}
