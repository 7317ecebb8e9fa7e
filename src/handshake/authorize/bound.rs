//! The bound of questions to one authorize URL: so many are asked at once, so many wait, and one client has a share of
//! both.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::config::AuthorizeUrl;
use crate::protocol::SenderKey;
use crate::shares::{SharePermit, Shares, share_of};

/// How many questions wait or are in flight for each that may be in flight.
const WAITING: usize = 16;

/// Shared by all threads.
pub(super) struct QuestionBound {
    /// The questions in flight and those that wait.
    entered: Shares<SenderKey>,
    in_flight: Shares<SenderKey>,
    released: Arc<Notify>,
}

/// A permit for one question.
#[expect(dead_code, reason = "a guard does its work when it is dropped")]
pub(super) struct QuestionPermit {
    /// Given back before those that wait for it are notified.
    in_flight: SharePermit<SenderKey>,
    entered: SharePermit<SenderKey>,
    released: NotifyOnDrop,
}

struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

/// As many questions wait as may, of all clients or of this one.
pub(super) struct TooManyQuestions;

impl QuestionBound {
    pub fn new(config: &AuthorizeUrl) -> Self {
        let max = config.max_in_flight;
        let waiting = max.saturating_mul(WAITING);
        Self {
            entered: Shares::new(waiting, share_of(waiting, 0)),
            in_flight: Shares::new(max, share_of(max, config.max_in_flight_per_user)),
            released: Arc::default(),
        }
    }

    /// Waits for a permit of `client`. The caller sets the deadline.
    pub async fn enter(&self, client: &SenderKey) -> Result<QuestionPermit, TooManyQuestions> {
        let entered = self.entered.try_acquire(client).map_err(|_| TooManyQuestions)?;
        loop {
            let released = self.released.notified();
            let mut released = std::pin::pin!(released);
            released.as_mut().enable();
            if let Ok(in_flight) = self.in_flight.try_acquire(client) {
                let released = NotifyOnDrop(Arc::clone(&self.released));
                return Ok(QuestionPermit { in_flight, entered, released });
            }
            released.await;
        }
    }
}

#[cfg(test)]
mod tests;
