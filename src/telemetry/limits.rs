//! Facts about limits: refusals by limit, and the engine that keeps them.

use std::time::Duration;

use tracing::debug;

use super::definitions::{metrics, words};

metrics! {
    /// Refusals by a limit.
    REFUSALS = counter "tidegate_limit_refusals_total" [limit: words(&[SHARED, LOCAL])];
    /// Times at which a limit could not be asked.
    ENGINE_DOWN = counter "tidegate_limit_engine_down_total" [limit: words(&[SHARED])];
    /// Lease renewals that failed and are tried again.
    RENEWAL_FAILURES = counter "tidegate_lease_renewal_failures_total";
    /// Leases left to expire, since the engine was away.
    RELEASES_FORGOTTEN = counter "tidegate_lease_releases_forgotten_total";
}

/// Kept in the engine.
const SHARED: &[&str] =
    &["messages_per_user", "connects_per_user", "connections_per_user", "generations_per_user"];

/// Kept by this process.
const LOCAL: &[&str] =
    &["messages_per_connection", "pings_per_connection", "connections_per_ip", "connections_total"];

/// `limit` is the label of a limit; `route` is its path pattern, or empty where a limit has none.
pub fn limit_refused(limit: &'static str, route: &str, user: &str, retry_after: Duration) {
    REFUSALS.at([limit]).increment(1);
    let retry_after_ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
    debug!(
        event = "limit_refused",
        limit, route, user, retry_after_ms, "a limit refused something"
    );
}

/// A limit that this process keeps for itself refused something.
pub fn local_limit_refused(limit: &'static str) {
    REFUSALS.at([limit]).increment(1);
}

/// A limit could not be asked; why, the facts about the engine say.
pub fn limit_not_known(limit: &'static str) {
    ENGINE_DOWN.at([limit]).increment(1);
    debug!(event = "limit_not_known", limit, "a limit could not be asked");
}

/// Leases could not be renewed this time; they are tried again.
pub fn leases_not_renewed(count: usize) {
    RENEWAL_FAILURES.get().increment(1);
    debug!(event = "leases_not_renewed", count, "leases will be renewed later");
}

/// Releases that could not be told to the engine and were forgotten: their leases expire instead.
pub fn releases_forgotten(count: usize) {
    let forgotten = u64::try_from(count).unwrap_or(u64::MAX);
    RELEASES_FORGOTTEN.get().increment(forgotten);
    debug!(event = "releases_forgotten", count, "leases are left to expire");
}
