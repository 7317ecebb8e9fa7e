//! `tidegate completions`: a script that completes this command line in a shell.

use std::process::ExitCode;

use clap_complete::Shell;

use super::{Failure, definition, write_out};

/// Print a script that completes the command line in a shell
///
/// For bash into ~/.local/share/bash-completion/completions/tidegate, for zsh as _tidegate into a folder of
/// $fpath, for fish into ~/.config/fish/completions/tidegate.fish.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    // Into memory first: the library panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut definition(), "tidegate", &mut script);
    write_out(&script)?;
    Ok(ExitCode::SUCCESS)
}
