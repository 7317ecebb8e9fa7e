//! The regular check of the memory budget.

use std::time::Duration;

use crate::broker::History;
use crate::limits::MemoryBudget;
use crate::upstream::kept_bytes;

/// The interval of the checks. Threads measure at least as often.
const INTERVAL: Duration = Duration::from_secs(1);

/// Sums up what the threads have measured, until the gateway ends.
pub(super) async fn check(
    budget: MemoryBudget,
    histories: History,
    intake_bytes: impl Fn() -> usize,
) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        budget.check(histories.memory_bytes(), intake_bytes(), kept_bytes());
    }
}
