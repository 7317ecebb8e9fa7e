//! Supervises connections to Redis: connects, sets up and serves a connection, detects its loss, waits, and starts
//! again.
//!
//! This module decides when a connection is lost and when to try the next one. A [`Supervised`] decides what is
//! sent over the connection. Invariant: the back-off is reset only after a connection was up for a whole
//! [`PING_INTERVAL`] without a report of a problem.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::{Backoff, RedisFailure};
use crate::shutdown::Shutdown;
use crate::telemetry;

/// The interval between PINGs.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// A connection is lost if the answer to a PING takes longer than this.
const PING_DEADLINE: Duration = Duration::from_secs(2);

/// What [`supervise`] does with each connection.
pub trait Supervised {
    type Connection;

    /// Opens a connection and sets it up, each step within a deadline. Users of the connection report problems to
    /// `health`.
    async fn connect(&mut self, health: &Health) -> Result<Self::Connection, ConnectionError>;

    /// Returns the links that must answer PINGs while `connection` is served.
    fn links_to_ping(&self, connection: &Self::Connection) -> Vec<MultiplexedConnection>;

    /// Serves the connection until `lost` completes or one of its own steps fails. `lost` must be polled,
    /// since it sends the PINGs. Returns why the connection is given up.
    async fn serve(
        &mut self,
        connection: Self::Connection,
        lost: BoxFuture<'_, ConnectionError>,
    ) -> ConnectionError;

    /// Called after each loss and after each failed attempt, when there is no connection.
    fn disconnected(&mut self);

    /// Logs and counts `event`.
    fn record(&self, event: ConnectionEvent<'_>);

    /// Waits before the next attempt.
    async fn pause(&mut self, pause: Duration) {
        sleep(pause).await;
    }
}

/// What happens to a supervised connection, for logs and metrics.
#[derive(Debug, Clone, Copy)]
pub enum ConnectionEvent<'a> {
    /// The connection is usable. `downtime` is how long there was none; `None` for the first connection.
    Connected { downtime: Option<Duration> },
    /// An attempt failed; `attempt` counts from 0 since the last connection.
    ConnectFailed { attempt: u32, reason: &'a str },
    /// A usable connection was lost or given up.
    Lost { reason: &'a str },
}

impl ConnectionEvent<'_> {
    /// Records the event in the log and metrics that all connections to Redis share, under the connection's `name`.
    pub fn record(self, name: &'static str) {
        match self {
            Self::Connected { downtime } => telemetry::engine::redis_connected(name, downtime),
            Self::ConnectFailed { attempt, reason } => {
                telemetry::engine::redis_connect_failed(name, attempt, reason);
            }
            Self::Lost { reason } => telemetry::engine::redis_lost(name, reason),
        }
    }
}

/// Why a connection could not be made or was given up, for the log.
#[derive(Debug)]
pub struct ConnectionError(Cow<'static, str>);

impl ConnectionError {
    pub fn reason(&self) -> &str {
        &self.0
    }
}

impl From<&'static str> for ConnectionError {
    fn from(reason: &'static str) -> Self {
        Self(reason.into())
    }
}

impl From<String> for ConnectionError {
    fn from(reason: String) -> Self {
        Self(reason.into())
    }
}

impl From<redis::RedisError> for ConnectionError {
    fn from(error: redis::RedisError) -> Self {
        error.to_string().into()
    }
}

impl From<RedisFailure> for ConnectionError {
    fn from(failure: RedisFailure) -> Self {
        match failure {
            RedisFailure::Unavailable => "no answer".into(),
            RedisFailure::Refused(error) => error.into(),
        }
    }
}

/// Reports from the users of a connection to its supervisor. Clones share their state; no method blocks.
#[derive(Clone, Default)]
pub struct Health(Arc<Signal>);

#[derive(Default)]
struct Signal {
    raised: Notify,
    give_up_reason: OnceLock<&'static str>,
}

impl Health {
    /// Reports that the connection may be lost, so that a PING is sent at once.
    pub fn suspect(&self) {
        self.0.raised.notify_one();
    }

    /// Makes the supervisor give the connection up. The first reason is logged.
    pub fn give_up(&self, reason: &'static str) {
        // A reason that is set already is kept.
        let _ = self.0.give_up_reason.set(reason);
        self.0.raised.notify_one();
    }
}

/// Keeps a connection open, replacing it after each loss, until the process is killed.
pub async fn supervise(supervised: &mut impl Supervised, shutdown: &Shutdown) {
    tokio::select! {
        () = reconnect_forever(supervised) => {}
        () = shutdown.killed() => {}
    }
}

async fn reconnect_forever(supervised: &mut impl Supervised) {
    let mut backoff = Backoff::new();
    let (mut attempt, mut lost_at) = (0_u32, None::<Instant>);
    loop {
        let health = Health::default();
        match supervised.connect(&health).await {
            Ok(connection) => {
                attempt = 0;
                supervised.record(ConnectionEvent::Connected {
                    downtime: lost_at.map(|lost_at| lost_at.elapsed()),
                });
                let links = supervised.links_to_ping(&connection);
                let lost = watch(links, health, &mut backoff).boxed();
                let error = supervised.serve(connection, lost).await;
                lost_at = Some(Instant::now());
                supervised.disconnected();
                supervised.record(ConnectionEvent::Lost { reason: error.reason() });
            }
            Err(error) => {
                supervised.disconnected();
                supervised
                    .record(ConnectionEvent::ConnectFailed { attempt, reason: error.reason() });
                attempt = attempt.saturating_add(1);
            }
        }
        supervised.pause(backoff.next()).await;
    }
}

/// Completes when one of `links` does not answer in time, or when `health` reports that the connection must be
/// given up.
async fn watch(
    mut links: Vec<MultiplexedConnection>,
    health: Health,
    backoff: &mut Backoff,
) -> ConnectionError {
    loop {
        let is_quiet = timeout(PING_INTERVAL, health.0.raised.notified()).await.is_err();
        if let Some(reason) = health.0.give_up_reason.get() {
            return (*reason).into();
        }
        for connection in &mut links {
            match timeout(PING_DEADLINE, redis::cmd("PING").exec_async(connection)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error.into(),
                Err(_) => return format!("no PONG within {PING_DEADLINE:?}").into(),
            }
        }
        if is_quiet {
            backoff.reset();
        }
    }
}

#[cfg(test)]
mod tests;
