//! The commands around the gateway, as people and containers call them: the real binary, its exit code,
//! what it prints and where.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::rig::{Gateway, Redis, Settings, within};

mod asking;
mod printing;
mod publishing;

/// Runs `tidegate` with these arguments, and no variables of this process's own that it reads.
async fn tidegate(arguments: &[&str]) -> Said {
    tidegate_with(&[], arguments).await
}

async fn tidegate_with(env: &[(&str, &str)], arguments: &[&str]) -> Said {
    let mut command = command(arguments);
    command.envs(env.iter().copied());
    output(command).await
}

/// Waits for its end on a thread of its own.
async fn output(mut command: Command) -> Said {
    let what = format!("end of {command:?}");
    let running = tokio::task::spawn_blocking(move || command.output());
    Said::of(&within(&what, running).await.unwrap().expect("the binary starts"))
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments).env_remove("TIDEGATE_API_KEY").stdin(Stdio::null());
    command
}

/// What a command left behind.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// What it printed; it must have succeeded.
    fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// What it complained about; it must have failed, and said nothing else.
    fn failed(self) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (Some(1), ""), "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        self.stderr
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of UTF-8")
}

/// An address on which nothing listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}
