//! A real primary with two replicas, and three sentinels that watch over it.

use std::process::{Child, Command, Stdio};

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use super::{Redis, free_address, until};

/// The name by which the sentinels know the primary.
pub const NAME: &str = "mymaster";

/// How many sentinels must agree that the primary is down.
const QUORUM: usize = 2;

/// The servers, the first of which is the primary at the start, and the sentinels. They are killed when it is dropped.
pub struct Sentinels {
    pub servers: Vec<Redis>,
    pub sentinels: Vec<Sentinel>,
}

/// A `redis-server --sentinel` with its config, which it writes to.
pub struct Sentinel {
    port: u16,
    directory: TempDir,
    password: Option<&'static str>,
    process: Option<Child>,
}

impl Sentinels {
    pub async fn start() -> Self {
        Self::start_as(None).await
    }

    /// The same with a password for the sentinels.
    pub async fn start_with_password(password: &'static str) -> Self {
        Self::start_as(Some(password)).await
    }

    async fn start_as(password: Option<&'static str>) -> Self {
        let servers = join_all((0..3).map(|_| Redis::start())).await;
        for replica in &servers[1..] {
            replica.follow(&servers[0]).await;
        }
        let primary = servers[0].address();
        let started = (0..3).map(|_| Sentinel::start(&primary, password));
        let sentinels = join_all(started).await;
        let all = Self { servers, sentinels };
        for sentinel in &all.sentinels {
            until("sentinels that know each other and the replicas", async || {
                let known = sentinel.field("num-other-sentinels").await? == "2"
                    && sentinel.field("num-slaves").await? == "2";
                known.then_some(())
            })
            .await;
        }
        all
    }

    /// The URL with all sentinels.
    pub fn url(&self) -> String {
        let addresses: Vec<String> = self.sentinels.iter().map(Sentinel::address).collect();
        format!("redis-sentinel://{}/{NAME}", addresses.join(","))
    }

    /// Waits until the sentinels that answer name another server than `old`, and returns which.
    pub async fn failed_over(&self, old: usize) -> usize {
        let mut new = old;
        for sentinel in self.sentinels.iter().filter(|sentinel| sentinel.process.is_some()) {
            new = until("failover", async || {
                let named = sentinel.named().await?;
                let at = self.servers.iter().position(|server| server.address() == named)?;
                (at != old).then_some(at)
            })
            .await;
        }
        new
    }
}

impl Sentinel {
    async fn start(primary: &str, password: Option<&'static str>) -> Self {
        loop {
            // The port is free now. If another process takes it first, the next port is tried.
            let port = free_address().port();
            let directory = tempfile::tempdir().expect("a temporary directory");
            let mut sentinel = Self { port, directory, password, process: None };
            sentinel.write_config(primary);
            if sentinel.try_start().await {
                return sentinel;
            }
        }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills it.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    fn write_config(&self, primary: &str) {
        let (host, primary_port) = primary.split_once(':').expect("an address");
        let mut config = format!(
            "port {}\nbind 127.0.0.1\ndir {}\n\
             sentinel monitor {NAME} {host} {primary_port} {QUORUM}\n\
             sentinel down-after-milliseconds {NAME} 1000\n\
             sentinel failover-timeout {NAME} 4000\n",
            self.port,
            self.directory.path().display(),
        );
        if let Some(password) = self.password {
            config += &format!("requirepass {password}\nsentinel sentinel-pass {password}\n");
        }
        std::fs::write(self.directory.path().join("sentinel.conf"), config).expect("a config");
    }

    /// Starts it again as at first, when `primary` was the primary: it knows of no failover, and of no other server.
    pub async fn restart_anew(&mut self, primary: &str) {
        self.stop();
        self.write_config(primary);
        self.restart().await;
    }

    /// Starts it again, with what it knew.
    pub async fn restart(&mut self) {
        self.stop();
        assert!(self.try_start().await, "the sentinel does not start on port {}", self.port);
    }

    /// The address of the primary that it names.
    pub async fn named(&self) -> Option<String> {
        Some(format!("{}:{}", self.field("ip").await?, self.field("port").await?))
    }

    /// A part of what it says about the primary.
    async fn field(&self, name: &str) -> Option<String> {
        let mut question = redis::cmd("SENTINEL");
        question.arg("MASTER").arg(NAME);
        let answer: Vec<String> = question.query_async(&mut self.connection().await?).await.ok()?;
        answer.chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1].clone())
    }

    async fn connection(&self) -> Option<MultiplexedConnection> {
        let password = self.password.map(|password| format!(":{password}@")).unwrap_or_default();
        let client = redis::Client::open(format!("redis://{password}{}", self.address()));
        client.expect("a URL").get_multiplexed_async_connection().await.ok()
    }

    /// Returns `false` if it ended at once, for example because its port is in use.
    async fn try_start(&mut self) -> bool {
        let process = Command::new("redis-server")
            .arg(self.directory.path().join("sentinel.conf"))
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        self.process = Some(process);
        let has_started = until("answer of a sentinel", async || {
            let process = self.process.as_mut().expect("it was started");
            if process.try_wait().expect("a child can be waited for").is_some() {
                return Some(false);
            }
            self.field("ip").await.is_some().then_some(true)
        })
        .await;
        if !has_started {
            self.process = None;
        }
        has_started
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.stop();
    }
}
