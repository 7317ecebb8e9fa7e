//! A reply that the upstream streams in its answer, published as a generation: `processing_started`, the
//! events, exactly one terminal event. It goes to the channel, not to the connection, and continues after
//! the client has left, unless the upstream's `on_disconnect` says otherwise.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use serde_json::value::RawValue;

use super::attached::AttachGuard;
use super::ended_post::Post;
use super::history_mark::HistoryMark;
use super::message::{MessageContext, RelayedMessage};
use super::reply_publisher::ReplyPublisher;
use super::reply_record::ReplyRecord;
use super::worker_reply::generation_record;
use super::{Replies, Sender};
use crate::broker::PublishError;
use crate::config::Route;
use crate::generations::{Entry, GenerationRecord, Task, TaskGuard};
use crate::limits::Lease;
use crate::protocol::{
    ErrorCode, ErrorEvent, EventMembers, EventName, complete, processing_started, with_task_id,
};
use crate::telemetry::replies::{GenerationEnd, ReplyTiming};
use crate::telemetry::route::RouteMetrics;
use crate::upstream::{Conclusion, Outcome, Reply, ReplyBroken, ReplyEvent};

const TOO_LARGE: ReplyBroken = ReplyBroken::Refused("an event of the reply was too large");

/// The next step of a reply.
enum Next {
    Event(ReplyEvent),
    /// The stream of an upstream that writes its own events has ended.
    End,
    Broken(ReplyBroken),
    Cancelled,
    /// Another node has reported the reply as lost.
    TakenOver,
}

/// How a reply has ended.
struct Ended {
    end: GenerationEnd,
    /// Why, if the outcome does not say it.
    reason: Option<String>,
}

impl From<GenerationEnd> for Ended {
    fn from(end: GenerationEnd) -> Self {
        Self { end, reason: None }
    }
}

/// A reply while it streams. What it holds is given back when it is dropped.
struct StreamedReply {
    replies: Rc<Replies>,
    publisher: ReplyPublisher,
    /// How long after the start of a drain the reply is broken off.
    stops_after: Duration,
    /// The same for the posting of replies that have ended.
    posts_end_after: Duration,
    route: Arc<Route>,
    route_metrics: Arc<RouteMetrics>,
    context: MessageContext,
    reply_record: ReplyRecord,
    mark: HistoryMark,
    guard: TaskGuard,
    entry: Entry,
    _attached: Option<AttachGuard>,
    _lease: Option<Lease>,
    turn: Option<Lease>,
}

impl Replies {
    /// Publishes what is there of a reply already, and the rest on a task of its own. So the first events are ready when the
    /// message is answered, and leave together with the answer.
    pub(super) fn publish_reply(
        self: &Rc<Self>,
        sender: &Sender,
        message: RelayedMessage,
        (message_id, data): (&str, &RawValue),
        mut reply: Box<Reply>,
    ) {
        let RelayedMessage { mark, lease, turn, context, .. } = message;
        let generations = &self.services.generations;
        let Some(guard) = generations.running.register(mark.task().clone(), sender.origin(true))
        else {
            // Does not happen: the id of a task whose reply streams is fresh.
            mark.leave_set();
            reply.abort();
            return;
        };
        let config = self.config();
        let attached = match config.upstreams.cancels_on_disconnect(sender.upstream()) {
            true => self.attached.attach(sender, guard.canceller()),
            false => None,
        };
        let reply_record = ReplyRecord::new(&self.services.limits, sender);
        let poster = config.upstreams.reply_poster(sender.upstream());
        let reply_record = match poster {
            Some(poster) => {
                let post = Post::new(poster, sender, message_id, &context).with_message(data);
                reply.collect(post.collected());
                reply_record.with_post(post)
            }
            None => reply_record,
        };
        let record = || GenerationRecord {
            post: reply_record.post_record(),
            ..generation_record(sender, true, lease.as_ref(), turn.as_ref())
        };
        let entry = generations.ledger.enter(guard.task(), record);
        // In a box, because the future below would be moved with it.
        let streamed = Box::new(StreamedReply {
            replies: Rc::clone(self),
            publisher: ReplyPublisher::new(&self.services.publisher, guard.task()),
            stops_after: config.config.shutdown.abort_replies_after(),
            posts_end_after: config.config.shutdown.abandon_posts_after(),
            route: Arc::clone(&sender.route),
            route_metrics: Arc::clone(&sender.route_metrics),
            context,
            reply_record,
            mark,
            entry,
            guard,
            _attached: attached,
            _lease: lease,
            turn,
        });
        let (replies, tracked) = (Rc::clone(self), self.services.shutdown.track());
        // In a box, because a task moves its future several times.
        let mut publishing = Box::pin(async move {
            streamed.run(reply).await;
            replies.flush_when_draining().await;
            drop(tracked);
        });
        if (&mut publishing).now_or_never().is_none() {
            // The task polls it again, and is the one that is woken.
            tokio::task::spawn_local(publishing);
        }
    }
}

