//! The engine: connections to Redis, the subscription, and the canary that checks publications end to end.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::definitions::{self, Configured, REDIS, buckets, metrics, millis, words};
use crate::protocol::label_enum;

metrics! {
    /// 1 while Redis answers on this connection, is the primary, and accepts what the node sends over it.
    REDIS_UP = gauge "tidegate_redis_up" [connection: REDIS];
    /// Attempts to connect to Redis.
    REDIS_CONNECTS = counter "tidegate_redis_connects_total" [
        connection: REDIS,
        outcome: words(&[Connect::LABELS]),
    ];
    /// Reconnects to Redis after a connection was lost.
    REDIS_RECONNECTS = counter "tidegate_redis_reconnects_total" [connection: REDIS];
    /// Connections to Redis that were lost.
    REDIS_LOST = counter "tidegate_redis_lost_total" [connection: REDIS];
    /// Commands that Redis answered with an error.
    REDIS_REFUSALS = counter "tidegate_redis_refusals_total" [connection: REDIS];
    /// Probes of a connection that found commands which Redis refuses, or had no answer.
    REDIS_PROBE_FAILURES = counter "tidegate_redis_probe_failures_total" [connection: REDIS];
    /// 1 while all channels are subscribed, in a cluster on all shards; absent with the memory engine.
    SUBSCRIPTION_LIVE = gauge "tidegate_redis_subscription_live", late;
    /// Live subscriptions that were lost.
    SUBSCRIPTION_LOSSES = counter "tidegate_redis_subscription_losses_total";
    /// Failed attempts to connect and subscribe.
    SUBSCRIPTION_FAILURES = counter "tidegate_redis_subscription_failures_total";
    /// Channels whose subscription Redis refused.
    SUBSCRIPTION_REFUSALS = counter "tidegate_redis_subscription_refusals_total";
    /// Round trip of the node's own test publication through Redis, sent about every 3 s.
    CANARY_SECONDS = histogram "tidegate_canary_seconds" in buckets::REQUEST;
    /// Test publications that did not come back from Redis in time. The node is not ready then; in a cluster, if that is so of all shards.
    CANARY_FAILURES = counter "tidegate_canary_failures_total";
}

label_enum! {
    enum Connect {
        Ok => "ok",
        Failed => "failed",
    }
}

/// A connection to Redis is configured. Its series appear in the scrapes.
pub fn redis_configured(connection: &'static str) {
    definitions::register_configured(METRICS, Configured::Redis, connection);
}

/// A connection is up; `down_for` is how long it was down, or `None` for the first connection.
pub fn redis_connected(connection: &'static str, down_for: Option<Duration>) {
    REDIS_UP.at([connection]).set(1.0);
    REDIS_CONNECTS.at([connection, Connect::Ok.label()]).increment(1);
    match down_for {
        None => info!(event = "redis_connected", redis = connection, "connected to Redis"),
        Some(down_for) => {
            REDIS_RECONNECTS.at([connection]).increment(1);
            info!(
                event = "redis_reconnected",
                redis = connection,
                away_ms = millis(down_for),
                "reconnected to Redis"
            );
        }
    }
}

/// An attempt to connect failed. `attempt` counts from 0 since the last connection: the first one is logged as a
/// warning, and then every 60th, which is about once a minute.
pub fn redis_connect_failed(connection: &'static str, attempt: u32, reason: &str) {
    REDIS_UP.at([connection]).set(0.0);
    REDIS_CONNECTS.at([connection, Connect::Failed.label()]).increment(1);
    if attempt.is_multiple_of(60) {
        warn!(
            event = "redis_connect_failed",
            redis = connection,
            attempt,
            reason,
            "{CONNECT_FAILED}"
        );
    } else {
        debug!(
            event = "redis_connect_failed",
            redis = connection,
            attempt,
            reason,
            "{CONNECT_FAILED}"
        );
    }
}

const CONNECT_FAILED: &str = "failed to connect to Redis";

/// A connection that was up is lost.
pub fn redis_lost(connection: &'static str, reason: &str) {
    REDIS_UP.at([connection]).set(0.0);
    REDIS_LOST.at([connection]).increment(1);
    warn!(event = "redis_lost", redis = connection, reason, "lost a connection to Redis");
}

/// The nodes of a cluster and their slots cannot be read. It is logged as a warning if it `changed`.
pub fn cluster_unknown(connection: &str, reason: &str, changed: bool) {
    if changed {
        warn!(event = "redis_cluster_unknown", redis = connection, reason, "{CLUSTER_UNKNOWN}");
    } else {
        debug!(event = "redis_cluster_unknown", redis = connection, reason, "{CLUSTER_UNKNOWN}");
    }
}

const CLUSTER_UNKNOWN: &str = "failed to read which node of the Redis cluster has which slots";

/// Slots have moved, or a node of the cluster has come, gone or been promoted. `masters` have slots; not
/// `complete` if some slots have no node.
pub fn cluster_changed(connection: &str, masters: usize, complete: bool) {
    info!(
        event = "redis_cluster_changed",
        redis = connection,
        masters,
        complete,
        "the nodes of the Redis cluster or their slots have changed"
    );
}

/// A node is no master of the cluster any more. Its series is that of another node if it `is_replaced`; otherwise it has
/// no value from now on.
pub fn cluster_node_gone(connection: &'static str, address: &str, is_replaced: bool) {
    if !is_replaced {
        REDIS_UP.at([connection]).set(f64::NAN);
    }
    info!(
        event = "redis_cluster_node_gone",
        redis = connection,
        address,
        "a node of the Redis cluster is no master any more"
    );
}

