//! One shared connection for commands, and the task that keeps it alive.
//!
//! The supervisor owns the connection: it alone opens it, declares it lost and opens the next one.
//! Everybody else borrows a clone for one command, and can at most raise a suspicion, which makes the
//! supervisor ask for a sign of life now instead of at the next tick.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult};
use redis::{ScriptInvocation, ServerErrorKind};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::open::{COMMAND_DEADLINE, PING_DEADLINE, PING_INTERVAL, client, connect};
use super::{Backoff, RedisFailure};
use crate::config::RedisUrl;
use crate::shutdown::Shutdown;
use crate::telemetry;

/// A supervised connection for commands; clones share it, from any thread. It ends with the last of them.
#[derive(Clone)]
pub struct Commands {
    shared: Arc<Shared>,
    _supervised: Arc<DropGuard>,
}

struct Shared {
    /// `Some` exactly while the last PING was answered; written by the supervisor alone.
    link: ArcSwapOption<MultiplexedConnection>,
    /// Whether `link` is there, for those who wait for it.
    up: watch::Sender<bool>,
    /// Wakes the supervisor: a command got no answer, or the answer of a server that is the wrong one.
    suspicion: Notify,
    /// A server that turned into a replica still answers PINGs, but its name may by now lead elsewhere.
    read_only: AtomicBool,
    name: &'static str,
    /// Seconds after `began` at which a refusal was last logged, plus one; 0 = never.
    refusal_logged: AtomicU64,
    began: Instant,
}

impl Commands {
    /// Checks `url` and starts the supervisor on the current runtime. `name` is the log and metric
    /// label. A Redis that cannot be reached is no error: the supervisor keeps trying.
    pub fn start(url: &RedisUrl, name: &'static str, shutdown: &Shutdown) -> Result<Self, String> {
        let client = client(url)?;
        telemetry::engine::redis_configured(name);
        let shared = Arc::new(Shared {
            link: ArcSwapOption::empty(),
            up: watch::Sender::new(false),
            suspicion: Notify::new(),
            read_only: AtomicBool::new(false),
            name,
            refusal_logged: AtomicU64::new(0),
            began: Instant::now(),
        });
        let mut supervisor = Supervisor { client, shared: shared.clone() };
        let shutdown = shutdown.clone();
        let wanted = CancellationToken::new();
        let supervised = Arc::new(wanted.clone().drop_guard());
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.killed() => {}
                () = wanted.cancelled() => {}
                () = supervisor.run() => {}
            }
            supervisor.shared.set(None);
        });
        Ok(Self { shared, _supervised: supervised })
    }

    /// One command, one answer, within two seconds.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisFailure> {
        self.ask(async |mut link| command.query_async(&mut link).await).await
    }

    /// EVALSHA, with SCRIPT LOAD where the server does not know it yet; within two seconds in all.
    pub async fn invoke<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, RedisFailure> {
        self.ask(async |mut link| script.invoke_async(&mut link).await).await
    }

    /// All commands of `pipeline` in one write, their answers within two seconds. An error answer to
    /// one of them is the answer to all, though the others ran.
    pub async fn pipeline<T: FromRedisValue>(
        &self,
        pipeline: &Pipeline,
    ) -> Result<T, RedisFailure> {
        self.ask(async |mut link| pipeline.query_async(&mut link).await).await
    }

    /// An error answer, as every other.
    pub(super) fn judged(&self, error: RedisError) -> RedisFailure {
        self.shared.judge(error)
    }

    /// Whether the last PING was answered, and each change of it, also one that was taken back.
    pub fn ups(&self) -> watch::Receiver<bool> {
        self.shared.up.subscribe()
    }

    /// Whether the last PING was answered.
    pub fn is_up(&self) -> bool {
        self.shared.link.load().is_some()
    }

    /// Whether there is a connection now or within `deadline`; for a start that need not race it.
    pub async fn wait_up(&self, deadline: Duration) -> bool {
        let mut up = self.shared.up.subscribe();
        timeout(deadline, up.wait_for(|up| *up)).await.is_ok_and(|seen| seen.is_ok())
    }

    async fn ask<T, F: Future<Output = RedisResult<T>>>(
        &self,
        command: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T, RedisFailure> {
        let link = self.shared.link.load_full().ok_or(RedisFailure::Unavailable)?;
        // The library's own deadline begins when the command is written; this one covers the wait
        // for a slot and a second round trip of a script as well.
        let answer = timeout(COMMAND_DEADLINE, command(MultiplexedConnection::clone(&link))).await;
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.shared.judge(error)),
            Err(_) => {
                self.shared.suspicion.notify_one();
                Err(RedisFailure::Unavailable)
            }
        }
    }
}

