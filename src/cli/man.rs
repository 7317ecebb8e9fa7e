//! `tidegate man`: generates manual pages from the definition of the command line.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Failure, command_line, print_line, write_stdout};

/// Print the manual page, or write the pages of all commands into a folder
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder for tidegate.1, tidegate-serve.1, …; created if it does not exist
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let Some(directory) = &args.directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command_line()).render(&mut page)?;
        write_stdout(&page)?;
        return Ok(ExitCode::SUCCESS);
    };
    let io_error = |error: std::io::Error| Failure(format!("{}: {error}", directory.display()));
    std::fs::create_dir_all(directory).map_err(io_error)?;
    // The generated `help` commands have no pages of their own.
    let definition = command_line().disable_help_subcommand(true);
    clap_mangen::generate_to(definition, directory).map_err(io_error)?;
    print_line(format_args!("manual pages written to {}", directory.display()));
    Ok(ExitCode::SUCCESS)
}
