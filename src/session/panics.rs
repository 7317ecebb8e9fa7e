//! Containment of panics: one in a session closes this session with 1011, and no other.
//!
//! Whatever runs for one session on a task that others share goes through [`Session::contain`], and each task of its own
//! through [`Session::spawn`]. The panic itself is logged and counted by the hook of the process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;

use super::Session;
use crate::protocol::CloseReason;
use crate::telemetry;

impl Session {
    /// Calls `work`. If it panics, closes the session and returns `None`.
    pub(super) fn contain<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        // What is left half done belongs to this session, which ends.
        let done = catch_unwind(AssertUnwindSafe(work));
        if done.is_err() {
            self.close_after_panic();
        }
        done.ok()
    }

    /// Runs `work` on a task of its own. If it panics, closes the session.
    pub(super) fn spawn(
        self: &Rc<Self>,
        work: impl Future<Output = ()> + 'static,
    ) -> JoinHandle<()> {
        let session = Rc::clone(self);
        // In a box, because the guard below would otherwise have room for it twice, and move it.
        let work = AssertUnwindSafe(Box::pin(work));
        tokio::task::spawn_local(async move {
            if work.catch_unwind().await.is_err() {
                session.close_after_panic();
            }
        })
    }

    /// Closes the connection with 1011. Events of the client do not reach the session any more.
    pub(super) fn close_after_panic(&self) {
        if self.has_panicked.replace(true) {
            return;
        }
        telemetry::connections::session_panicked(self.log_fields());
        let close = || self.socket.close(CloseReason::InternalError);
        if catch_unwind(AssertUnwindSafe(close)).is_err() {
            self.socket.abort();
        }
    }
}

/// Panics if a test asks for it: frames `{"type":"tidegate.panic"}` and messages of this text. Release builds do not have
/// it, and other builds only with `TIDEGATE_TEST_PANICS` in the environment.
#[cfg(any(test, feature = "internals"))]
pub(super) fn panic_on_request(text: &str) {
    let is_requested = text.contains("tidegate.panic");
    assert!(
        !is_requested || std::env::var_os("TIDEGATE_TEST_PANICS").is_none(),
        "a panic that a test asked for"
    );
}