impl Shared {
    /// Tells an answer from the lack of one, and suspects the connection where that is due.
    fn judge(&self, error: RedisError) -> RedisFailure {
        if error.kind() == ErrorKind::Io || error.is_unrecoverable_error() {
            self.suspicion.notify_one();
            return RedisFailure::Unavailable;
        }
        if error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly) {
            self.read_only.store(true, Ordering::Relaxed);
            self.suspicion.notify_one();
        }
        telemetry::engine::redis_refused(self.name, &error.to_string(), self.is_news());
        RedisFailure::Refused(error)
    }

    /// At most once in ten seconds: a full Redis refuses every command.
    fn is_news(&self) -> bool {
        let now = self.began.elapsed().as_secs() + 1;
        let last = self.refusal_logged.load(Ordering::Relaxed);
        let news = last == 0 || now >= last + 10;
        news && self
            .refusal_logged
            .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    fn set(&self, link: Option<MultiplexedConnection>) {
        let up = link.is_some();
        self.link.store(link.map(Arc::new));
        self.up.send_replace(up);
    }
}

/// Alone writes `shared.link`.
struct Supervisor {
    client: Client,
    shared: Arc<Shared>,
}

impl Supervisor {
    async fn run(&mut self) {
        let mut backoff = Backoff::new();
        let mut down_since = Instant::now();
        let mut first = true;
        loop {
            let link = self.open(&mut backoff).await;
            telemetry::engine::redis_connected(
                self.shared.name,
                (!first).then(|| down_since.elapsed()),
            );
            first = false;
            self.shared.read_only.store(false, Ordering::Relaxed);
            self.shared.set(Some(link.clone()));

            let reason = self.watch(link, &mut backoff).await;
            self.shared.set(None);
            down_since = Instant::now();
            telemetry::engine::redis_lost(self.shared.name, &reason);
            sleep(backoff.next()).await;
        }
    }

    /// Tries until there is a connection.
    async fn open(&self, backoff: &mut Backoff) -> MultiplexedConnection {
        let mut attempt = 0u32;
        loop {
            let shared = Arc::clone(&self.shared);
            match connect(&self.client, move || shared.suspicion.notify_one()).await {
                Ok(link) => return link,
                Err(reason) => {
                    telemetry::engine::redis_connect_failed(self.shared.name, attempt, &reason);
                    attempt = attempt.saturating_add(1);
                    sleep(backoff.next()).await;
                }
            }
        }
    }

