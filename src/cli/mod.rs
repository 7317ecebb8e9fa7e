//! The command line: arguments, logging and exit codes.
//!
//! Results go to stdout, logs and errors to stderr. Exit codes: 0 success, 1 failure (also a shutdown that
//! had to abort something), 2 wrong usage. Each command is in its own module; the gateway itself is
//! `gateway`.

mod arguments;
mod check;
mod completions;
mod config;
mod demo;
mod explain;
mod health;
mod logging;
mod man;
mod publish;
mod record;
#[cfg(test)]
mod reference;
mod replay;
mod serve;
mod server_api;
mod signals;
mod spans;
mod tail;
mod target;
mod token;
mod top;

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{CommandFactory as _, Parser, Subcommand};

/// The output of `--version`; `-V` prints the number only. Packagers set `TIDEGATE_BUILD` at build time, for
/// example to a commit.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let build = option_env!("TIDEGATE_BUILD").unwrap_or("unknown");
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let (arch, os) = (std::env::consts::ARCH, std::env::consts::OS);
    format!("{} (build {build}, {profile}, {arch}-{os})", env!("CARGO_PKG_VERSION"))
});

/// A WebSocket gateway for an existing HTTP API or queue worker.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, long_version = VERSION.as_str(), max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Commands without a text here have a longer one at their arguments.
#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM or SIGINT; a second signal aborts what is left
    Serve(serve::Args),
    /// Check a config file and print every mistake in it
    Check(check::Args),
    /// Print a starter config, or the effective one
    Config(config::Args),
    Health(health::Args),
    /// Run a gateway with a built-in chat page and worker, without any other service
    Demo(demo::Args),
    Token(token::Args),
    Publish(publish::Args),
    Tail(tail::Args),
    Replay(replay::Args),
    Top(top::Args),
    Explain(explain::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Runs the command that the process's arguments name.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            // Nothing can be done if the output is closed.
            let _ = usage.print();
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
        }
    };
    let outcome = match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Publish(args) => publish::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Token(args) => token::run(&args),
    };
    outcome.unwrap_or_else(|failure| {
        print_error(format_args!("tidegate: {}", failure.0));
        ExitCode::FAILURE
    })
}

/// Why a command failed, as it is printed to the user.
#[derive(Debug)]
struct Failure(String);

impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Prints a line to stdout. A closed pipe is ignored.
fn print_line(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Writes all of `text` to stdout. A closed pipe, such as one to `head`, is not a failure.
fn write_stdout(text: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// The definition of the whole command line.
fn command_line() -> clap::Command {
    Cli::command()
}

/// Prints a line to stderr.
fn print_error(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests;
