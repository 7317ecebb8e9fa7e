//! A gateway process: its config file, ports, log and exit.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::tls_tunnel::certificate;
use super::{API_KEY, AnyCluster, Redis, TlsClient, TlsTunnel, http, process, until};

/// A config with this line tests the memory engine itself and is never run on Redis.
pub const MEMORY_ONLY: &str = "kind = \"memory\"";

/// A running gateway. It is killed when dropped, and its log is printed if the test has failed.
pub struct Gateway {
    process: Process,
    public: SocketAddr,
    admin: SocketAddr,
    /// The Redis that this gateway alone uses, if `TIDEGATE_TEST_ENGINE` asks for one.
    _redis: Option<RequestedRedis>,
    /// Clients connect through it, if `TIDEGATE_TEST_TLS` asks for TLS.
    _tunnel: Option<TlsTunnel>,
}

/// With `TIDEGATE_TEST_TLS=1`, gateways whose test does not care speak TLS, and their clients connect through a tunnel.
fn with_requested_tls(toml: String) -> (String, bool) {
    let requested = std::env::var("TIDEGATE_TEST_TLS").is_ok_and(|requested| requested == "1");
    if !requested || toml.contains("[server.tls]") {
        return (toml, false);
    }
    (format!("{toml}\n[server.tls]\n{}\n", certificate("localhost")), true)
}

/// Is stopped, or free for another test, when it is dropped.
enum RequestedRedis {
    Server(Redis),
    Cluster(AnyCluster),
}

/// With `TIDEGATE_TEST_ENGINE=redis` or `cluster`, a test that does not choose an engine runs on Redis instead of memory,
/// with a Redis server, or a cluster, that this gateway alone uses.
async fn with_requested_engine(toml: String) -> (String, Option<RequestedRedis>) {
    let requested = std::env::var("TIDEGATE_TEST_ENGINE").unwrap_or_default();
    if toml.contains("kind = \"redis\"") || toml.contains(MEMORY_ONLY) {
        return (toml, None);
    }
    let redis = match &*requested {
        "redis" => RequestedRedis::Server(Redis::start().await),
        "cluster" => RequestedRedis::Cluster(AnyCluster::get().await),
        _ => return (toml, None),
    };
    let url = match &redis {
        RequestedRedis::Server(redis) => redis.url(),
        RequestedRedis::Cluster(cluster) => cluster.url(),
    };
    let url = format!("[engine.redis]\nurl = {url:?}\n");
    let engine = "[engine]\n";
    let toml = match toml.contains(engine) {
        true => toml.replacen(engine, "[engine]\nkind = \"redis\"\n", 1) + "\n" + &url,
        false => format!("[engine]\nkind = \"redis\"\n{url}\n{toml}"),
    };
    (toml, Some(redis))
}

impl Gateway {
    /// Starts `tidegate serve` and waits until it listens.
    pub async fn start(toml: impl ToString) -> Self {
        Self::start_with_env(toml, &[]).await
    }

    pub async fn start_with_env(toml: impl ToString, env: &[(&str, &str)]) -> Self {
        let (toml, redis) = with_requested_engine(toml.to_string()).await;
        let (toml, has_tls) = with_requested_tls(toml);
        let gateway = Self::listening(Process::spawn(&toml, env), redis).await;
        if has_tls { gateway.through_tunnel().await } else { gateway }
    }

    async fn through_tunnel(mut self) -> Self {
        let tunnel = TlsTunnel::start(self.public, TlsClient::new()).await;
        self.public = tunnel.addr();
        self._tunnel = Some(tunnel);
        self
    }

    /// Starts it with `socket`, which is already listening, as systemd does for the socket called `name`.
    pub async fn start_with_socket(
        toml: impl ToString,
        socket: &std::net::TcpListener,
        name: &str,
    ) -> Self {
        let (toml, redis) = with_requested_engine(toml.to_string()).await;
        Self::listening(Process::spawn_with_socket(&toml, socket, name), redis).await
    }

    /// Starts it as the last argument of `command`, which must become the gateway.
    pub async fn start_under(command: &[&str], toml: impl ToString) -> Self {
        let (toml, redis) = with_requested_engine(toml.to_string()).await;
        let mut under = Command::new(command[0]);
        under.args(&command[1..]).arg(env!("CARGO_BIN_EXE_tidegate")).stdin(Stdio::null());
        Self::listening(Process::start(under, &toml), redis).await
    }

    /// Starts it with these limits of open files.
    pub async fn start_with_open_files(toml: impl ToString, soft: u32, hard: u32) -> Self {
        let (toml, redis) = with_requested_engine(toml.to_string()).await;
        let mut command = Command::new("sh");
        let limiting = format!("ulimit -n {hard}; ulimit -Sn {soft}; exec \"$@\"");
        command.args(["-c", &limiting, "sh", env!("CARGO_BIN_EXE_tidegate")]).stdin(Stdio::null());
        Self::listening(Process::start(command, &toml), redis).await
    }

