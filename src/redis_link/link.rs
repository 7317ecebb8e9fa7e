//! An open connection with the checks that its supervisor makes: whether the server answers, and whether it is the
//! primary.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::health::{DEMOTED, Health, Server};
use super::{ConnectionError, RedisFailure};

/// A connection is lost if the answers to a check take longer than this.
const CHECK_DEADLINE: Duration = Duration::from_secs(2);

/// A connection that its supervisor checks, and the server that it leads to.
#[derive(Clone)]
pub struct MonitoredLink {
    pub(super) connection: MultiplexedConnection,
    pub(super) server: Arc<Server>,
    /// Set if the library does not drive the connection by itself.
    pub(super) _driver: Option<Driver>,
}

/// The task that drives a connection. It ends when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Driver {
    _task: Arc<AbortOnDrop>,
}

struct AbortOnDrop(JoinHandle<()>);

impl Driver {
    pub fn spawn(driver: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { _task: Arc::new(AbortOnDrop(tokio::spawn(driver))) }
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl MonitoredLink {
    /// Checks that the server answers and is the primary. If it is not, all connections to that server are given up.
    pub(super) async fn check(&mut self, health: &Health) -> Result<(), ConnectionError> {
        match timeout(CHECK_DEADLINE, is_primary(&mut self.connection)).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => {
                self.server.demoted(health);
                Err(DEMOTED.into())
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(format!("no PONG within {CHECK_DEADLINE:?}").into()),
        }
    }

    /// Gives up all connections to this server if `failure` says that it has become a replica.
    pub(super) fn inspect(&self, health: &Health, failure: &RedisFailure) {
        if let RedisFailure::Refused(error) = failure
            && error.code() == Some("READONLY")
        {
            self.server.demoted(health);
        }
    }
}

/// Sends PING, and HELLO for the server's role, which is what ROLE reports as well. HELLO needs no permission, and a
/// connection in RESP3 has begun with it.
pub(super) async fn is_primary(connection: &mut MultiplexedConnection) -> redis::RedisResult<bool> {
    let mut pipeline = redis::pipe();
    pipeline.cmd("PING").cmd("HELLO");
    let mut answers: Vec<redis::RedisResult<Value>> =
        pipeline.ignore_errors().query_async(connection).await?;
    // An unknown role counts as that of a primary: a write decides.
    let role = answers.pop().and_then(Result::ok).and_then(role);
    if let Some(Err(error)) = answers.pop() {
        return Err(error);
    }
    Ok(role.is_none_or(|role| role != b"replica"))
}

/// The role in an answer to HELLO.
fn role(hello: Value) -> Option<Vec<u8>> {
    let Value::Map(fields) = hello else { return None };
    let bytes = |value| match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    };
    fields
        .into_iter()
        .find_map(|(name, value)| (bytes(name)? == b"role").then_some(value))
        .and_then(bytes)
}