impl StreamedReply {
    async fn run(self: Box<Self>, reply: Box<Reply>) {
        let Task { channel, id } = self.guard.task();
        let ledger = &self.replies.services.generations.ledger;
        // Before the first event is published, so that every client that learns of the task can cancel it, and
        // clients that connect later see the whole reply.
        tokio::join!(self.mark.set(), ledger.flush());
        let ended = self.publish(reply).await.unwrap_or(GenerationEnd::EngineDown.into());
        let (end, reason) = (ended.end, ended.reason.as_deref());
        self.reply_record.settle(&self.route_metrics.replies).await;
        let shutdown = &self.replies.services.shutdown;
        self.reply_record.post(id, channel, end, shutdown, self.posts_end_after);
        // The next message of the channel does not wait for the rest.
        drop(self.turn);
        self.publisher.remove(self.mark).await;
        self.route_metrics.replies.ended(channel, end, reason, self.context.received_at, id);
        self.context.spans.end(end);
        if end == GenerationEnd::EngineDown {
            // The terminal event has still to be published, by whichever node reaches the engine first.
            self.entry.abandon();
        }
    }

    async fn publish(&self, mut reply: Box<Reply>) -> Result<Ended, PublishError> {
        let spans = self.context.spans.clone();
        let mut timing =
            ReplyTiming::new(Arc::clone(&self.route_metrics.replies), self.context.received_at)
                .with_spans(spans);
        if !self.publisher.publish(processing_started(self.task_id()).into()).await? {
            self.abort(reply);
            return Ok(GenerationEnd::Taken.into());
        }
        // On a route that does not list it, `complete` is an event like others, but the gateway adds no second one.
        let mut is_complete = false;
        // One for all events: it counts from the beginning of the drain, not from the last of them.
        let mut drain = pin!(self.drain_deadline());
        loop {
            let event = match self.next(&mut reply, drain.as_mut()).await {
                Next::Event(event) => event,
                Next::End => break,
                Next::Broken(_) if is_complete => break,
                Next::Broken(broken) => {
                    self.abort(reply);
                    return Box::pin(self.publish_lost(&broken)).await;
                }
                Next::TakenOver => {
                    self.abort(reply);
                    return Ok(GenerationEnd::Taken.into());
                }
                Next::Cancelled => {
                    self.abort(reply);
                    self.guard.remove();
                    // Every event of this reply has an id.
                    let cancelled = self.publisher.publish_cancelled(None);
                    let ((), published) = tokio::join!(self.reply_record.charge(), cancelled);
                    published?;
                    return Ok(GenerationEnd::Cancelled.into());
                }
            };
            let (name, json) = match event {
                ReplyEvent::Own(json) => self.identify(json, &mut reply),
                ReplyEvent::Publication(json) => (String::new(), json),
                ReplyEvent::End(conclusion) => {
                    self.abort(reply);
                    return Box::pin(self.publish_end(conclusion, timing)).await;
                }
            };
            if name == EventName::ProcessingStarted.label() {
                continue;
            }
            if self.ends_reply(&name) {
                self.reply_record.close(reply.finish());
                match self.publish_terminal(json).await {
                    Err(PublishError::TooLarge) => {
                        return Box::pin(self.publish_lost(&TOO_LARGE)).await;
                    }
                    published => published?,
                }
                if name == EventName::Error.label() {
                    return Ok(GenerationEnd::TaskFailed.into());
                }
                timing.record_completion(Instant::now());
                return Ok(GenerationEnd::Completed.into());
            }
            match self.publisher.publish(json).await {
                Ok(true) => {}
                Ok(false) => {
                    // Another node has ended the reply.
                    self.abort(reply);
                    return Ok(GenerationEnd::Taken.into());
                }
                Err(error) => {
                    self.abort(reply);
                    return match error {
                        PublishError::TooLarge => Box::pin(self.publish_lost(&TOO_LARGE)).await,
                        error => Err(error),
                    };
                }
            }
            let now = Instant::now();
            timing.record_chunk(now);
            self.reply_record.begin(now);
            self.guard.record_event(now);
            if name == EventName::Complete.label() {
                is_complete = true;
            }
        }
        self.abort(reply);
        if is_complete {
            self.guard.remove();
            return Ok(GenerationEnd::Completed.into());
        }
        self.publish_terminal(complete(self.task_id()).into()).await?;
        Ok(GenerationEnd::Completed.into())
    }

