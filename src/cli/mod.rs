//! The command line: arguments, logging and exit codes.
//!
//! Results go to stdout, logs and mistakes to stderr. Exit codes: 0 done, 1 failed (or a shutdown
//! that had to cut something), 2 wrong usage. What a command does is in its own module; the gateway
//! itself is [`crate::gateway`].

mod check;
mod completions;
mod config;
mod demo;
mod health;
mod lifetime;
mod logging;
mod man;
mod publish;
mod record;
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

pub use reference::reference;

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{CommandFactory as _, Parser, Subcommand};

/// What `--version` prints: `-V` has the number alone. Whoever packages it sets `TIDEGATE_BUILD`, say to
/// a commit, when it is built.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let build = option_env!("TIDEGATE_BUILD").unwrap_or("unknown");
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let (arch, os) = (std::env::consts::ARCH, std::env::consts::OS);
    format!("{} (build {build}, {profile}, {arch}-{os})", env!("CARGO_PKG_VERSION"))
});

/// A WebSocket gateway for an HTTP API or queue worker that exists already.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, long_version = VERSION.as_str(), max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Where a command has no text here, it is that of its arguments, which says more.
#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM or SIGINT; a second signal cuts what is left
    Serve(serve::Args),
    /// Check a config file and print every mistake in it
    Check(check::Args),
    /// Print a config file to begin with, or what a config file comes to
    Config(config::Args),
    Health(health::Args),
    /// Run a gateway with a chat page and a worker of its own; nothing else is needed
    Demo(demo::Args),
    Token(token::Args),
    Publish(publish::Args),
    Tail(tail::Args),
    Replay(replay::Args),
    Top(top::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Runs the command that the process's arguments name.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            let _closed = usage.print();
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
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Token(args) => token::run(&args),
    };
    outcome.unwrap_or_else(|failure| {
        complain(format_args!("tidegate: {}", failure.0));
        ExitCode::FAILURE
    })
}

/// Why a command failed, as it is told to whoever called it.
#[derive(Debug)]
struct Failure(String);

impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// A line on stdout. A reader that has gone away is no reason to panic.
fn say(line: impl Display) {
    let _closed = writeln!(std::io::stdout(), "{line}");
}

/// All of `text` on stdout. A reader that has had enough, such as `head`, is no failure.
fn write_out(text: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Reads a channel's name, or a pattern: `*` is an ordinary character of names.
fn channel(text: &str) -> Result<String, String> {
    crate::protocol::ChannelName::new(text)
        .map(|name| name.to_string())
        .map_err(|wrong| wrong.to_string())
}

/// The whole command line.
fn definition() -> clap::Command {
    Cli::command()
}

/// A line on stderr.
fn complain(line: impl Display) {
    let _closed = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
        let version = Cli::command().render_long_version();
        assert!(version.starts_with("tidegate ") && version.contains("(build "), "{version}");
    }

    #[test]
    fn wrong_usage_is_exit_code_two() {
        for wrong in [
            &["tidegate"][..],
            &["tidegate", "serve"],
            &["tidegate", "serve", "--config", "a.toml", "extra"],
            &["tidegate", "nothing"],
            &["tidegate", "token", "--config", "a.toml"],
            &["tidegate", "token", "--config", "a.toml", "--user", ""],
            &["tidegate", "token", "--config", "a.toml", "--user", "1", "--expires", "soon"],
            &["tidegate", "token", "--config", "a.toml", "--user", "1", "--channel", "a b"],
        ] {
            assert_eq!(Cli::try_parse_from(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
        assert_eq!(Cli::try_parse_from(["tidegate", "--help"]).unwrap_err().exit_code(), 0);
    }
}
