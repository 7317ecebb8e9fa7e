//! Arguments, logging and exit codes.
//!
//! This module owns what a person types and reads: the subcommands, what they print, and how a process
//! ends (0 done, 1 failed or cut short, 2 wrong usage). The gateway itself, its signals included, is
//! [`crate::gateway`]'s. Invariant: results go to stdout, everything else to stderr, and neither being
//! closed ends the process.

use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::gateway::Outcome;

mod admin_client;
mod check;
mod demo;
mod logging;
mod serve;
mod token;

/// Gives an HTTP API or a queue worker WebSockets.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, long_version = LONG_VERSION.as_str())]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM or SIGINT
    Serve {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Read a configuration and report every mistake in it
    Check {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Try it out: a gateway, a worker and a chat page in one process, nothing else needed
    Demo(demo::DemoArguments),
    /// Mint a connection token, or with --jwt a signed session token, for debugging
    Token(token::TokenArguments),
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The TOML file
    #[arg(long = "config", short = 'c', value_name = "FILE")]
    path: PathBuf,
}

/// Runs the command that the process's arguments name. Wrong usage and `--help` end the process here.
pub fn run() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve { config } => serve::run(&config.path),
        Command::Check { config } => check::run(&config.path),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Token(arguments) => done(token::run(&arguments)),
    }
}

/// The version, and how and for what it was built. `TIDEGATE_BUILD` (say, a commit) is read at build
/// time: whoever packages it sets it.
static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let (arch, os) = (std::env::consts::ARCH, std::env::consts::OS);
    let build = option_env!("TIDEGATE_BUILD").unwrap_or("unknown");
    format!("{}\nbuild {build}, {profile}, {arch}-{os}", env!("CARGO_PKG_VERSION"))
});

/// The checked file, or every mistake in it as the text to end with.
fn load(path: &Path) -> Result<Config, String> {
    Config::load(path).map_err(|mistakes| format!("{}:\n{mistakes}", path.display()))
}

/// Exit code 0, or 1 with the reason on stderr.
fn done(result: Result<(), impl Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With stderr closed there is nobody left to tell.
            let _ = writeln!(std::io::stderr(), "tidegate: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Exit code of a gateway that has run: a cut shutdown is a failure, since clients saw it.
fn ended(outcome: Outcome) -> ExitCode {
    match outcome {
        Outcome::Drained => ExitCode::SUCCESS,
        Outcome::Cut => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn commands_are_read() {
        for (line, understood) in [
            ("serve --config gateway.toml", true),
            ("check -c gateway.toml", true),
            ("demo", true),
            ("demo --listen 127.0.0.1:0 --admin 127.0.0.1:0", true),
            ("demo --allow-origin http://192.0.2.1:8000", true),
            ("token --config g.toml --user 1 --name ana --channel a --channel b", true),
            ("token --config g.toml --user ana --jwt --expires 15m", true),
            ("", false),
            ("serve", false),
            ("check", false),
            ("demo --listen here", false),
            ("demo --allow-origin *", false),
            ("token --config g.toml", false),
            ("token --config g.toml --user 1 --expires soon", false),
            ("token --config g.toml --user 1 --expires 0s", false),
            ("token --config g.toml --user 1 --channel \u{7}", false),
            ("token --config g.toml --user 1 --jwt --origin https://a.test", false),
        ] {
            let words = std::iter::once("tidegate").chain(line.split_whitespace());
            let read = Arguments::try_parse_from(words);
            assert_eq!(read.is_ok(), understood, "{line}: {read:?}");
        }
    }
}
