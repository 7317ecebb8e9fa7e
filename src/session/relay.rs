//! Messages on their way upstream, one at a time and in command.
//!
//! From before a message is handed over until its `task_queued` is queued, publications for this
//! connection wait, so that no event of a task can overtake its `task_queued`.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::Session;
use super::messages::Queued;
use crate::limits::{LimitName, Verdict};
use crate::protocol::{ErrorCode, ErrorEvent, TraceContext, task_queued};
use crate::redis_link::EngineUnavailable;
use crate::telemetry::spans::{Kind, ReplySpans, Span, Went};
use crate::upstream::{Message, RelayError, Taken, TakenReply};

/// A message whose reply is looked after.
#[derive(Clone)]
pub(super) struct MessageContext {
    /// When it came.
    pub received_at: Instant,
    pub spans: ReplySpans,
}

/// For spans.
fn outcome(relayed: &Result<Taken, RelayError>) -> (&'static str, Went) {
    match relayed {
        Ok(Taken { reply: TakenReply::Streamed(_), .. }) => ("streaming", Went::Well),
        Ok(_) => ("taken", Went::Well),
        Err(RelayError::Busy) => ("busy", Went::Refused),
        Err(RelayError::Rejected(_)) => ("rejected", Went::Refused),
        Err(RelayError::Unavailable) => ("unavailable", Went::Wrong),
    }
}

fn ended(mut span: Span, outcome: &'static str, went: Went) {
    span.outcome(outcome, went);
}

impl Session {
    /// Works through the inbox; ends when it is empty.
    pub(super) async fn relay_all(self: Rc<Self>) {
        let _drain_waits_for_it = self.services.shutdown.track();
        loop {
            let next = self.inbox.borrow_mut().next();
            let Some(queued) = next else { return };
            self.relay(queued).await;
        }
    }

    async fn relay(self: &Rc<Self>, queued: Queued) {
        let route = self.client.route();
        let Some(upstream) = route.upstream.as_deref() else { return };
        let mut span = self.message_span(&queued);
        let Ok(claim) = self.turn(&queued, upstream).await else {
            return span.outcome("answered", Went::Refused);
        };
        let task_id = self.relay_now(queued, upstream, span).await;
        if let Some(claim) = claim {
            self.settle(claim, task_id);
        }
    }

    /// The task that the upstream has taken the message as; `None` = the client was told why not.
    async fn relay_now(
        self: &Rc<Self>,
        queued: Queued,
        upstream: &str,
        mut span: Span,
    ) -> Option<String> {
        let Ok(place) = self.place(queued.id.as_deref()).await else {
            span.outcome("refused", Went::Refused);
            return None;
        };
        let limited = self.user_rate().await;
        if limited != Ok(Verdict::Allowed) {
            span.outcome("refused", Went::Refused);
            self.give_back(place).await;
            self.answer_limited(limited, queued.id.as_deref());
            return None;
        }
        let received_at = queued.received_at;
        let parent = span.context().unwrap_or(self.client.trace);
        let request = self.services.terms().upstreams.span(upstream, &parent);
        let trace = request.context().unwrap_or(self.client.trace);
        let (client_id, message) = self.message(queued, trace);
        let expected = self.services.generations.tracker.register_pending(&self.client.channel);
        self.socket.hold();
        // A worker may be faster than the upstream's answer, and latecomers are to see it all.
        let (history, channel) = (&self.services.history, &self.client.channel);
        let begins = history.generation_begins(channel, &message.task_id);
        let terms = self.services.terms();
        let relayed = terms.upstreams.relay(upstream, &message);
        let (_or_they_see_less, relayed) = tokio::join!(begins, relayed);
        let (outcome, went) = outcome(&relayed);
        ended(request, outcome, went);
        let began = |taken: &Taken| {
            taken.task_id == message.task_id && !matches!(taken.reply, TakenReply::None)
        };
        if !relayed.as_ref().is_ok_and(began) {
            self.forget_generation(message.task_id);
        }
        match relayed {
            Ok(Taken { task_id, reply }) => {
                self.route_facts.message_queued(self.about(), Some(&task_id));
                // Who hears of the task can cancel it.
                match reply {
                    TakenReply::Streamed(reply) => {
                        let context = MessageContext {
                            received_at,
                            spans: ReplySpans::begin(span, &task_id),
                        };
                        self.generate(&task_id, reply, place, context);
                    }
                    TakenReply::ByWorker => {
                        let context = MessageContext {
                            received_at,
                            spans: ReplySpans::begin(span, &task_id),
                        };
                        self.monitor(expected, &task_id, place, context);
                    }
                    TakenReply::None => {
                        ended(span, outcome, went);
                        self.give_back(place).await;
                    }
                }
                let event = terms.upstreams.queued_event(upstream, &self.client.channel);
                self.say(&task_queued(event, &task_id, client_id.as_deref()));
                self.socket.release();
                Some(task_id)
            }
            Err(error) => {
                ended(span, outcome, went);
                self.give_back(place).await;
                self.answer_failure(error, client_id.as_deref());
                self.socket.release();
                None
            }
        }
    }

