//! Facts about orders that come from this or another node.

use metrics::counter;
use tracing::{info, warn};

/// What became of one that reached this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderOutcome {
    Done,
    /// A thread of this node has not answered in time.
    Incomplete,
    /// Too many at once.
    Dropped,
    TooLarge,
    /// Of a version or kind that this node does not know.
    Unknown,
    Malformed,
}

impl OrderOutcome {
    fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Incomplete => "incomplete",
            Self::Dropped => "dropped",
            Self::TooLarge => "too_large",
            Self::Unknown => "unknown",
            Self::Malformed => "malformed",
        }
    }
}

/// An order, or a reply to one, came from another node or from this.
pub fn order_received(outcome: OrderOutcome) {
    let label = outcome.label();
    counter!("tidegate_control_orders_total", "outcome" => label).increment(1);
    if outcome != OrderOutcome::Done {
        warn!(event = "order_not_done", outcome = label, "an order was not carried out in full");
    }
}

/// Connections are to be closed by a server's order; an audit event of the node that was asked.
pub fn disconnect_ordered(
    by: &'static str,
    target: &str,
    code: u16,
    closed: u64,
    answered: u64,
    asked: u64,
) {
    info!(
        event = "disconnect_ordered",
        by, target, code, closed, answered, asked, "connections were closed by order"
    );
}
