//! stderr takes nothing: nobody reads the pipe, or the disk is full.

use std::fs::File;
use std::io::{PipeReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::rig::{CHAT_ROUTE, Client, Settings, free_address, http, process, until};

/// A gateway whose stderr is the test's. It logs several lines for each connection.
struct Logging {
    process: Child,
    public: SocketAddr,
    admin: SocketAddr,
    _directory: TempDir,
}

impl Logging {
    async fn start(stderr: impl Into<Stdio>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (public, admin) = (free_address(), free_address());
        let settings = Settings::new()
            .section("server", &format!("listen = \"{public}\"\nthreads = 1"))
            .section("admin", &format!("listen = \"{admin}\""))
            .section("log", "format = \"json\"\nlevel = \"debug\"")
            .route(&CHAT_ROUTE.replace("\"worker\"", "\"none\""))
            .upstream("none", "kind = \"http\"\nurl = \"http://127.0.0.1:1/\"");
        let config = directory.path().join("gateway.toml");
        std::fs::write(&config, settings.to_string()).expect("the config");
        let process = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["serve", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the gateway's binary starts");
        let gateway = Self { process, public, admin, _directory: directory };
        until("gateway that listens", async || {
            tokio::net::TcpStream::connect(gateway.admin).await.ok()
        })
        .await;
        gateway
    }

    /// Connects so often that the log is longer than any pipe is.
    async fn serve_many(&self) {
        for number in 0..500 {
            let path = format!("/ws/chat/{number}/?padding={}", "x".repeat(500));
            let mut client = Client::open(self.public, &path, &[]).await;
            assert_eq!(client.next_json().await["event"], "connected");
        }
    }

    async fn metrics(&self) -> String {
        http::get(self.admin, "/metrics").await.text()
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads lines until there is one with `event`.
fn read_until(pipe: PipeReader, event: &'static str) -> Vec<Value> {
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(pipe)).map(|line| {
        serde_json::from_str::<Value>(&line.expect("a line")).expect("each line is whole")
    });
    let mut read = Vec::new();
    loop {
        let line = lines.next().expect("the gateway runs");
        let is_last = line["event"] == event;
        read.push(line);
        if is_last {
            return read;
        }
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_delays_nobody_and_is_written_when_it_is_read() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let gateway = Logging::start(writer).await;
    gateway.serve_many().await;
    // More lines than wait for the pipe, which has to be told when it is read again.
    until("lost lines", async || {
        gateway.serve_many().await;
        let metrics = gateway.metrics().await;
        let lost = metrics.lines().find_map(|l| l.strip_prefix("tidegate_log_lines_lost_total "));
        lost.is_some_and(|lost| lost != "0").then_some(())
    })
    .await;
    let reading = tokio::task::spawn_blocking(|| read_until(reader, "log_lines_lost"));
    let read = crate::rig::within("the end of the waiting lines", reading).await.unwrap();
    let accepted = read.iter().filter(|line| line["event"] == "connection_opened").count();
    assert!(accepted > 100, "what waited was written: {accepted}");
    assert!(read.last().unwrap()["lines"].as_u64() > Some(0), "{:?}", read.last());
}

#[tokio::test]
async fn a_full_disk_ends_nothing() {
    let full = File::options().write(true).open("/dev/full").expect("/dev/full");
    let mut gateway = Logging::start(full).await;
    gateway.serve_many().await;
    let metrics = gateway.metrics().await;
    assert!(metrics.contains("\ntidegate_panics_total 0\n"), "{metrics}");
    process::signal(&gateway.process, Signal::TERM);
    let status = until("the end", async || gateway.process.try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn the_end_of_the_process_writes_what_waited() {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let mut gateway = Logging::start(writer).await;
    gateway.serve_many().await;
    process::signal(&gateway.process, Signal::TERM);
    let reading = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        text
    });
    let status = until("the end", async || gateway.process.try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(0));
    let text = crate::rig::within("the log", reading).await.unwrap();
    assert!(text.contains("\"event\":\"stopped\""), "{}", &text[text.len().saturating_sub(500)..]);
}
