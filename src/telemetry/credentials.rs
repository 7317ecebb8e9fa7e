//! Facts about the credentials behind open connections.

use metrics::counter;
use tracing::{debug, info};

use crate::protocol::ConnectionId;

/// A client offered other credentials for its connection; `refused` is a word of a fixed set that says why
/// they were not taken.
pub fn refreshed(connection: ConnectionId, refused: Option<&'static str>) {
    let outcome = refused.unwrap_or("refreshed");
    counter!("tidegate_refreshes_total", "outcome" => outcome).increment(1);
    match refused {
        None => info!(event = "credentials_refreshed", connection = %connection),
        // The engine's own facts say so once; this is one line for each client that asks.
        Some("engine") => debug!(event = "refresh_refused", connection = %connection, outcome),
        Some(_) => info!(event = "refresh_refused", connection = %connection, outcome),
    }
}

/// A client was told that its credentials end soon.
pub fn notice_sent(connection: ConnectionId, expires_in: u64) {
    counter!("tidegate_expiry_notices_total").increment(1);
    debug!(event = "expiry_notice_sent", connection = %connection, expires_in);
}
