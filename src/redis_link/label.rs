//! The labels that identify a connection in logs and metrics.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Returns `name` as a `'static` string, which metrics require. Each distinct name is leaked only once, so that
/// reloads do not leak memory.
pub(super) fn intern(name: &str) -> &'static str {
    static LABELS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

    let mut labels = LABELS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(label) = labels.get(name) {
        return label;
    }
    let label: &'static str = Box::leak(name.into());
    labels.insert(label);
    label
}

#[cfg(test)]
mod tests;
