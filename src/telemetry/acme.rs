//! Certificates that are ordered (ACME).

use std::time::Duration;

use tracing::{info, warn};

use super::definitions::{metrics, words};
use crate::clock;
use crate::protocol::label_enum;

metrics! {
    /// Orders for a certificate (ACME): whether there is one, or the order failed and is tried again.
    ORDERS = counter "tidegate_acme_orders_total" [outcome: words(&[AcmeOutcome::LABELS])];
}

label_enum! {
    /// How an order ended.
    pub enum AcmeOutcome {
        Issued => "issued",
        Failed => "failed",
    }
}

/// An order begins.
pub fn ordering(domains: &[String], directory: &str) {
    let domains = domains.join(" ");
    info!(event = "acme_order", domains, directory, "ordering a certificate");
}

/// A certificate was ordered, and is valid until then.
pub fn ordered(domains: &[String], not_after: u64) {
    ORDERS.at([AcmeOutcome::Issued.label()]).increment(1);
    let domains = domains.join(" ");
    let not_after = clock::to_rfc3339(Duration::from_secs(not_after));
    info!(event = "acme_certificate", domains, not_after, "a certificate was ordered");
}

/// An order has failed. The next attempt is after `wait`.
pub fn order_failed(domains: &[String], reason: &str, wait: Duration) {
    ORDERS.at([AcmeOutcome::Failed.label()]).increment(1);
    let (domains, retry_in_s) = (domains.join(" "), wait.as_secs());
    warn!(
        event = "acme_order_failed",
        domains,
        reason,
        retry_in_s,
        "no certificate could be ordered; a reload tries again at once"
    );
}
