//! One message on its way to its upstream.
//!
//! From before a message is handed over until its answer is written, publications for the sender's
//! connection are held back, so that no event of a task can overtake its `task_queued`.

use std::rc::Rc;
use std::time::Instant;

use super::admission::Admission;
use super::history_mark::HistoryMark;
use super::message::{MessageContext, RelayedMessage};
use super::{CheckedMessage, Refusal, Replies, Sender, ThreadConfig};
use crate::generations::PendingReply;
use crate::limits::Lease;
use crate::socket::HoldGuard;
use crate::telemetry::replies::ReplySpans;
use crate::telemetry::spans::{Kind, Span, SpanStatus};
use crate::telemetry::upstreams::RequestOutcome;
use crate::upstream::{Accepted, Message, RelayError, ReplySource};

/// What became of a message, for its answer. Publications are held back until the guard is dropped.
pub enum RelayOutcome {
    /// The upstream took the message.
    Queued {
        task_id: Box<str>,
        /// The upstream streams its reply.
        is_streamed: bool,
        hold: HoldGuard,
    },
    /// The upstream took the message when it was sent first.
    Duplicate {
        task_id: String,
    },
    Refused(Refusal),
    /// The upstream did not take the message.
    Failed {
        error: RelayError,
        hold: HoldGuard,
    },
    /// Nobody waits for an answer any more.
    SenderLeft,
}

impl RelayOutcome {
    /// The task that the message became, if it was relayed now.
    fn task_id(&self) -> Option<&str> {
        match self {
            Self::Queued { task_id, .. } => Some(task_id),
            _ => None,
        }
    }
}

impl Replies {
    /// Relays a message, unless it was relayed before or a limit of its user forbids it. On
    /// [`RelayOutcome::Queued`] its reply is being published or monitored.
    pub async fn relay(self: &Rc<Self>, sender: &Sender, message: CheckedMessage) -> RelayOutcome {
        let mut span = message_span(sender, &message);
        let task_id = uuid::Uuid::new_v4().to_string();
        let mark = HistoryMark::new(&self.history, sender.task(&task_id));
        // In a box, so that it takes no room while the message is on its way.
        let (claim, admission) = match sender.needs_admission(&message) {
            true => Box::pin(self.admit(sender, &message, &mark)).await,
            false => (None, Ok(Admission { lease: None, turn: None })),
        };
        let outcome = match admission {
            Ok(admission) => {
                let relay = self.begin_relay(sender, message, admission, mark, span);
                self.finish_relay(sender, relay).await
            }
            Err((why, outcome)) => {
                span.set_outcome(why.label(), SpanStatus::Refused);
                outcome
            }
        };
        if let Some(claim) = claim {
            self.settle_claim(claim, outcome.task_id());
        }
        outcome
    }

    fn begin_relay(
        &self,
        sender: &Sender,
        checked: CheckedMessage,
        Admission { lease, turn }: Admission,
        mark: HistoryMark,
        message_span: Span,
    ) -> Box<Relay> {
        let config = self.config();
        let received_at = checked.received_at;
        let parent = message_span.context().unwrap_or(sender.trace);
        let request_span = config.upstreams.span(sender.upstream(), &parent);
        let trace = request_span.context().unwrap_or(sender.trace);
        let message = sender.message(checked, trace, &mark.task().id);
        // A worker may be faster than the upstream's answer, and than the engine: its reply is tracked, its
        // publications wait, and the mark is set before the upstream knows of the message, so that clients that
        // connect meanwhile see all of it.
        let pending = self.services.generations.tracker.register_pending(&sender.channel);
        let hold = sender.socket.hold();
        Box::new(Relay {
            config,
            message,
            received_at,
            mark,
            lease,
            turn,
            pending,
            hold,
            message_span,
            request_span,
        })
    }

    async fn finish_relay(self: &Rc<Self>, sender: &Sender, relay: Box<Relay>) -> RelayOutcome {
        // Does nothing if the admission has set it.
        relay.mark.set().await;
        let relayed = relay.config.upstreams.relay(sender.upstream(), &relay.message).await;
        let (leases, outcome) = self.take_relayed(sender, *relay, relayed);
        self.release(leases).await;
        if let RelayOutcome::Queued { .. } = &outcome {
            // Once the client knows the task, another node ends the reply if this one dies. Does nothing on the memory
            // engine; a Redis that is not available is told later.
            self.services.generations.ledger.flush().await;
        }
        outcome
    }