    /// From its arrival on, under the handshake's.
    fn message_span(&self, queued: &Queued) -> Span {
        let mut span = Span::begin(&self.client.trace, Kind::Internal, || "message".into());
        if span.is_on() {
            span.began(queued.received_at.elapsed());
            span.about(self.about());
            span.set("http.route", self.client.route.borrow().path.as_str().to_owned());
            if let Some(id) = &queued.id {
                span.set("tidegate.message_id", id.clone());
            }
        }
        span
    }

    /// It did not begin, or under another id.
    fn forget_generation(&self, task_id: String) {
        let (history, channel) = (self.services.history.clone(), self.client.channel.clone());
        if history.keeps(&channel) {
            tokio::task::spawn_local(async move {
                let _or_it_expires = history.generation_ended(&channel, &task_id).await;
            });
        }
    }

    /// Answers a message that its user may not send; false.
    pub(super) async fn check_user_limits(&self, id: Option<&str>) -> bool {
        let limited = self.user_rate().await;
        self.answer_limited(limited, id);
        limited == Ok(Verdict::Allowed)
    }

    /// The limit that all nodes share. Anonymous clients have only their connection's.
    async fn user_rate(&self) -> Result<Verdict, EngineUnavailable> {
        let route = self.client.route();
        let Some(rate) = &route.limits.messages_per_user else { return Ok(Verdict::Allowed) };
        let Some(user) = &self.client.user_id else { return Ok(Verdict::Allowed) };
        let limit = LimitName::MessagesPerUser;
        let (path, params) = (route.path.as_str(), &self.client.params);
        self.services.limits.take(limit, path, params, &user.to_string(), rate).await
    }

    fn answer_limited(&self, limited: Result<Verdict, EngineUnavailable>, id: Option<&str>) {
        match limited {
            Ok(Verdict::Allowed) => {}
            Ok(Verdict::Refused { retry_after }) => self.refuse_rate(retry_after, id),
            Err(EngineUnavailable) => self.refuse_unchecked(id),
        }
    }

    /// A limit could not be asked.
    pub(super) fn refuse_unchecked(&self, id: Option<&str>) {
        let text = "limits cannot be checked at the moment; try again";
        let event = ErrorEvent::new(ErrorCode::EngineUnavailable, text);
        self.refuse(&event.retry_after(1).id(id));
    }

    /// The client's own id, and the message with its facts.
    fn message(&self, queued: Queued, trace: TraceContext) -> (Option<String>, Message) {
        let task_id = uuid::Uuid::new_v4().to_string();
        let client = &self.client;
        let identity = client.identity.borrow();
        let message = Message {
            text: queued.text,
            data: queued.data,
            channel: client.channel.clone(),
            params: Arc::clone(&client.params),
            user_id: identity.user_id.clone(),
            username: identity.username.clone(),
            connection_id: client.connection_id,
            request_id: client.request_id.clone(),
            message_id: queued.id.clone().unwrap_or_else(|| task_id.clone()),
            task_id,
            trace,
        };
        (queued.id, message)
    }

    fn answer_failure(&self, error: RelayError, id: Option<&str>) {
        let event = match &error {
            RelayError::Busy => {
                ErrorEvent::new(ErrorCode::Busy, "the service is busy; try again").retry_after(1)
            }
            RelayError::Unavailable => {
                let text = "the service cannot be reached; try again";
                ErrorEvent::new(ErrorCode::UpstreamUnavailable, text).retry_after(5)
            }
            RelayError::Rejected(text) => ErrorEvent::new(ErrorCode::UpstreamRejected, text),
        };
        self.route_facts.message_refused(self.about(), event.code(), id);
        self.say(&event.id(id).to_json());
    }
}
