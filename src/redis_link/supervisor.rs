//! The supervision of connections to Redis: connect, set up, serve, notice the loss, wait, and again.
//!
//! This module decides when a connection is lost and when the next one is tried. It leaves what is sent
//! over the connection to a [`Supervised`]. Invariant: the wait between two attempts starts over only after
//! a connection that has held for a whole [`PING_INTERVAL`] without suspicion.

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

/// From one PING to the next.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// A connection whose PONG takes longer is lost.
const PING_DEADLINE: Duration = Duration::from_secs(2);

/// What is done with one connection after the other. See [`supervise`].
pub trait Supervised {
    type Connection;

    /// Opens a connection and sets it up, each step within a deadline. Users of the connection that notice
    /// later that it does not work report it to `health`.
    async fn connect(&mut self, health: &Health) -> Result<Self::Connection, ConnectionError>;

    /// The links that have to answer PING for as long as `connection` is served.
    fn links_to_ping(&self, connection: &Self::Connection) -> Vec<MultiplexedConnection>;

    /// Serves the connection until `lost` completes or one of its own steps fails. `lost` must be polled,
    /// since it sends the PINGs. Returns why the connection is given up.
    async fn serve(
        &mut self,
        connection: Self::Connection,
        lost: BoxFuture<'_, ConnectionError>,
    ) -> ConnectionError;

    /// Called after each loss and after each failed attempt: there is no connection now.
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
    /// It is usable; `away` is how long there was none, unless it is the first.
    Connected { away: Option<Duration> },
    /// An attempt failed; `attempt` counts from 0 since the last connection.
    ConnectFailed { attempt: u32, reason: &'a str },
    /// It was usable and is given up.
    Lost { reason: &'a str },
}

impl ConnectionEvent<'_> {
    /// Records the event under the connection's `name`, as the log and the metrics of all connections to
    /// Redis know it.
    pub fn record(self, name: &'static str) {
        match self {
            Self::Connected { away } => telemetry::engine::redis_connected(name, away),
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

/// Reports of one connection's users to its supervisor. Clones are the same; no method waits.
#[derive(Clone, Default)]
pub struct Health(Arc<Signal>);

#[derive(Default)]
struct Signal {
    raised: Notify,
    given_up: OnceLock<&'static str>,
}

impl Health {
    /// Reports that the connection may be lost: a PING is sent now instead of at the next interval.
    pub fn suspect(&self) {
        self.0.raised.notify_one();
    }

    /// Makes the supervisor give the connection up. The first reason is logged.
    pub fn give_up(&self, reason: &'static str) {
        let _ = self.0.given_up.set(reason);
        self.0.raised.notify_one();
    }
}

/// Keeps one connection after the other, until the process is killed.
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
                    away: lost_at.map(|lost_at| lost_at.elapsed()),
                });
                let pinged = supervised.links_to_ping(&connection);
                let lost = watch(pinged, health, &mut backoff).boxed();
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

/// Completes when one of `pinged` does not answer in time, or when `health` says that the connection is to
/// be given up.
async fn watch(
    mut pinged: Vec<MultiplexedConnection>,
    health: Health,
    backoff: &mut Backoff,
) -> ConnectionError {
    loop {
        let is_quiet = timeout(PING_INTERVAL, health.0.raised.notified()).await.is_err();
        if let Some(reason) = health.0.given_up.get() {
            return (*reason).into();
        }
        for connection in &mut pinged {
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
mod tests {
    use super::*;

    /// Connects as `outcomes` say, `None` = it fails, and loses each connection after the time that is
    /// given there.
    struct Script {
        outcomes: Vec<Option<Duration>>,
        health: Option<Health>,
        events: std::cell::RefCell<Vec<String>>,
        pauses: Vec<Duration>,
        shutdown: Shutdown,
    }

    impl Supervised for Script {
        type Connection = Duration;

        async fn connect(&mut self, health: &Health) -> Result<Duration, ConnectionError> {
            if self.outcomes.is_empty() {
                self.shutdown.force();
                return std::future::pending().await;
            }
            self.health = Some(health.clone());
            self.outcomes.remove(0).ok_or_else(|| "refused".into())
        }

        fn links_to_ping(&self, _: &Duration) -> Vec<MultiplexedConnection> {
            Vec::new()
        }

        async fn serve(
            &mut self,
            held: Duration,
            lost: BoxFuture<'_, ConnectionError>,
        ) -> ConnectionError {
            let health = self.health.take().unwrap();
            tokio::spawn(async move {
                sleep(held).await;
                health.give_up("cut");
                health.give_up("later");
            });
            lost.await
        }

        fn disconnected(&mut self) {
            self.events.borrow_mut().push("disconnected".to_owned());
        }

        fn record(&self, event: ConnectionEvent<'_>) {
            self.events.borrow_mut().push(match event {
                ConnectionEvent::Connected { away } => format!("connected {}", away.is_some()),
                ConnectionEvent::ConnectFailed { attempt, reason } => {
                    format!("failed {attempt} {reason}")
                }
                ConnectionEvent::Lost { reason } => format!("lost {reason}"),
            });
        }

        async fn pause(&mut self, pause: Duration) {
            self.pauses.push(pause);
            sleep(pause).await;
        }
    }

    async fn run(outcomes: Vec<Option<Duration>>) -> Script {
        let (events, shutdown) = (std::cell::RefCell::default(), Shutdown::new());
        let mut script = Script {
            outcomes,
            health: None,
            events,
            pauses: Vec::new(),
            shutdown: shutdown.clone(),
        };
        supervise(&mut script, &shutdown).await;
        script
    }

    #[tokio::test]
    async fn every_step_is_recorded_in_order() {
        let script = run(vec![None, None, Some(Duration::ZERO), None]).await;
        assert_eq!(
            *script.events.borrow(),
            [
                "disconnected",
                "failed 0 refused",
                "disconnected",
                "failed 1 refused",
                "connected false",
                "disconnected",
                "lost cut",
                "disconnected",
                "failed 0 refused",
            ]
        );
    }

    #[tokio::test]
    async fn only_a_connection_that_has_held_resets_the_back_off() {
        let (brief, long) = (Duration::from_millis(10), PING_INTERVAL + Duration::from_millis(200));
        let script = run(vec![None, None, None, Some(brief), Some(long), None]).await;
        let first = Duration::from_millis(50);
        assert!(script.pauses[3] > 2 * first, "{:?}", script.pauses);
        assert!(script.pauses[4] <= first, "{:?}", script.pauses);
    }
}
