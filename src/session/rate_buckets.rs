//! What one connection may send per time, counted in the connection itself.

use std::cell::Cell;
use std::time::Duration;

use super::Session;
use crate::config::Rate;
use crate::limits::{LimitStatus, LocalBucket, Verdict};
use crate::protocol::{CloseReason, ErrorEvent};
use crate::replies::Refusal;
use crate::telemetry;
use crate::telemetry::messages::LocalLimit;

/// Pings that a client may send. Clients ping every 20 to 30 seconds.
const PINGS: Rate = Rate { count: 5, per: Duration::from_secs(1), burst: 20 };

/// Refused frames that a client is answered before it counts as flooding.
const REFUSALS: Rate = Rate { count: 1, per: Duration::from_secs(1), burst: 30 };

#[derive(Default)]
pub(super) struct RateBuckets {
    messages: Cell<LocalBucket>,
    pings: Cell<LocalBucket>,
    frames: Cell<LocalBucket>,
    refusals: Cell<LocalBucket>,
}

impl Session {
    fn rates(&self) -> &RateBuckets {
        self.rates.get_or_init(Box::default)
    }

    /// Counts one message against `messages_per_connection`.
    pub(super) fn take_message(&self) -> Verdict {
        let Some(rate) = self.client.route.borrow().limits.messages_per_connection else {
            return Verdict::Allowed;
        };
        self.take(&self.rates().messages, rate, LocalLimit::MessagesPerConnection)
    }

    /// Counts one ping, or another small frame that is bounded like pings.
    pub(super) fn take_ping(&self) -> Verdict {
        self.take(&self.rates().pings, PINGS, LocalLimit::PingsPerConnection)
    }

    /// Counts a frame that is not a message: a pong, a ping, or a fragment with little payload. Closes a client that
    /// sends too many.
    pub(super) fn take_frame(&self) {
        let Some(rate) = self.client.route.borrow().limits.frames_per_connection else { return };
        let limit = LocalLimit::FramesPerConnection;
        if let Verdict::Refused { .. } = self.take(&self.rates().frames, rate, limit) {
            self.close_over_limit(limit);
        }
    }

    /// Closes a client that is over a limit, and says which.
    pub(super) fn close_over_limit(&self, limit: LocalLimit) {
        if self.socket.is_open() {
            telemetry::messages::closed_over_limit(self.log_fields(), limit.label());
            self.socket.close_over(CloseReason::Flooding, &format!("over {limit}"));
        }
    }

    /// The status of each limit of this connection alone.
    pub(super) fn local_limits(&self) -> Vec<(LocalLimit, LimitStatus)> {
        let limits = &self.client.route.borrow().limits;
        let unused = RateBuckets::default();
        let rates = self.rates.get().map_or(&unused, |rates| rates);
        [
            (LocalLimit::MessagesPerConnection, &rates.messages, limits.messages_per_connection),
            (LocalLimit::PingsPerConnection, &rates.pings, Some(PINGS)),
            (LocalLimit::FramesPerConnection, &rates.frames, limits.frames_per_connection),
        ]
        .into_iter()
        .filter_map(|(limit, bucket, rate)| {
            Some((limit, bucket.get().status(rate?, self.services.now())))
        })
        .collect()
    }

    fn take(&self, bucket: &Cell<LocalBucket>, rate: Rate, limit: LocalLimit) -> Verdict {
        let verdict = self.take_unrecorded(bucket, rate);
        if let Verdict::Refused { .. } = verdict {
            telemetry::messages::local_limit_refused(limit);
        }
        verdict
    }

    fn take_unrecorded(&self, bucket: &Cell<LocalBucket>, rate: Rate) -> Verdict {
        let mut taken = bucket.get();
        let verdict = taken.take(rate, self.services.now());
        bucket.set(taken);
        verdict
    }

    /// Answers with an error that says when to try again.
    pub(super) fn refuse_rate(&self, retry_after: Duration, id: Option<&str>) {
        self.refuse(&Refusal::RateLimited { retry_after }.event().id(id));
    }

    /// Answers with an error. A client that is refused too often is closed.
    pub(super) fn refuse(&self, event: &ErrorEvent<'_>) {
        self.send_error(event);
        self.count_refusal();
    }

    /// Answers with an error that is not the client's fault.
    pub(super) fn send_error(&self, event: &ErrorEvent<'_>) {
        self.route_metrics.messages.refused(self.log_fields(), event.code(), event.message_id());
        self.send_event(&event.to_json());
    }

    /// Closes a client that was refused too often.
    pub(super) fn count_refusal(&self) {
        if let Verdict::Refused { .. } = self.take_unrecorded(&self.rates().refusals, REFUSALS) {
            self.socket.close(CloseReason::Flooding);
        }
    }
}
