//! The task that drives a socket, whoever writes to it.

use std::cell::Cell;
use std::fmt;
use std::task::{Context, Waker};

/// Wakes the driving task, once there is one.
#[derive(Default)]
pub(super) struct DrivingTask(Cell<Option<Waker>>);

impl DrivingTask {
    /// Makes the task of `cx` the driving one.
    pub fn set(&self, cx: &Context<'_>) {
        if !self.with_waker(|waker| waker.will_wake(cx.waker())) {
            self.0.set(Some(cx.waker().clone()));
        }
    }

    pub fn wake(&self) {
        self.with_waker(Waker::wake_by_ref);
    }

    /// Calls `act`, which must not come back to this, with the waker of the task.
    pub fn with_waker<T>(&self, act: impl FnOnce(&Waker) -> T) -> T {
        let waker = self.0.take();
        let result = act(waker.as_ref().unwrap_or(Waker::noop()));
        self.0.set(waker);
        result
    }
}

impl fmt::Debug for DrivingTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrivingTask").finish_non_exhaustive()
    }
}
