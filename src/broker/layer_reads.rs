//! How far this node has read the mailbox of its channel layer, for parts that must know that nothing is on its way.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the reads of the mailbox. With a layer that has no mailbox, and without a layer, nothing is counted.
#[derive(Default)]
pub(super) struct LayerReads {
    /// The number of the latest read.
    begun: AtomicU64,
    /// The latest read that left the mailbox empty and whose messages have been appended.
    emptied: AtomicU64,
}

/// The reads at one time.
#[derive(Clone, Copy)]
pub struct ReadMark(u64);

impl LayerReads {
    /// Begins a read, and returns its number.
    pub fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The messages of a read have been appended, and there were no more.
    pub fn record_empty(&self, number: u64) {
        self.emptied.fetch_max(number, Ordering::AcqRel);
    }

    pub fn mark(&self) -> ReadMark {
        ReadMark(self.begun.load(Ordering::Acquire))
    }

    /// Whether everything that was in the mailbox at `mark` has been appended. A read that had begun by then may have
    /// missed the newest messages.
    pub fn has_passed(&self, mark: ReadMark) -> bool {
        mark.0 == 0 || self.emptied.load(Ordering::Acquire) > mark.0
    }
}

#[cfg(test)]
mod tests;