    /// Reads no more of a reply, and aborts its request if it has not ended.
    fn abort(&self, reply: Box<Reply>) {
        self.reply_record.close(reply.abort());
    }

    /// Publishes the end that the upstream's stream has.
    async fn publish_end(
        &self,
        Conclusion { json, outcome, reason }: Conclusion,
        mut timing: ReplyTiming,
    ) -> Result<Ended, PublishError> {
        let end = match outcome {
            Outcome::Completed => GenerationEnd::Completed,
            Outcome::Failed => GenerationEnd::TaskFailed,
            Outcome::Aborted => GenerationEnd::Cancelled,
        };
        match self.publish_terminal(json).await {
            Err(PublishError::TooLarge) => return self.publish_lost(&TOO_LARGE).await,
            published => published?,
        }
        if end == GenerationEnd::Completed {
            timing.record_completion(Instant::now());
        }
        Ok(Ended { end, reason })
    }

    /// Whether an event of the upstream's own is terminal on this route. A publication of a dialect has no name here.
    fn ends_reply(&self, name: &str) -> bool {
        let is_listed = self.route.generations.terminal_events.iter().any(|event| event == name);
        is_listed || name == EventName::Cancelled.label()
    }

    /// Returns the name of an event, and the event with the id of its task: its own if it has one.
    fn identify(&self, json: Bytes, reply: &mut Reply) -> (String, Bytes) {
        let members = EventMembers::read(&json).unwrap_or_default();
        let name = members.event().unwrap_or_default().into_owned();
        reply.observe(&name, &json);
        let json = match members.task_id() {
            Some(_) => json,
            None => with_task_id(&json, self.task_id()),
        };
        (name, json)
    }

    async fn next(&self, reply: &mut Reply, mut drain: Pin<&mut impl Future<Output = ()>>) -> Next {
        const STOPPING: Next = Next::Broken(ReplyBroken::Refused("the gateway is stopping"));
        if self.guard.is_cancelled() {
            return Next::Cancelled;
        }
        if self.entry.is_taken() {
            return Next::TakenOver;
        }
        let is_draining = self.replies.services.shutdown.is_draining();
        if is_draining && drain.as_mut().now_or_never().is_some() {
            return STOPPING;
        }
        // What is there already is taken without waiting for any of the others.
        tokio::select! {
            biased;
            event = reply.next() => match event {
                Some(Ok(event)) => Next::Event(event),
                Some(Err(broken)) => Next::Broken(broken),
                None => Next::End,
            },
            () = self.guard.cancelled() => Next::Cancelled,
            () = self.entry.taken() => Next::TakenOver,
            () = drain => STOPPING,
        }
    }

    /// Completes shortly before a drain ends by force, while a terminal event can still be published.
    async fn drain_deadline(&self) {
        let shutdown = &self.replies.services.shutdown;
        shutdown.draining().await;
        tokio::time::sleep(self.stops_after).await;
        shutdown.record_early_end();
    }

    async fn publish_lost(&self, broken: &ReplyBroken) -> Result<Ended, PublishError> {
        let text = match broken {
            ReplyBroken::Lost => "the reply broke off",
            ReplyBroken::Refused(why) => why,
            ReplyBroken::TimedOut(why) => {
                self.reply_record.set_timed_out();
                why
            }
        };
        let event = ErrorEvent::new(ErrorCode::WorkerLost, text).task_id(self.task_id());
        self.publish_terminal(event.to_json().into()).await?;
        Ok(Ended { end: GenerationEnd::WorkerLost, reason: Some(text.to_owned()) })
    }

    /// Removes the generation before its terminal event is published, so that it can no longer be cancelled.
    async fn publish_terminal(&self, json: Bytes) -> Result<(), PublishError> {
        self.guard.remove();
        self.reply_record.set_end(&json);
        // The charge is sent first, so that a client that has seen the end cannot be faster with its next message.
        tokio::join!(self.reply_record.charge(), self.publisher.publish_terminal(json)).1
    }

    fn task_id(&self) -> &str {
        &self.guard.task().id
    }
}

#[cfg(test)]
mod tests;
