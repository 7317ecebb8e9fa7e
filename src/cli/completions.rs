//! `tidegate completions`: prints a shell completion script.

use std::process::ExitCode;

use clap_complete::Shell;

use super::{Failure, command_line, write_stdout};

/// Print a shell completion script
///
/// For bash, save it as ~/.local/share/bash-completion/completions/tidegate; for zsh, as _tidegate in a folder
/// of $fpath; for fish, as ~/.config/fish/completions/tidegate.fish.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    // The library panics if it cannot write, so it writes to memory.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command_line(), "tidegate", &mut script);
    write_stdout(&script)?;
    Ok(ExitCode::SUCCESS)
}
