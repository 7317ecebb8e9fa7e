//! Facts about the node's subscription to Redis.

use metrics::{counter, gauge};
use tracing::{info, warn};

/// All channels are subscribed and confirmed.
pub fn live(channels: usize) {
    gauge!("tidegate_redis_subscription_live").set(1.0);
    info!(event = "subscription_live", channels, "subscriptions to Redis are live");
}

/// A connection that was live is given up.
pub fn lost(why: &'static str) {
    gauge!("tidegate_redis_subscription_live").set(0.0);
    counter!("tidegate_redis_subscription_losses_total").increment(1);
    warn!(event = "subscription_lost", why, "the subscription to Redis was lost");
}

/// An attempt to connect and subscribe failed.
pub fn failed(why: &'static str) {
    gauge!("tidegate_redis_subscription_live").set(0.0);
    counter!("tidegate_redis_subscription_failures_total").increment(1);
    warn!(event = "subscription_failed", why, "Redis cannot be subscribed to");
}

/// Redis refused a single channel.
pub fn refused(error: &redis::RedisError) {
    counter!("tidegate_redis_subscription_refusals_total").increment(1);
    warn!(event = "subscription_refused", %error, "Redis refused a channel");
}