    /// Returns why the connection is lost.
    async fn watch(&self, mut link: MultiplexedConnection, backoff: &mut Backoff) -> String {
        loop {
            let quiet = timeout(PING_INTERVAL, self.shared.suspicion.notified()).await.is_err();
            if self.shared.read_only.load(Ordering::Relaxed) {
                return "the server has become read-only".to_owned();
            }
            match timeout(PING_DEADLINE, redis::cmd("PING").exec_async(&mut link)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return format!("no PONG within {PING_DEADLINE:?}"),
            }
            // Only a connection that has held for a while may be lost without waiting longer.
            if quiet {
                backoff.reset();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis_link::test_server::RedisServer;

    const SOON: Duration = Duration::from_secs(10);

    async fn down(commands: &Commands) {
        let mut up = commands.shared.up.subscribe();
        timeout(SOON, up.wait_for(|up| !up)).await.expect("lost in time").unwrap();
    }

    #[tokio::test]
    async fn commands_scripts_and_pipelines_are_answered() {
        let server = RedisServer::start();
        let shutdown = Shutdown::new();
        let commands = Commands::start(&server.url(), "test", &shutdown).unwrap();
        assert!(commands.wait_up(SOON).await);
        let () = commands.query(redis::cmd("SET").arg("a").arg(1)).await.unwrap();
        let script = redis::Script::new("return redis.call('INCR', KEYS[1])");
        let two: i64 = commands.invoke(&script.key("a")).await.unwrap();
        let (three, four): (i64, i64) = commands
            .pipeline(redis::pipe().cmd("INCR").arg("a").cmd("INCR").arg("a"))
            .await
            .unwrap();
        assert_eq!((two, three, four), (2, 3, 4));
    }

    #[tokio::test]
    async fn commands_can_be_given_from_any_task() {
        let server = RedisServer::start();
        let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
        assert!(commands.wait_up(SOON).await);
        let script = redis::Script::new("return 1");
        let task = tokio::spawn(async move {
            commands.invoke::<i64>(&script.key("a")).await.unwrap()
                + commands.query::<i64>(redis::cmd("STRLEN").arg("a")).await.unwrap()
        });
        assert_eq!(task.await.unwrap(), 1);
    }

    #[tokio::test]
    async fn an_error_answer_is_refused_and_the_connection_stays() {
        let server = RedisServer::start();
        let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
        assert!(commands.wait_up(SOON).await);
        let failure = commands.query::<()>(&redis::cmd("NONSENSE")).await.unwrap_err();
        assert!(matches!(failure, RedisFailure::Refused(_)), "{failure}");
        let () = commands
            .query(redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("1"))
            .await
            .unwrap();
        let failure = commands.query::<()>(redis::cmd("SET").arg("a").arg("b")).await.unwrap_err();
        assert!(matches!(&failure, RedisFailure::Refused(e) if e.code() == Some("OOM")));
        assert!(commands.is_up());
    }

    #[tokio::test]
    async fn a_server_that_is_down_at_first_is_found_later() {
        let mut server = RedisServer::start();
        server.kill();
        let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
        assert!(!commands.is_up());
        let failure = commands.query::<()>(&redis::cmd("PING")).await.unwrap_err();
        assert!(matches!(failure, RedisFailure::Unavailable), "{failure}");
        server.restart();
        assert!(commands.wait_up(SOON).await);
    }

    #[tokio::test]
    async fn a_lost_server_fails_commands_at_once_and_is_found_again() {
        let mut server = RedisServer::start();
        let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
        assert!(commands.wait_up(SOON).await);
        server.kill();
        down(&commands).await;
        assert!(matches!(
            commands.query::<()>(&redis::cmd("PING")).await,
            Err(RedisFailure::Unavailable)
        ));
        server.restart();
        assert!(commands.wait_up(SOON).await);
        let () = commands.query(&redis::cmd("PING")).await.unwrap();
    }

    #[tokio::test]
    async fn a_server_that_hangs_is_noticed() {
        let server = RedisServer::start();
        let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
        assert!(commands.wait_up(SOON).await);
        server.pause();
        assert!(matches!(
            commands.query::<()>(&redis::cmd("PING")).await,
            Err(RedisFailure::Unavailable)
        ));
        down(&commands).await;
        server.resume();
        assert!(commands.wait_up(SOON).await);
    }

    #[tokio::test]
    async fn a_read_only_server_is_connected_to_again() {
        let server = RedisServer::start();
        let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
        assert!(commands.wait_up(SOON).await);
        let id = |commands: Commands| async move {
            commands.query::<i64>(redis::cmd("CLIENT").arg("ID")).await.ok()
        };
        let before = id(commands.clone()).await;
        let replica_of =
            |host: &str, port: &str| redis::cmd("REPLICAOF").arg(host).arg(port).to_owned();
        let () = commands.query(&replica_of("127.0.0.1", "1")).await.unwrap();
        let failure = commands.query::<()>(redis::cmd("SET").arg("a").arg(1)).await.unwrap_err();
        assert!(matches!(failure, RedisFailure::Refused(_)), "{failure}");
        down(&commands).await;
        assert!(commands.wait_up(SOON).await);
        assert_ne!(id(commands.clone()).await, before);
    }

    #[tokio::test]
    async fn being_killed_ends_the_connection() {
        let server = RedisServer::start();
        let shutdown = Shutdown::new();
        let commands = Commands::start(&server.url(), "test", &shutdown).unwrap();
        assert!(commands.wait_up(SOON).await);
        shutdown.force();
        down(&commands).await;
        assert!(!commands.is_up());
    }
}
