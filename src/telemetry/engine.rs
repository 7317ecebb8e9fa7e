//! Facts about the engine: connections to Redis.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::definitions::{self, Configured, REDIS, metrics, words};

metrics! {
    /// 1 while Redis answers on this connection.
    UP = gauge "tidegate_redis_up" [connection: REDIS];
    /// Attempts to connect to Redis.
    CONNECTS = counter "tidegate_redis_connects_total" [connection: REDIS, outcome: words(&[&["ok", "failed"]])];
    /// Connections to Redis that were made again.
    RECONNECTS = counter "tidegate_redis_reconnects_total" [connection: REDIS];
    /// Connections to Redis that were lost.
    LOST = counter "tidegate_redis_lost_total" [connection: REDIS];
    /// Commands that Redis refused.
    REFUSALS = counter "tidegate_redis_refusals_total" [connection: REDIS];
}

/// There is such a connection, or will be when Redis is reached.
pub fn redis_wanted(connection: &'static str) {
    definitions::begin_configured(Configured::Redis, connection);
}

/// A connection is usable; `away` is how long it was not, unless it is the first.
pub fn redis_connected(connection: &'static str, away: Option<Duration>) {
    UP.at([connection]).set(1.0);
    CONNECTS.at([connection, "ok"]).increment(1);
    match away {
        None => info!(event = "redis_connected", redis = connection, "connected to Redis"),
        Some(away) => {
            RECONNECTS.at([connection]).increment(1);
            info!(
                event = "redis_reconnected",
                redis = connection,
                away_ms = millis(away),
                "connected to Redis again"
            );
        }
    }
}

/// An attempt failed; `attempt` counts from 0 since the last connection. The first is logged as a
/// warning, and every 60th after it, which is about once a minute.
pub fn redis_connect_failed(connection: &'static str, attempt: u32, reason: &str) {
    UP.at([connection]).set(0.0);
    CONNECTS.at([connection, "failed"]).increment(1);
    if attempt.is_multiple_of(60) {
        warn!(event = "redis_connect_failed", redis = connection, attempt, reason, "{FAILED}");
    } else {
        debug!(event = "redis_connect_failed", redis = connection, attempt, reason, "{FAILED}");
    }
}

/// A connection that was up is so no longer.
pub fn redis_lost(connection: &'static str, reason: &str) {
    UP.at([connection]).set(0.0);
    LOST.at([connection]).increment(1);
    warn!(event = "redis_lost", redis = connection, reason, "a connection to Redis was lost");
}

/// Redis answered a command with an error; `loud` for the few of them that are worth a warning.
pub fn redis_refused(connection: &'static str, reason: &str, loud: bool) {
    REFUSALS.at([connection]).increment(1);
    if loud {
        warn!(event = "redis_refused", redis = connection, reason, "{REFUSED}");
    } else {
        debug!(event = "redis_refused", redis = connection, reason, "{REFUSED}");
    }
}

/// The URL of `key` says that its server's certificate is not to be checked.
pub fn redis_certificate_unchecked(key: &str) {
    warn!(
        event = "redis_certificate_unchecked",
        key, "ssl_cert_reqs=none: whoever answers at this address is taken for the Redis server"
    );
}

const FAILED: &str = "Redis cannot be reached";
const REFUSED: &str = "Redis refused a command";

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
