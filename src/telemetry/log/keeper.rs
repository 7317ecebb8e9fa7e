//! What the log's own thread waits for.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// Wakes the thread when there may be something new to do.
#[derive(Default)]
pub(super) struct Keeper {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Keeper {
    pub fn wake(&self) {
        *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    /// Until `due`, or until it is woken; without either it costs nothing.
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
