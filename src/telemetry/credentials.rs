//! Facts about the credentials behind open connections.

use tracing::{debug, info};

use super::definitions::{metrics, words};
use super::tokens::CREDENTIAL_REJECTIONS;
use crate::protocol::ConnectionId;

metrics! {
    /// Credentials that were offered for open connections: taken, or why not.
    REFRESHES = counter "tidegate_refreshes_total" [
        outcome: words(&[&["refreshed", "kind", "anonymous", "other_user", "channel"], CREDENTIAL_REJECTIONS]),
    ];
    /// Clients that were told that their credentials end soon.
    EXPIRY_NOTICES = counter "tidegate_expiry_notices_total";
}

/// A client offered other credentials for its connection; `refused` is a word of a fixed set that says why
/// they were not taken.
pub fn refreshed(connection: ConnectionId, refused: Option<&'static str>) {
    let outcome = refused.unwrap_or("refreshed");
    REFRESHES.at([outcome]).increment(1);
    match refused {
        None => info!(event = "credentials_refreshed", connection = %connection),
        // The engine's own facts say so once; this is one line for each client that asks.
        Some("engine") => debug!(event = "refresh_refused", connection = %connection, outcome),
        Some(_) => info!(event = "refresh_refused", connection = %connection, outcome),
    }
}

/// A client was told that its credentials end soon.
pub fn notice_sent(connection: ConnectionId, expires_in: u64) {
    EXPIRY_NOTICES.get().increment(1);
    debug!(event = "expiry_notice_sent", connection = %connection, expires_in);
}
