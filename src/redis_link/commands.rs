//! A shared connection for commands.
//!
//! Only the supervisor opens the connection, declares it lost and opens the next one. All users clone it for one
//! command, and can only report that it may be lost.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, Pipeline};
use redis::{PushInfo, PushKind, RedisError, RedisResult, ScriptInvocation, ServerErrorKind};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::label;
use super::open::{self, COMMAND_DEADLINE};
use super::{ConnectionError, ConnectionEvent, Health, RedisFailure, Supervised, supervise};
use crate::config::RedisUrl;
use crate::shutdown::Shutdown;
use crate::telemetry;

/// The most commands in flight on the connection. Further ones wait, within their own deadline.
const PIPELINE: usize = 1024;

/// A supervised connection for commands, for use from any thread. Clones share it, and it ends with the last clone.
#[derive(Clone)]
pub struct Commands {
    shared: Arc<Shared>,
    _supervisor_guard: Arc<DropGuard>,
}

struct Shared {
    /// `Some` while the last PING was answered. Only the supervisor writes it.
    link: ArcSwapOption<Link>,
    /// Whether there is a `link`, for tasks that wait for it.
    up: watch::Sender<bool>,
    name: &'static str,
    /// When a refusal was last logged, in seconds after `began`, plus one; 0 if never.
    refusal_logged: AtomicU64,
    began: Instant,
}

struct Link {
    connection: MultiplexedConnection,
    health: Health,
}

impl Commands {
    /// Checks `url` and starts the supervisor on the current runtime. `name` is the label in logs and metrics. It is
    /// not an error if Redis cannot be reached: the supervisor keeps trying.
    pub fn start(url: &RedisUrl, name: &str, shutdown: &Shutdown) -> Result<Self, String> {
        let client = open::client(url)?;
        let name = label::intern(name);
        telemetry::engine::redis_configured(name);
        let shared = Arc::new(Shared {
            link: ArcSwapOption::empty(),
            up: watch::Sender::new(false),
            name,
            refusal_logged: AtomicU64::new(0),
            began: Instant::now(),
        });
        let mut supervisor = Supervisor { client, shared: shared.clone() };
        let shutdown = shutdown.clone();
        let stop = CancellationToken::new();
        let guard = Arc::new(stop.clone().drop_guard());
        tokio::spawn(async move {
            tokio::select! {
                () = supervise(&mut supervisor, &shutdown) => {}
                () = stop.cancelled() => {}
            }
            supervisor.disconnected();
        });
        Ok(Self { shared, _supervisor_guard: guard })
    }

    /// Sends one command and waits for its answer, for at most two seconds.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisFailure> {
        self.send(async |mut connection| command.query_async(&mut connection).await).await
    }

    /// Calls a script with EVALSHA, after SCRIPT LOAD if the server does not know it yet. Waits for at most two
    /// seconds in total.
    pub async fn invoke<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, RedisFailure> {
        self.send(async |mut connection| script.invoke_async(&mut connection).await).await
    }

    /// Sends all commands of `pipeline` in one write and waits for their answers, for at most two seconds.
    /// An error answer to one command is returned for all of them, although the others ran.
    pub async fn pipeline<T: FromRedisValue>(
        &self,
        pipeline: &Pipeline,
    ) -> Result<T, RedisFailure> {
        self.send(async |mut connection| pipeline.query_async(&mut connection).await).await
    }

    /// Classifies an error answer to one of several commands.
    pub(super) fn classify(&self, error: RedisError) -> RedisFailure {
        self.shared.classify(error, self.shared.link.load().as_ref().map(|link| &link.health))
    }

    /// Returns a receiver that reports whether the last PING was answered.
    pub fn subscribe_up(&self) -> watch::Receiver<bool> {
        self.shared.up.subscribe()
    }

    /// Whether the last PING was answered.
    pub fn is_up(&self) -> bool {
        self.shared.link.load().is_some()
    }

    /// Waits until there is a connection, for at most `deadline`. Returns whether there is one.
    pub async fn wait_up(&self, deadline: Duration) -> bool {
        let mut up = self.shared.up.subscribe();
        timeout(deadline, up.wait_for(|up| *up)).await.is_ok_and(|changed| changed.is_ok())
    }

    async fn send<T, F: Future<Output = RedisResult<T>>>(
        &self,
        command: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T, RedisFailure> {
        let link = self.shared.link.load_full().ok_or(RedisFailure::Unavailable)?;
        // The library's own deadline starts when the command is written. This one also covers the wait for a free
        // slot and the second round trip of a script.
        match timeout(COMMAND_DEADLINE, command(link.connection.clone())).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.shared.classify(error, Some(&link.health))),
            Err(_) => {
                link.health.suspect();
                Err(RedisFailure::Unavailable)
            }
        }
    }
}

impl Shared {
    /// Distinguishes error answers from missing answers. `health` is that of the connection that was used; errors
    /// that suggest a lost connection are reported to it.
    fn classify(&self, error: RedisError, health: Option<&Health>) -> RedisFailure {
        if error.kind() == ErrorKind::Io || error.is_unrecoverable_error() {
            health.inspect(|health| health.suspect());
            return RedisFailure::Unavailable;
        }
        // A server that became a replica still answers PINGs, but the host name may now resolve to another server.
        if error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly) {
            health.inspect(|health| health.give_up("the server has become read-only"));
        }
        telemetry::engine::redis_refused(self.name, &error.to_string(), self.take_refusal_slot());
        RedisFailure::Refused(error)
    }

    /// Returns whether to log a refusal as a warning: at most one in ten seconds, since a full Redis refuses every
    /// command.
    fn take_refusal_slot(&self) -> bool {
        let now = self.began.elapsed().as_secs() + 1;
        let last = self.refusal_logged.load(Ordering::Relaxed);
        let is_due = last == 0 || now >= last + 10;
        is_due
            && self
                .refusal_logged
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    fn set(&self, link: Option<Link>) {
        let up = link.is_some();
        self.link.store(link.map(Arc::new));
        // Failed attempts do not wake tasks that wait for a change.
        self.up.send_if_modified(|was_up| std::mem::replace(was_up, up) != up);
    }
}

/// The only writer of `shared.link`.
struct Supervisor {
    client: Client,
    shared: Arc<Shared>,
}

impl Supervised for Supervisor {
    type Connection = MultiplexedConnection;

    async fn connect(&mut self, health: &Health) -> Result<MultiplexedConnection, ConnectionError> {
        let on_end = health.clone();
        let config = AsyncConnectionConfig::new()
            .set_push_sender(move |push: PushInfo| -> Result<(), std::convert::Infallible> {
                if push.kind == PushKind::Disconnection {
                    on_end.give_up(super::CLOSED);
                }
                Ok(())
            })
            .set_response_timeout(Some(COMMAND_DEADLINE))
            .set_pipeline_buffer_size(PIPELINE);
        let connection = open::connect(&self.client, config).await?;
        // The link is published before the connection is reported, so that it can be used after the report.
        self.shared.set(Some(Link { connection: connection.clone(), health: health.clone() }));
        Ok(connection)
    }

    fn links_to_ping(&self, connection: &MultiplexedConnection) -> Vec<MultiplexedConnection> {
        vec![connection.clone()]
    }

    async fn serve(
        &mut self,
        _: MultiplexedConnection,
        lost: BoxFuture<'_, ConnectionError>,
    ) -> ConnectionError {
        lost.await
    }

    fn disconnected(&mut self) {
        self.shared.set(None);
    }

    fn record(&self, event: ConnectionEvent<'_>) {
        event.record(self.shared.name);
    }
}

#[cfg(test)]
mod tests;
