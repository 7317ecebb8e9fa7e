//! Facts about orders that come from this or another node.

use tracing::{info, warn};

use super::definitions::{labels, metrics, words};
use super::log::AUDIT;

metrics! {
    /// Orders, and replies to them, that reached this node.
    ORDERS = counter "tidegate_control_orders_total" [outcome: words(&[OrderOutcome::LABELS])];
}

labels! {
    /// What became of one that reached this node.
    pub enum OrderOutcome {
        Done = "done",
        /// A thread of this node has not answered in time.
        Incomplete = "incomplete",
        /// Too many at once.
        Dropped = "dropped",
        TooLarge = "too_large",
        /// Of a version or kind that this node does not know.
        Unknown = "unknown",
        Malformed = "malformed",
    }
}

/// An order, or a reply to one, came from another node or from this.
pub fn order_received(outcome: OrderOutcome) {
    let label = outcome.label();
    ORDERS.at([label]).increment(1);
    if outcome != OrderOutcome::Done {
        warn!(event = "order_not_done", outcome = label, "an order was not carried out in full");
    }
}

/// A server asked this node to have connections closed; an audit event. `by` says what `id` is.
/// `reached` is how many were closed, and how many nodes answered of how many; `None` = the order could
/// not be sent.
pub fn disconnect_ordered(by: &'static str, id: &str, code: u16, reached: Option<(u64, u64, u64)>) {
    match reached {
        Some((closed, answered, asked)) => info!(
            target: AUDIT,
            event = "disconnect_ordered",
            by, id, code, closed, answered, asked, "connections were closed by order"
        ),
        None => {
            warn!(target: AUDIT, event = "disconnect_failed", by, id, code, "an order could not be sent");
        }
    }
}
