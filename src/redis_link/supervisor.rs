//! Supervises connections to Redis: connects, sets up and serves a connection, detects its loss, waits, and starts
//! again.
//!
//! This module decides when a connection is lost and when to try the next one. A [`Supervised`] decides what is
//! sent over the connection. Invariant: the back-off is reset only after a connection was up for a whole
//! [`CHECK_INTERVAL`] without a report of a problem.

use std::borrow::Cow;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep, timeout};

use super::reason::describe;
use super::{Backoff, Health, MonitoredLink, RedisFailure};
use crate::shutdown::Shutdown;
use crate::telemetry;

/// The interval between checks of a connection.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// What [`supervise`] does with each connection.
pub trait Supervised {
    type Connection;

    /// Opens a connection and sets it up, each step within a deadline. Users of the connection report problems to
    /// `health`.
    async fn connect(&mut self, health: &Health) -> Result<Self::Connection, ConnectionError>;

    /// Returns the links that are checked while `connection` is served: they must answer, and lead to a primary.
    fn links_to_check(&self, connection: &Self::Connection) -> Vec<MonitoredLink>;

    /// Serves the connection until `lost` completes or one of its own steps fails. `lost` must be polled,
    /// since it makes the checks. Returns why the connection is given up.
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
        describe(&error).into()
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
                let links = supervised.links_to_check(&connection);
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

/// Completes when one of `links` does not answer in time or leads to a replica, or when `health` reports that the
/// connection must be given up.
async fn watch(
    mut links: Vec<MonitoredLink>,
    health: Health,
    backoff: &mut Backoff,
) -> ConnectionError {
    loop {
        let is_quiet = timeout(CHECK_INTERVAL, health.raised()).await.is_err();
        if let Some(reason) = health.give_up_reason() {
            return reason.into();
        }
        for link in &mut links {
            if let Err(error) = link.check(&health).await {
                return error;
            }
        }
        if is_quiet {
            backoff.reset();
        }
    }
}

#[cfg(test)]
mod tests;