    async fn listening(mut process: Process, redis: Option<RequestedRedis>) -> Self {
        let listening = until("\"listening\" event of the gateway", async || {
            if let Some(status) = process.child.try_wait().expect("a child can be waited for") {
                panic!("the gateway ended with {status}");
            }
            process.log.event("listening")
        })
        .await;
        let port = |name: &str| {
            let text = field(&listening, name).and_then(Value::as_str);
            text.and_then(|text| text.parse().ok())
                .unwrap_or_else(|| panic!("no address in field {name:?} of {listening}"))
        };
        Self { public: port("public"), admin: port("admin"), process, _redis: redis, _tunnel: None }
    }

    /// Starts a gateway that is expected to exit by itself, and returns its exit code and its log.
    pub async fn start_failing(toml: impl ToString) -> (Option<i32>, String) {
        let mut process = Process::spawn(&toml.to_string(), &[]);
        let status = process.wait().await;
        (status.code(), process.log.text())
    }

    /// The address of the public port.
    pub fn addr(&self) -> SocketAddr {
        self.public
    }

    /// The address of the admin port.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// The path of the config file, for tests that change it.
    pub fn config_file(&self) -> PathBuf {
        self.process.directory.path().join("gateway.toml")
    }

    /// Whether `text` has been logged.
    pub fn stderr_contains(&self, text: &str) -> bool {
        self.process.log.text().contains(text)
    }

    /// Waits for a log line that contains `text`, and returns it.
    pub async fn wait_for_log(&self, text: &str) -> String {
        until(&format!("log line with {text:?}"), async || self.process.log.line(text)).await
    }

    /// Waits for the first log line of the event called `name`.
    pub async fn wait_for_event(&self, name: &str) -> Value {
        until(&format!("event {name:?}"), async || self.process.log.event(name)).await
    }

    /// Every log line of the event called `name` that has been written so far.
    pub fn log_events(&self, name: &str) -> Vec<Value> {
        self.process.log.events(name).collect()
    }

    /// The number of log lines of the event called `name`.
    pub fn events(&self, name: &str) -> usize {
        self.process.log.events(name).count()
    }

    /// The time of the newest log line in Unix seconds, by the gateway's clock.
    pub fn log_time(&self) -> i64 {
        let newest = self.process.log.lines().lines.last().cloned().expect("a line");
        let line: Value = serde_json::from_str(&newest).expect("JSON");
        let time = line["timestamp"].as_str().expect("a time");
        let date = Command::new("date").args(["-d", time, "+%s"]).output().expect("date");
        let seconds = String::from_utf8(date.stdout).expect("text");
        seconds.trim().parse().expect("a number")
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until the process has exited. `None` means that a signal ended it.
    pub async fn wait_exit(&mut self) -> Option<i32> {
        let status = self.process.wait().await;
        status.code()
    }

    /// Sends SIGTERM and returns the exit code.
    pub async fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.wait_exit().await
    }

    /// The sum of all series of `name` that have all of `labels`, or 0 if there is none.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let page = http::get(self.admin, "/metrics").await;
        assert_eq!(page.status, 200, "GET /metrics");
        sum_of_series(&page.text(), name, labels)
    }

    /// Waits until [`Gateway::metric`] is `value`.
    pub async fn wait_for_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        until(&format!("{name}{labels:?} of {value}"), async || {
            (self.metric(name, labels).await == value).then_some(())
        })
        .await
    }

    /// Sends `POST path` to the admin port with the API key.
    pub async fn api(&self, path: &str, body: Value) -> http::Response {
        let key = format!("Bearer {API_KEY}");
        http::post(self.admin, path, &[("authorization", &key)], &body).await
    }

    /// Publishes `data` to `channel` through the server API.
    pub async fn publish(&self, channel: &str, data: Value) {
        let answer = self.api("/v1/publish", json!({"channel": channel, "data": data})).await;
        assert_eq!(answer.status, 200, "publish: {}", answer.text());
    }

    /// Issues a connection token through the server API, for example for `{"user_id":1,"username":"ana"}`.
    pub async fn token(&self, body: Value) -> String {
        let answer = self.api("/v1/tokens", body).await;
        assert_eq!(answer.status, 200, "issue a token: {}", answer.text());
        answer.json()["connection_token"].as_str().expect("a connection_token").to_owned()
    }

    /// The number of bytes of an entry of `/proc/PID/status`, such as `VmData` or `RssAnon`.
    pub fn memory(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("a size in kB");
        kib.parse::<u64>().expect("a number") * 1024
    }
}

/// The field `name` of a JSON log line, whether the formatter flattens events or nests them in `fields`.
fn field<'a>(line: &'a Value, name: &str) -> Option<&'a Value> {
    line.get(name).or_else(|| line.get("fields")?.get(name))
}

