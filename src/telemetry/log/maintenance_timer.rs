//! The timer of the log's maintenance thread.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// Lets the thread sleep until something is due, or until there may be something new to do.
#[derive(Default)]
pub(super) struct MaintenanceTimer {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl MaintenanceTimer {
    pub fn wake(&self) {
        *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    /// Sleeps until `due` or until [`Self::wake`] is called; `None` = only until then.
    pub fn sleep(&self, due: Option<Instant>) {
        let woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut woken = match due {
            Some(due) => {
                let time = due.saturating_duration_since(Instant::now());
                let slept = self.changed.wait_timeout_while(woken, time, |woken| !*woken);
                slept.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let slept = self.changed.wait_while(woken, |woken| !*woken);
                slept.unwrap_or_else(PoisonError::into_inner)
            }
        };
        *woken = false;
    }
}