    /// Begins to publish or to monitor the reply. Returns the leases that no reply holds, and the outcome.
    fn take_relayed(
        self: &Rc<Self>,
        sender: &Sender,
        relay: Relay,
        relayed: Result<Accepted, RelayError>,
    ) -> ([Option<Lease>; 2], RelayOutcome) {
        let Relay { message, received_at, mark, lease, turn, pending, hold, .. } = relay;
        let Relay { mut message_span, mut request_span, .. } = relay;
        let (outcome, status) = span_outcome(&relayed);
        request_span.set_outcome(outcome.label(), status);
        drop(request_span);
        let Accepted { task_id, reply, task } = match relayed {
            Ok(accepted) => accepted,
            Err(error) => {
                message_span.set_outcome(outcome.label(), status);
                return ([lease, turn], RelayOutcome::Failed { error, hold });
            }
        };
        sender.route_metrics.messages.queued(sender.log_fields(), Some(&task_id));
        let mark = match *mark.task().id == *task_id {
            true => mark,
            false => mark.named(sender.task(&task_id)),
        };
        let context =
            |span| MessageContext { received_at, spans: ReplySpans::start(span, &task_id) };
        let is_streamed = matches!(reply, ReplySource::Stream(_));
        let mut leases = [None, None];
        // From here on the task can be cancelled.
        match reply {
            ReplySource::Stream(reply) => {
                let context = context(message_span);
                self.publish_reply(
                    sender,
                    RelayedMessage { mark, lease, turn, task, context },
                    (&message.message_id, &message.data),
                    reply,
                );
            }
            ReplySource::Worker => {
                let context = context(message_span);
                self.monitor_reply(
                    sender,
                    RelayedMessage { mark, lease, turn, task, context },
                    pending,
                );
            }
            ReplySource::None => {
                message_span.set_outcome(outcome.label(), status);
                leases = [lease, turn];
            }
        }
        (leases, RelayOutcome::Queued { task_id: task_id.into(), is_streamed, hold })
    }
}

/// A message on its way to its upstream, and what it holds meanwhile. In a box, because the future that sends it would
/// otherwise have room for it more than once, and move it.
struct Relay {
    config: Rc<ThreadConfig>,
    message: Message,
    received_at: Instant,
    mark: HistoryMark,
    lease: Option<Lease>,
    turn: Option<Lease>,
    pending: PendingReply,
    hold: HoldGuard,
    message_span: Span,
    request_span: Span,
}

/// The span of a message since its arrival, under that of its connection's handshake.
fn message_span(sender: &Sender, message: &CheckedMessage) -> Span {
    let mut span = Span::start(&sender.trace, Kind::Internal, || "message".into());
    if span.is_recording() {
        span.backdate(message.received_at.elapsed());
        span.set_connection(sender.log_fields());
        span.set("http.route", sender.route.path.as_str().to_owned());
        if let Some(id) = &message.id {
            span.set("tidegate.message_id", id.clone());
        }
    }
    span
}

/// The outcome of the span of a request.
fn span_outcome(relayed: &Result<Accepted, RelayError>) -> (RequestOutcome, SpanStatus) {
    match relayed {
        Ok(Accepted { reply: ReplySource::Stream(_), .. }) => {
            (RequestOutcome::Streaming, SpanStatus::Ok)
        }
        Ok(_) => (RequestOutcome::Taken, SpanStatus::Ok),
        Err(RelayError::Busy | RelayError::Limited(_)) => {
            (RequestOutcome::Busy, SpanStatus::Refused)
        }
        Err(RelayError::Rejected(_)) => (RequestOutcome::Rejected, SpanStatus::Refused),
        Err(RelayError::Failed) => (RequestOutcome::Failed, SpanStatus::Error),
        Err(RelayError::Redirected) => (RequestOutcome::Redirected, SpanStatus::Error),
        Err(RelayError::HeadTooLarge) => (RequestOutcome::HeadTooLarge, SpanStatus::Error),
        Err(RelayError::Malformed) => (RequestOutcome::Malformed, SpanStatus::Error),
        Err(
            RelayError::Unavailable
            | RelayError::UnavailableFor(_)
            | RelayError::TimedOut
            | RelayError::Unreachable,
        ) => (RequestOutcome::Unavailable, SpanStatus::Error),
    }
}

#[cfg(test)]
mod tests;