/// Reads the Prometheus text format: `name{label="value",…} number`.
fn sum_of_series(page: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let mut sum = 0.0;
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let (found, its_labels) = series.split_once('{').unwrap_or((series, ""));
        let its_labels = format!(",{its_labels}");
        let fits = |&(key, value): &(&str, &str)| its_labels.contains(&format!(",{key}={value:?}"));
        if found == name && labels.iter().all(fits) {
            sum += value.parse::<f64>().expect("a sample's value");
        }
    }
    sum
}

struct Process {
    child: Child,
    log: Log,
    directory: TempDir,
}

impl Process {
    fn spawn(toml: &str, env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.envs(env.iter().copied()).stdin(Stdio::null());
        Self::start(command, toml)
    }

    /// Passes the socket as standard input; a shell moves it to file descriptor 3 and then becomes the gateway.
    fn spawn_with_socket(toml: &str, socket: &std::net::TcpListener, name: &str) -> Self {
        let handing_over = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$@\"";
        let mut command = Command::new("sh");
        command
            .args(["-c", handing_over, "sh", env!("CARGO_BIN_EXE_tidegate")])
            .env("LISTEN_FDNAMES", name)
            .stdin(OwnedFd::from(socket.try_clone().expect("a copy of the socket")));
        Self::start(command, toml)
    }

    fn start(mut command: Command, toml: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let config = directory.path().join("gateway.toml");
        std::fs::write(&config, toml).expect("the config file");
        let log = Log::new();
        let child = command
            .args(["serve", "--config"])
            .arg(&config)
            .stderr(log.stderr())
            .spawn()
            .expect("the gateway's binary starts");
        Self { child, log, directory }
    }

    fn signal(&self, signal: Signal) {
        process::signal(&self.child, signal);
    }

    async fn wait(&mut self) -> ExitStatus {
        until("end of the gateway's process", async || self.child.try_wait().unwrap()).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of gateway {} ---\n{}", self.child.id(), self.log.text());
        }
    }
}

/// What the process has written to stderr. It is a file, and not a pipe that a thread reads, so that a test which has
/// seen the answer of the gateway also sees what was logged before it.
struct Log {
    file: File,
    read: Mutex<ReadLines>,
}

/// The whole lines that have been read.
#[derive(Default)]
struct ReadLines {
    lines: Vec<String>,
    /// What was read of a line that is not whole yet.
    rest: Vec<u8>,
    position: u64,
}

impl Log {
    fn new() -> Self {
        let file = tempfile::tempfile().expect("a file for the log");
        Self { file, read: Mutex::default() }
    }

    fn stderr(&self) -> Stdio {
        self.file.try_clone().expect("a copy of the file").into()
    }

    /// Reads what was written since the last call, without the position that the process writes at.
    fn lines(&self) -> MutexGuard<'_, ReadLines> {
        let mut read = self.read.lock().unwrap();
        let mut buffer = [0; 64 * 1024];
        while let Ok(length @ 1..) = self.file.read_at(&mut buffer, read.position) {
            read.position += length as u64;
            read.rest.extend_from_slice(&buffer[..length]);
        }
        let end = read.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole: Vec<u8> = read.rest.drain(..end).collect();
        let whole = String::from_utf8_lossy(&whole);
        read.lines.extend(whole.lines().map(|line| line.trim_end().to_owned()));
        read
    }

    fn text(&self) -> String {
        self.lines().lines.join("\n")
    }

    fn line(&self, text: &str) -> Option<String> {
        self.lines().lines.iter().find(|line| line.contains(text)).cloned()
    }

    fn events(&self, name: &str) -> impl Iterator<Item = Value> + use<> {
        let lines = self.lines().lines.clone();
        let name = name.to_owned();
        lines.into_iter().filter_map(move |line| {
            let value: Value = serde_json::from_str(&line).ok()?;
            (field(&value, "event")?.as_str()? == name).then_some(value)
        })
    }

    fn event(&self, name: &str) -> Option<Value> {
        self.events(name).next()
    }
}

#[test]
fn series_are_summed_by_their_labels() {
    let page = "# TYPE a counter\na{route=\"x\",code=\"1\"} 2\na{route=\"x\",code=\"2\"} 3\n\
                a{route=\"y\",code=\"1\"} 5\nab 7\nc{status_code=\"1\"} 11\n";
    assert_eq!(sum_of_series(page, "a", &[]), 10.0);
    assert_eq!(sum_of_series(page, "a", &[("route", "x")]), 5.0);
    assert_eq!(sum_of_series(page, "a", &[("code", "1"), ("route", "x")]), 2.0);
    assert_eq!(sum_of_series(page, "ab", &[]), 7.0);
    assert_eq!(sum_of_series(page, "c", &[("code", "1")]), 0.0);
}