/// Redis answered `command` with an error; a `warning` where it does not repeat itself. The name is empty for one of
/// several commands.
pub fn redis_refused(connection: &'static str, command: &str, reason: &str, warning: bool) {
    REDIS_REFUSALS.at([connection]).increment(1);
    if warning {
        warn!(event = "redis_refused", redis = connection, command, reason, "{REFUSED}");
    } else {
        debug!(event = "redis_refused", redis = connection, command, reason, "{REFUSED}");
    }
}

/// Redis refuses `commands` that this node needs. It is logged if `changed`: the probe before had another result.
pub fn redis_probe_failed(connection: &'static str, commands: &str, reason: &str, changed: bool) {
    REDIS_UP.at([connection]).set(0.0);
    REDIS_PROBE_FAILURES.at([connection]).increment(1);
    if changed {
        warn!(
            event = "redis_probe_failed",
            redis = connection,
            command = commands,
            reason,
            "Redis refuses what this node needs; the node is not ready"
        );
    }
}

/// Redis accepts what this node needs. It is logged if the connection `had_problem` before.
pub fn redis_probe_passed(connection: &'static str, had_problem: bool) {
    REDIS_UP.at([connection]).set(1.0);
    if had_problem {
        info!(
            event = "redis_probe_passed",
            redis = connection,
            "Redis accepts what this node needs"
        );
    }
}

/// The user of a connection may not use MULTI and DISCARD, with which permissions are probed.
pub fn redis_probe_limited(connection: &'static str) {
    warn!(
        event = "redis_probe_limited",
        redis = connection,
        "MULTI and DISCARD are not permitted: missing permissions are only noticed when they are needed"
    );
}

/// Whether a connection that was just opened can be used for what the node needs.
pub fn redis_usable(connection: &'static str, usable: bool) {
    REDIS_UP.at([connection]).set(if usable { 1.0 } else { 0.0 });
}

const REFUSED: &str = "Redis refused a command";

/// The URL in `key` disables the check of the server's certificate.
pub fn redis_certificate_unchecked(key: &str) {
    warn!(
        event = "redis_certificate_unchecked",
        key, "ssl_cert_reqs=none: the Redis server's certificate is not verified"
    );
}

/// All channels are subscribed and confirmed.
pub fn subscription_live(channels: usize) {
    SUBSCRIPTION_LIVE.get().set(1.0);
    info!(event = "subscription_live", channels, "subscribed to Redis");
}

/// A subscription that was live is lost.
pub fn subscription_lost(why: &str) {
    SUBSCRIPTION_LIVE.get().set(0.0);
    SUBSCRIPTION_LOSSES.get().increment(1);
    warn!(event = "subscription_lost", why, "lost the subscription to Redis");
}

/// An attempt to connect and subscribe failed. It is logged as often as [`redis_connect_failed`].
pub fn subscription_failed(attempt: u32, why: &str) {
    SUBSCRIPTION_LIVE.get().set(0.0);
    SUBSCRIPTION_FAILURES.get().increment(1);
    if attempt.is_multiple_of(60) {
        warn!(event = "subscription_failed", attempt, why, "{SUBSCRIBE_FAILED}");
    } else {
        debug!(event = "subscription_failed", attempt, why, "{SUBSCRIBE_FAILED}");
    }
}

/// All channels of a shard of the cluster are subscribed, and with it those of `all` shards or not.
pub fn shard_live(shard: &str, channels: usize, all: bool) {
    SUBSCRIPTION_LIVE.get().set(if all { 1.0 } else { 0.0 });
    info!(event = "subscription_live", shard, channels, "subscribed to Redis");
}

/// A subscription to a shard that was live is lost.
pub fn shard_lost(shard: &str, why: &str) {
    SUBSCRIPTION_LIVE.get().set(0.0);
    SUBSCRIPTION_LOSSES.get().increment(1);
    warn!(event = "subscription_lost", shard, why, "lost the subscription to Redis");
}

/// An attempt to connect and subscribe to a shard failed. It is logged as often as [`redis_connect_failed`].
pub fn shard_failed(shard: &str, attempt: u32, why: &str) {
    SUBSCRIPTION_LIVE.get().set(0.0);
    SUBSCRIPTION_FAILURES.get().increment(1);
    if attempt.is_multiple_of(60) {
        warn!(event = "subscription_failed", shard, attempt, why, "{SUBSCRIBE_FAILED}");
    } else {
        debug!(event = "subscription_failed", shard, attempt, why, "{SUBSCRIBE_FAILED}");
    }
}

const SUBSCRIBE_FAILED: &str = "failed to subscribe to Redis";

/// Redis refused to subscribe a single channel.
pub fn subscription_refused(error: &redis::RedisError) {
    SUBSCRIPTION_REFUSALS.get().increment(1);
    warn!(event = "subscription_refused", %error, "Redis refused to subscribe a channel");
}

/// The sentinels of the server that they know by `name` have named it for the first time, or another one.
pub fn sentinels_named(name: &str, address: &str) {
    info!(event = "redis_primary_named", name, address, "the sentinels name a primary");
}

/// A test publication came back from Redis.
pub fn canary_returned(after: Duration) {
    CANARY_SECONDS.get().record(after);
}

/// A test publication did not come back, on one server or from a `shard` of a cluster. It is logged if `changed`: the one
/// before came back, or failed for another reason.
pub fn canary_failed(shard: Option<&str>, why: &'static str, changed: bool) {
    CANARY_FAILURES.get().increment(1);
    if changed {
        warn!(event = "canary_failed", shard, why, "publications do not come back from Redis");
    }
}

/// A test publication came back after others had not.
pub fn canary_recovered(shard: Option<&str>) {
    info!(event = "canary_recovered", shard, "publications come back from Redis again");
}
