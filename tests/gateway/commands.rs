//! The commands of the binary besides `serve`, called as people and containers call them: exit codes, and
//! what is printed on which stream.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::rig::{Gateway, Redis, Settings, free_address, process, until, within};

mod connect;
mod explain;
mod health;
mod printing;
mod publish;
mod tail;
mod top;

/// Runs `tidegate` with these arguments, without the environment variables of this process that it would read.
pub async fn tidegate(arguments: &[&str]) -> CommandOutput {
    tidegate_with(&[], arguments).await
}

pub async fn tidegate_with(env: &[(&str, &str)], arguments: &[&str]) -> CommandOutput {
    let mut command = command(arguments);
    command.envs(env.iter().copied());
    output(command).await
}

/// Runs the command on a blocking thread until it ends.
async fn output(mut command: Command) -> CommandOutput {
    let what = format!("end of {command:?}");
    let running = tokio::task::spawn_blocking(move || command.output());
    CommandOutput::of(&within(&what, running).await.unwrap().expect("the binary starts"))
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments).env_remove("TIDEGATE_API_KEY").stdin(Stdio::null());
    command
}

/// The exit code and the output of a command.
#[derive(Debug)]
pub struct CommandOutput {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl CommandOutput {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Standard output of a command that must have succeeded.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// Standard error of a command that must have failed without printing anything else.
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
fn unused_address() -> String {
    free_address().to_string()
}

/// A command that runs until it is stopped. It is killed when dropped.
struct Running {
    child: std::process::Child,
    stdout: Lines,
    stderr: Lines,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let mut child = command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stdout = Lines::read(child.stdout.take().expect("a pipe"));
        let stderr = Lines::read(child.stderr.take().expect("a pipe"));
        Self { child, stdout, stderr }
    }

    /// Waits for at least this many lines and returns all that have been printed.
    async fn lines(&self, count: usize) -> Vec<String> {
        until(&format!("{count} lines"), async || {
            let lines = self.stdout.all();
            assert!(lines.len() >= count || !self.stdout.is_complete(), "{self:?} has ended");
            (lines.len() >= count).then_some(lines)
        })
        .await
    }

    /// Waits for a line with `text` on standard error.
    async fn wait_for_error(&self, text: &str) -> String {
        until(&format!("{text:?} on standard error"), async || {
            self.stderr.all().into_iter().find(|line| line.contains(text))
        })
        .await
    }

    fn signal(&self, signal: rustix::process::Signal) {
        process::signal(&self.child, signal);
    }

    /// Waits until the process has ended.
    async fn wait_exit(&mut self) -> Option<i32> {
        let child = &mut self.child;
        until("end of the command", async || child.try_wait().unwrap()).await.code()
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stdout: {:#?}, stderr: {:#?}", self.stdout.all(), self.stderr.all())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{self:?}");
        }
    }
}

/// What has been read from a pipe so far.
struct Lines(Arc<Mutex<(Vec<String>, bool)>>);

impl Lines {
    fn read(pipe: impl std::io::Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new((Vec::new(), false)));
        let shared = Arc::clone(&lines);
        std::thread::spawn(move || {
            let reader = std::io::BufReader::new(pipe);
            for line in std::io::BufRead::lines(reader).map_while(Result::ok) {
                shared.lock().unwrap().0.push(line);
            }
            shared.lock().unwrap().1 = true;
        });
        Self(lines)
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().0.clone()
    }

    fn is_complete(&self) -> bool {
        self.0.lock().unwrap().1
    }
}
