//! How much running replies keep for `on_complete`, and ended ones that wait to be taken: bounded for each upstream, and
//! part of the memory budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The most bytes that the running replies of one upstream keep together. What comes on top is left out of their texts.
pub(super) const MAX_RUNNING_BYTES: usize = 64 * 1024 * 1024;

/// What all upstreams keep, in bytes.
static ALL: AtomicUsize = AtomicUsize::new(0);

/// Returns how many bytes of replies this process keeps for `on_complete`.
pub fn kept_bytes() -> usize {
    ALL.load(Ordering::Relaxed)
}

/// A bound of bytes that several replies share. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct KeptBytes(Arc<Bound>);

#[derive(Debug)]
struct Bound {
    used: AtomicUsize,
    max: usize,
}

impl KeptBytes {
    pub fn new(max: usize) -> Self {
        Self(Arc::new(Bound { used: AtomicUsize::new(0), max }))
    }

    /// The part of one reply, which has nothing yet.
    pub fn share(&self) -> KeptShare {
        KeptShare { of: self.clone(), bytes: 0 }
    }
}

/// The part of one reply, which is given back when it is dropped.
#[derive(Debug)]
pub struct KeptShare {
    of: KeptBytes,
    bytes: usize,
}

impl KeptShare {
    /// Takes so many bytes more. Returns false if there is no room, and takes nothing then.
    pub(super) fn grow(&mut self, more: usize) -> bool {
        let Bound { used, max } = &*self.of.0;
        let before = used.fetch_add(more, Ordering::Relaxed);
        if before.saturating_add(more) > *max {
            used.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        ALL.fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
        true
    }
}

impl Drop for KeptShare {
    fn drop(&mut self) {
        self.of.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
        ALL.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
