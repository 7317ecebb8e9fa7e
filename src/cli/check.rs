//! `tidegate check`: tells every mistake of a configuration.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::config::{Config, Environment};

/// Reads the configuration at `path` as `serve` would, with the environment of this process. All is
/// well: one line on standard output, exit code 0. Else every mistake, one a line, on standard error,
/// exit code 1.
pub fn run(path: &Path) -> ExitCode {
    let file = path.display();
    match Config::load(path, &Environment::of_process()) {
        Ok(config) => {
            let routes = Counted(config.routes.len(), "route");
            let upstreams = Counted(config.upstreams.len(), "upstream");
            say(io::stdout(), format_args!("{file}: ok ({routes}, {upstreams})"));
            ExitCode::SUCCESS
        }
        Err(mistakes) => {
            let count = Counted(mistakes.iter().len(), "mistake");
            say(io::stderr(), format_args!("{mistakes}\n{file}: {count}"));
            ExitCode::FAILURE
        }
    }
}

/// A reader that went away does not change the exit code.
fn say(mut to: impl Write, text: fmt::Arguments<'_>) {
    let _ = writeln!(to, "{text}");
}

/// `1 route`, `2 routes`.
struct Counted(usize, &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, what) = self;
        write!(f, "{count} {what}{}", if *count == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_says_whether_all_is_well() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (file, code) in [
            ("gateway.toml", ExitCode::SUCCESS),
            ("tests/config_samples/invalid/cross.toml", ExitCode::FAILURE),
            ("tests/config_samples/no_such_file.toml", ExitCode::FAILURE),
        ] {
            assert_eq!(run(&repository.join(file)), code, "{file}");
        }
    }
}
