//! Facts about the credentials behind open connections.

use super::about::{About, line};
use super::definitions::{metrics, words};
use super::tokens::CREDENTIAL_REJECTIONS;

metrics! {
    /// Credentials that were offered for open connections: taken, or why not.
    REFRESHES = counter "tidegate_refreshes_total" [
        outcome: words(&[&["refreshed", "kind", "anonymous", "other_user", "channel"], CREDENTIAL_REJECTIONS]),
    ];
    /// Clients that were told that their credentials end soon.
    EXPIRY_NOTICES = counter "tidegate_expiry_notices_total";
}

/// A client offered other credentials for its connection; `refused` is a word of a fixed set that says why
/// they were not taken. An audit event.
pub fn refreshed(about: About<'_>, refused: Option<&'static str>) {
    let outcome = refused.unwrap_or("refreshed");
    REFRESHES.at([outcome]).increment(1);
    match refused {
        None => line!(audit info, about, event = "credentials_refreshed", "credentials renewed"),
        // The engine's own facts say so once; this is one line for each client that asks.
        Some("engine") => {
            line!(audit debug, about, event = "refresh_refused", outcome, "{REFUSED}")
        }
        Some(_) => line!(audit info, about, event = "refresh_refused", outcome, "{REFUSED}"),
    }
}

const REFUSED: &str = "credentials for an open connection were refused";

/// A client was told that its credentials end soon.
pub fn notice_sent(about: About<'_>, expires_in: u64) {
    EXPIRY_NOTICES.get().increment(1);
    line!(debug, about, event = "expiry_notice_sent", expires_in, "credentials end soon");
}
