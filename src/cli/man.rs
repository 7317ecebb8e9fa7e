//! `tidegate man`: manual pages, made from the definition of the command line.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Failure, definition, say, write_out};

/// Print the manual page, or write the pages of all commands into a folder
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where tidegate.1, tidegate-serve.1, … are written; made if it is not there
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let Some(directory) = &args.directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(definition()).render(&mut page)?;
        write_out(&page)?;
        return Ok(ExitCode::SUCCESS);
    };
    let at = |error: std::io::Error| Failure(format!("{}: {error}", directory.display()));
    std::fs::create_dir_all(directory).map_err(at)?;
    // The generated `help` commands have no pages of their own.
    let definition = definition().disable_help_subcommand(true);
    clap_mangen::generate_to(definition, directory).map_err(at)?;
    say(format_args!("the pages are in {}", directory.display()));
    Ok(ExitCode::SUCCESS)
}
