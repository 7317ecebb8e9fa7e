//! A real `redis-server` for one test, on a free port. It is killed when dropped.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::Commands;
use crate::config::RedisUrl;
use crate::shutdown::Shutdown;

pub struct RedisServer {
    port: u16,
    child: Child,
    dir: tempfile::TempDir,
    options: Vec<&'static str>,
}

impl RedisServer {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A cluster of one node that serves all slots.
    pub async fn start_cluster() -> (Self, Commands) {
        let server = Self::start_with(&["--cluster-enabled", "yes"]);
        let commands = Commands::start(&server.url(), "test", &Shutdown::new()).expect("a URL");
        assert!(commands.wait_up(Duration::from_secs(10)).await);
        let mut slots = redis::cmd("CLUSTER");
        slots.arg("ADDSLOTSRANGE").arg(0).arg(16383);
        let () = commands.query(&slots).await.expect("slots of its own");
        let is_ok = async || {
            let info: String =
                commands.query(redis::cmd("CLUSTER").arg("INFO")).await.unwrap_or_default();
            info.contains("cluster_state:ok")
        };
        while !is_ok().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (server, commands)
    }

    fn start_with(options: &[&'static str]) -> Self {
        // Another process may take the port before the server starts. In that case another port is tried.
        for _ in 0..10 {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let port = free_port();
            let mut server = Self {
                port,
                child: spawn(port, dir.path(), options),
                dir,
                options: options.to_vec(),
            };
            if server.wait_until_ready() {
                return server;
            }
        }
        panic!("redis-server did not start; is it installed?");
    }

    pub fn url(&self) -> RedisUrl {
        RedisUrl::example(&format!("redis://127.0.0.1:{}", self.port))
    }

    /// Kills the server. Its data is lost.
    pub fn kill(&mut self) {
        // The server may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts the server again on the same port, after [`RedisServer::kill`].
    pub fn restart(&mut self) {
        self.child = spawn(self.port, self.dir.path(), &self.options);
        assert!(self.wait_until_ready(), "redis-server did not start again");
    }

    /// Stops the process without closing its sockets, so that commands are not answered.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()));
    }

    /// Waits until the server answers. Returns false if it ended instead.
    fn wait_until_ready(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return false;
            }
            if self.answers().unwrap_or(false) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// Whether what answers on the port is this server, not that of a test that took the port first. A server accepts
    /// connections before it has all of its ports, and may end without the others.
    fn answers(&self) -> std::io::Result<bool> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        (&stream).write_all(b"INFO server\r\n")?;
        let own = format!("process_id:{}", self.child.id());
        for line in BufReader::new(stream).lines() {
            match line? {
                line if line == own => return Ok(true),
                line if line.starts_with("process_id:") => return Ok(false),
                _ => {}
            }
        }
        Ok(false)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs each test on a `Bench` of the calling module, once on memory and once on Redis.
macro_rules! on_both_engines {
    ($($name:ident $test:expr;)*) => {
        mod on_memory {
            use super::*;
            $(#[tokio::test] async fn $name() { $test(Bench::memory().await).await; })*
        }
        mod on_redis {
            use super::*;
            $(#[tokio::test] async fn $name() { $test(Bench::redis().await).await; })*
        }
    };
}
pub(crate) use on_both_engines;

/// A port below those that systems give outgoing connections: none of them takes it while the server restarts. Each
/// process begins elsewhere.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let place = std::process::id() * 31 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(20_000 + place % 12_768).expect("below 32768");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn spawn(port: u16, dir: &std::path::Path, options: &[&str]) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
        .arg(dir)
        .args(options)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed")
}

/// Starts a connection for commands that another thread drives, until `shutdown` is forced.
pub fn start_elsewhere(url: RedisUrl, shutdown: &Shutdown) -> Commands {
    let (sender, started) = std::sync::mpsc::channel();
    let shutdown = shutdown.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            sender.send(Commands::start(&url, "test", &shutdown).unwrap()).unwrap();
            shutdown.killed().await;
        });
    });
    started.recv().unwrap()
}
