//! A real `redis-server` for one test, on a free port. It is killed when dropped.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

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

    /// Runs one command over a connection of its own.
    pub async fn run<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(self.url().info().clone()).expect("a URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query_async(&mut connection).await.expect("it is accepted")
    }

    pub fn port(&self) -> u16 {
        self.port
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
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::STOP).expect("redis-server takes a signal");
        // The signal is taken before the process has stopped.
        let status = waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT);
        assert!(status.expect("a child can be waited for").is_some_and(|status| status.stopped()));
    }

    pub fn resume(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).expect("it takes a signal");
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

/// Three masters, each with a third of the slots, and further ones without slots.
pub struct RedisCluster {
    pub servers: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts the three masters.
    pub async fn start() -> Self {
        Self::start_with(0).await
    }

    /// Starts the three masters, and `more` without slots.
    pub async fn start_with(more: usize) -> Self {
        let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
        let servers: Vec<_> = (0..3 + more).map(|_| RedisServer::start_with(&options)).collect();
        let cluster = Self { servers };
        let first = cluster.servers[0].port.to_string();
        for (at, server) in cluster.servers.iter().enumerate() {
            let () = server.run(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]).await;
            if at > 0 {
                let () = server.run(&["CLUSTER", "MEET", "127.0.0.1", &first]).await;
            }
            if let Some((from, to)) = [(0, 5460), (5461, 10922), (10923, 16383)].get(at) {
                let (from, to) = (from.to_string(), to.to_string());
                let () = server.run(&["CLUSTER", "ADDSLOTSRANGE", &from, &to]).await;
            }
        }
        for server in &cluster.servers {
            let all = format!("cluster_known_nodes:{}\r", cluster.servers.len());
            loop {
                let info: String = server.run(&["CLUSTER", "INFO"]).await;
                if info.contains("cluster_state:ok") && info.contains(&all) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        cluster
    }

    pub fn url(&self) -> RedisUrl {
        RedisUrl::example(&format!("redis-cluster://127.0.0.1:{}", self.servers[0].port))
    }

    /// The links of a gateway, once all masters with slots are there.
    pub async fn commands(&self) -> Commands {
        let commands = Commands::start(&self.url(), "test", &Shutdown::new()).expect("a URL");
        assert!(commands.wait_up(Duration::from_secs(10)).await);
        commands
    }

    /// Begins to move the slot of `key` from one server to another.
    pub async fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let (from, to, slot) = (&self.servers[from], &self.servers[to], slot.to_string());
        let (source, target): (String, String) =
            (from.run(&["CLUSTER", "MYID"]).await, to.run(&["CLUSTER", "MYID"]).await);
        let () = to.run(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source]).await;
        let () = from.run(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target]).await;
    }

    /// Moves the keys, and ends the move.
    pub async fn end_move(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        let keys: Vec<String> =
            self.servers[from].run(&["CLUSTER", "GETKEYSINSLOT", &slot, "1000"]).await;
        let port = self.servers[to].port.to_string();
        for key in keys {
            let () =
                self.servers[from].run(&["MIGRATE", "127.0.0.1", &port, &key, "0", "1000"]).await;
        }
        let target: String = self.servers[to].run(&["CLUSTER", "MYID"]).await;
        for server in [to, from] {
            let () =
                self.servers[server].run(&["CLUSTER", "SETSLOT", &slot, "NODE", &target]).await;
        }
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
