//! A real redis-server for one test, which can be stopped, paused and started again.

use std::process::{Child, Command, Stdio};

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use rustix::process::Signal;
use tempfile::TempDir;

use super::{DEADLINE, free_address, process, until};

/// A redis-server that keeps nothing on disk unless it is durable. It is killed when dropped.
pub struct Redis {
    port: u16,
    directory: TempDir,
    durable: bool,
    tls: Option<Tls>,
    options: Vec<String>,
    server: Option<Child>,
}

/// Whether a server that only accepts TLS requires a certificate from its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    NoCertificate,
    Certificate,
}

/// The path of one of the files in `tests/keys/redis_tls`.
pub fn tls_file(name: &str) -> String {
    format!("{}/tests/keys/redis_tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

impl Redis {
    /// Starts `redis-server` on a free port and waits until it answers.
    pub async fn start() -> Self {
        Self::start_as(false, None, &[]).await
    }

    /// The same with further options, for example `["--maxclients", "3"]`.
    pub async fn start_with(options: &[&str]) -> Self {
        Self::start_as(false, None, options).await
    }

    /// Starts a replica of `primary` and waits until it follows.
    pub async fn start_replica(primary: &Redis) -> Self {
        let replica = Self::start().await;
        replica.follow(primary).await;
        replica
    }

    /// Makes this server a replica of `primary`, and waits until it follows.
    pub async fn follow(&self, primary: &Redis) {
        let () = self.run(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]).await;
        until("replica that follows", async || {
            let info: String = self.run(&["INFO", "replication"]).await;
            info.contains("master_link_status:up").then_some(())
        })
        .await;
    }

    /// Makes this server a primary.
    pub async fn promote(&self) {
        let () = self.run(&["REPLICAOF", "NO", "ONE"]).await;
    }

    /// The same with a TLS port only. Its certificate `server.pem` is for 127.0.0.1 and was issued by `ca.pem`.
    pub async fn start_tls(tls: Tls) -> Self {
        Self::start_as(false, Some(tls), &[]).await
    }

    /// The same with an append-only file, so that it has its data after a restart.
    pub async fn start_durable() -> Self {
        Self::start_as(true, None, &[]).await
    }

    async fn start_as(durable: bool, tls: Option<Tls>, options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        loop {
            // The port is free now. If another process takes it first, the next port is tried.
            let port = free_address().port();
            let directory = tempfile::tempdir().expect("a temporary directory");
            let options = options.clone();
            let mut redis = Self { port, directory, durable, tls, options, server: None };
            if redis.try_start().await {
                return redis;
            }
        }
    }

    /// Deletes what it wrote to disk.
    pub fn lose_data(&self) {
        assert!(self.server.is_none(), "it runs");
        for entry in std::fs::read_dir(self.directory.path()).expect("its directory") {
            let path = entry.expect("an entry").path();
            let removed = if path.is_dir() {
                std::fs::remove_dir_all(path)
            } else {
                std::fs::remove_file(path)
            };
            removed.expect("a file of its own");
        }
    }

    /// Starts it again on the same port. It is empty unless it is durable.
    pub async fn restart(&mut self) {
        self.stop();
        assert!(self.try_start().await, "redis-server does not start again on port {}", self.port);
    }

    /// Kills the server: open connections are reset, new ones are refused.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    pub fn is_running(&self) -> bool {
        self.server.is_some()
    }

    /// Suspends the server, so that it does not answer while its connections stay open.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// The server's host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The URL that the test itself uses, without TLS.
    fn own_url(&self) -> String {
        match self.tls {
            None => self.url(),
            Some(_) => format!("unix://{}", self.directory.path().join("socket").display()),
        }
    }

    /// Opens a connection for the test itself.
    pub async fn connection(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.own_url()).expect("a valid URL");
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(DEADLINE))
            .set_response_timeout(Some(DEADLINE));
        let connection = client.get_multiplexed_async_connection_with_config(&config).await;
        connection.expect("redis-server accepts")
    }

    /// Runs one command, for example `redis.run::<i64>(&["PUBLISH", "chat_42", "{}"])`.
    pub async fn run<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut self.connection().await).await.expect("the command succeeds")
    }

    /// The same for a server that may close the connection.
    pub async fn try_run<T: redis::FromRedisValue>(&self, words: &[&str]) -> Option<T> {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut self.connection().await).await.ok()
    }

    fn signal(&self, signal: Signal) {
        process::signal(self.server.as_ref().expect("redis-server runs"), signal);
    }

    /// Starts the server. Returns `false` if it ended at once, for example because its port is in use.
    async fn try_start(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        let port = self.port.to_string();
        match self.tls {
            None => command.args(["--port", &port]),
            Some(tls) => {
                let require = if tls == Tls::Certificate { "yes" } else { "no" };
                command
                    .args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", require])
                    .args(["--tls-cert-file", &tls_file("server.pem")])
                    .args(["--tls-key-file", &tls_file("server.key")])
                    .args(["--tls-ca-cert-file", &tls_file("ca.pem")])
                    .arg("--unixsocket")
                    .arg(self.directory.path().join("socket"))
            }
        };
        let mut server = command
            .args(["--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", if self.durable { "yes" } else { "no" }])
            .args(["--appendfsync", "always", "--repl-diskless-sync-delay", "0"])
            .args(&self.options)
            .arg("--dir")
            .arg(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let client = redis::Client::open(self.own_url()).expect("a valid URL");
        let started = until("answer of redis-server", async || {
            if server.try_wait().expect("a child can be waited for").is_some() {
                return Some(false);
            }
            // Another test's server answers if that test took the port: this one is about to end.
            let mut connection = client.get_multiplexed_async_connection().await.ok()?;
            let info: String = redis::cmd("INFO").query_async(&mut connection).await.ok()?;
            let is_own = info.contains(&format!("\nprocess_id:{}\r", server.id()));
            // One that has its data refuses commands while it reads them.
            (is_own && info.contains("\nloading:0\r")).then_some(true)
        })
        .await;
        self.server = started.then_some(server);
        started
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}
