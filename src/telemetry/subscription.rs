//! Facts about the node's subscription to Redis.

use tracing::{info, warn};

use super::definitions::metrics;

metrics! {
    /// 1 while all channels are subscribed; on the memory engine there is none.
    LIVE = gauge "tidegate_redis_subscription_live", late;
    /// Live subscriptions that were lost.
    LOSSES = counter "tidegate_redis_subscription_losses_total";
    /// Attempts to subscribe that failed.
    FAILURES = counter "tidegate_redis_subscription_failures_total";
    /// Channels that Redis refused.
    REFUSALS = counter "tidegate_redis_subscription_refusals_total";
}

/// All channels are subscribed and confirmed.
pub fn live(channels: usize) {
    LIVE.get().set(1.0);
    info!(event = "subscription_live", channels, "subscriptions to Redis are live");
}

/// A connection that was live is given up.
pub fn lost(why: &str) {
    LIVE.get().set(0.0);
    LOSSES.get().increment(1);
    warn!(event = "subscription_lost", why, "the subscription to Redis was lost");
}

/// An attempt to connect and subscribe failed.
pub fn failed(why: &str) {
    LIVE.get().set(0.0);
    FAILURES.get().increment(1);
    warn!(event = "subscription_failed", why, "Redis cannot be subscribed to");
}

/// Redis refused a single channel.
pub fn refused(error: &redis::RedisError) {
    REFUSALS.get().increment(1);
    warn!(event = "subscription_refused", %error, "Redis refused a channel");
}
