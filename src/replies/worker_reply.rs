//! A reply that a worker publishes by itself: monitored from its `task_queued` until its terminal event,
//! so that it stops counting for its user, a client can cancel it, and a worker that falls silent is
//! reported.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::task::task_tracker::TaskTrackerToken;

use super::history_mark::HistoryMark;
use super::last_events::wait_for_last_events;
use super::message::{MessageContext, RelayedMessage};
use super::past_end::EndSearch;
use super::reply_publisher::ReplyPublisher;
use super::unheard::{QueueContext, UnheardReport};
use super::{Replies, Sender, ThreadConfig};
use crate::broker::{ChannelPin, PublishError};
use crate::clock;
use crate::config::Route;
use crate::generations::{
    Entry, GenerationRecord, PendingReply, Task, TaskGuard, TrackOutcome, TrackedReply,
};
use crate::limits::Lease;
use crate::protocol::{ErrorCode, ErrorEvent, complete};
use crate::telemetry;
use crate::telemetry::replies::{GenerationEnd, ReplyTiming, Unheard};
use crate::telemetry::route::RouteMetrics;
use crate::upstream::{TaskEnd, TaskPermit};

/// How long a terminal event that may be another reply's waits for the results of their tasks.
const END_CONFIRMATION: Duration = Duration::from_secs(5);

impl Replies {
    /// Monitors the reply to a message that was registered as `pending` before it was relayed.
    pub(super) fn monitor_reply(
        self: &Rc<Self>,
        sender: &Sender,
        message: RelayedMessage,
        pending: PendingReply,
    ) {
        let RelayedMessage { mark, lease, turn, task, context } = message;
        let task_id = &*mark.task().id;
        let metrics = &sender.route_metrics.replies;
        let timing = ReplyTiming::new(Arc::clone(metrics), context.received_at)
            .with_spans(context.spans.clone());
        let tracked = match pending.track(task_id, timing) {
            TrackOutcome::Tracked(tracked) => tracked,
            TrackOutcome::Ended => {
                let end = GenerationEnd::Completed;
                context.spans.end(end);
                let received_at = context.received_at;
                return metrics.ended(&sender.channel, end, None, received_at, task_id);
            }
            TrackOutcome::Full => {
                metrics.not_tracked();
                return mark.leave_set();
            }
        };
        let generations = &self.services.generations;
        let Some(guard) = generations.running.register(mark.task().clone(), sender.origin(false))
        else {
            // An upstream that names a task twice means the one that is in progress.
            return mark.leave_set();
        };
        guard.follow(tracked.activity());
        let record = || generation_record(sender, false, lease.as_ref(), turn.as_ref());
        let entry = generations.ledger.enter(guard.task(), record);
        let duration = sender.route.generations.max_duration;
        let queue = Some(Rc::new(QueueContext::of(sender)));
        let reply = WorkerReply { mark, guard, tracked, entry, lease, turn, task, context, queue };
        ReplyMonitor::new(self, &sender.route, reply, duration).start();
    }
}

/// What another node needs to take over a reply to this sender.
pub(super) fn generation_record(
    sender: &Sender,
    streams: bool,
    lease: Option<&Lease>,
    turn: Option<&Lease>,
) -> GenerationRecord {
    let Sender { route, user_id, .. } = sender;
    let user = user_id.as_ref().map(|user| user.to_string());
    let user_lease = user.zip(lease.map(|lease| lease.holder().to_string()));
    let ends_ms = unix_ms(route.generations.max_duration);
    let turn = turn.map(|turn| turn.holder().to_string());
    let route = route.path.as_str().to_owned();
    GenerationRecord { route, streams, ends_ms, user_lease, turn, post: None }
}

/// Milliseconds since the Unix epoch, `later` than now.
pub(super) fn unix_ms(later: Duration) -> u64 {
    let then = clock::since_unix_epoch().saturating_add(later);
    u64::try_from(then.as_millis()).unwrap_or(u64::MAX)
}

/// Completes with the future's result, or never if there is none.
async fn completed<T>(future: &mut Option<Pin<Box<dyn Future<Output = T> + '_>>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

fn task_failed(end: TaskEnd, id: &str) -> String {
    let (code, text) = match end {
        TaskEnd::Expired => (ErrorCode::TaskExpired, "no worker was free in time; try again"),
        TaskEnd::Revoked => (ErrorCode::TaskRevoked, "the reply was stopped"),
        TaskEnd::Failed | TaskEnd::Succeeded => {
            (ErrorCode::TaskFailed, "the reply could not be made; try again")
        }
    };
    ErrorEvent::new(code, text).task_id(id).to_json()
}

/// What a worker's reply holds while it is in progress.
pub(super) struct WorkerReply {
    pub mark: HistoryMark,
    pub guard: TaskGuard,
    pub tracked: TrackedReply,
    pub entry: Entry,
    /// Counts the reply for its user.
    pub lease: Option<Lease>,
    /// The channel's turn, if its replies run one at a time.
    pub turn: Option<Lease>,
    /// Counts the task for its sender. `None` if the queue is not bounded or another node relayed the message.
    pub task: Option<TaskPermit>,
    pub context: MessageContext,
    /// `None` if another node may have heard events of the reply.
    pub queue: Option<Rc<QueueContext>>,
}

/// Monitors one worker's reply.
pub(super) struct ReplyMonitor {
    replies: Rc<Replies>,
    /// The configuration that the reply began under: its task is at one of these upstreams.
    config: Rc<ThreadConfig>,
    route: Arc<Route>,
    route_metrics: Arc<RouteMetrics>,
    reply: WorkerReply,
    publisher: ReplyPublisher,
    /// When the reply counts as ended even without a terminal event.
    ends: Instant,
    /// Whether another node monitored the reply before, so that it may have ended unheard.
    is_taken_over: bool,
    /// Keeps this node subscribed to the channel while no client is connected.
    _pin: ChannelPin,
    /// Dropped last: by then everything else is given back.
    _monitored: TaskTrackerToken,
}

/// Why monitoring stops.
enum Stop {
    /// The terminal event was published.
    Ended,
    Cancelled,
    /// The terminal event was published before this node monitored the reply.
    EndedBefore,
    /// The task has ended, and no terminal event of it came.
    TaskEnded(TaskEnd),
    /// The worker has been silent for `reply_idle_timeout`.
    Silent,
    /// `max_duration` is over.
    Overdue,
    /// This node is draining.
    Draining,
    /// Another node monitors the reply.
    TakenOver,
}

impl ReplyMonitor {
    pub fn new(
        replies: &Rc<Replies>,
        route: &Arc<Route>,
        reply: WorkerReply,
        duration: Duration,
    ) -> Self {
        let task = reply.guard.task();
        Self {
            publisher: ReplyPublisher::new(&replies.services.publisher, task),
            _pin: replies.services.broker.pin(&task.channel),
            _monitored: replies.monitored_replies.token(),
            replies: Rc::clone(replies),
            config: replies.config(),
            route_metrics: RouteMetrics::of(&route.path),
            route: Arc::clone(route),
            reply,
            ends: Instant::now() + duration,
            is_taken_over: false,
        }
    }

    /// The reply was monitored by another node before.
    pub fn taken_over(self) -> Self {
        Self { is_taken_over: true, ..self }
    }

    /// Monitors on a task of its own.
    pub fn start(self) {
        tokio::task::spawn_local(self.run());
    }

    async fn run(self) {
        let Task { channel, id } = self.reply.guard.task();
        self.reply.mark.set().await;
        let stop = self.wait().await;
        if let Stop::Draining | Stop::TakenOver = stop {
            return self.hand_over();
        }
        self.report_unheard(&stop);
        self.reply.guard.remove();
        // In a box, so that it takes no room while the reply runs.
        let end = Box::pin(self.conclude(&stop)).await.unwrap_or(GenerationEnd::EngineDown);
        let WorkerReply { mark, context, entry, turn, task, .. } = self.reply;
        // The next message of the channel, and of the client, does not wait for the rest.
        drop((turn, task));
        if end == GenerationEnd::EngineDown {
            // Another node looks for the end behind the mark.
            mark.leave_set();
            entry.abandon();
        } else {
            // In this order: without the mark, a node that takes the reply over would not find its end.
            entry.end().await;
            self.publisher.remove(mark).await;
        }
        self.route_metrics.replies.ended(channel, end, None, context.received_at, id);
        context.spans.end(end);
    }

    /// Leaves the reply, its mark and its user's lease to another node.
    fn hand_over(self) {
        self.reply.mark.leave_set();
        self.reply.entry.hand_over();
        for lease in [self.reply.lease, self.reply.turn].into_iter().flatten() {
            lease.forget();
        }
    }

    async fn wait(&self) -> Stop {
        let mut task_end = self.task_end();
        let mut ended_before = self.ended_before();
        let confirmation = task_end.as_ref().map_or(Duration::ZERO, |_| END_CONFIRMATION);
        let mut ended = pin!(self.reply.tracked.ended(confirmation));
        let warning = self.route.generations.first_event_warning;
        let mut warning_at = warning.map(|after| Instant::now() + after);
        loop {
            let due = [self.silent_at(), warning_at].into_iter().flatten();
            let next = due.fold(self.ends, Instant::min);
            tokio::select! {
                end = completed(&mut task_end) => return Stop::TaskEnded(end),
                () = completed(&mut ended_before) => return Stop::EndedBefore,
                () = &mut ended => return Stop::Ended,
                () = self.reply.guard.cancelled() => return Stop::Cancelled,
                () = self.reply.entry.taken() => return Stop::TakenOver,
                () = self.replies.services.shutdown.draining() => return Stop::Draining,
                () = tokio::time::sleep_until(next.into()) => {}
            }
            let now = Instant::now();
            if warning_at.take_if(|at| *at <= now).is_some() {
                self.report_if_unheard(Unheard::Running);
            }
            if self.silent_at().is_some_and(|silent| silent <= now) {
                return Stop::Silent;
            }
            if self.ends <= now {
                return Stop::Overdue;
            }
        }
    }

    /// Completes once the task has ended and its terminal event has had time to come. `None` if the
    /// upstream does not know when a task ends.
    fn task_end(&self) -> Option<Pin<Box<dyn Future<Output = TaskEnd> + '_>>> {
        let upstream = self.route.upstream.as_deref().unwrap_or_default();
        let end = self.config.upstreams.task_end(upstream, &self.reply.guard.task().id)?;
        Some(Box::pin(async move {
            let end = end.await;
            self.reply.tracked.record_task_end();
            let (engine, broker) = (&self.config.config.engine, &self.replies.services.broker);
            wait_for_last_events(engine, broker, &self.reply.tracked, end).await;
            end
        }))
    }

    /// Completes if the reply has ended while no node monitored it. `None` if this node always has.
    fn ended_before(&self) -> Option<Pin<Box<dyn Future<Output = ()> + '_>>> {
        let find = || self.replies.find_unheard_end(self.reply.guard.task());
        self.is_taken_over.then(|| -> Pin<Box<dyn Future<Output = ()> + '_>> { Box::pin(find()) })
    }

    /// Reports a reply that ends although nothing of it was heard. A task that fails need not have published anything.
    fn report_unheard(&self, stop: &Stop) {
        let when = match stop {
            Stop::TaskEnded(TaskEnd::Succeeded) => Unheard::Succeeded,
            Stop::TaskEnded(TaskEnd::Expired) => Unheard::Expired,
            Stop::Silent | Stop::Overdue => Unheard::GivenUp,
            Stop::TaskEnded(TaskEnd::Failed | TaskEnd::Revoked)
            | Stop::Ended
            | Stop::EndedBefore
            | Stop::Cancelled
            | Stop::Draining
            | Stop::TakenOver => return,
        };
        self.report_if_unheard(when);
    }

    fn report_if_unheard(&self, when: Unheard) {
        let Some(queue) = &self.reply.queue else { return };
        if !self.reply.tracked.has_heard_nothing() {
            return;
        }
        let report = UnheardReport {
            config: Rc::clone(&self.config),
            route_metrics: Arc::clone(&self.route_metrics),
            upstream: self.route.upstream.clone().unwrap_or_default(),
            task: self.reply.guard.task().clone(),
            when,
        };
        report.send(Rc::clone(queue));
    }

    /// When the worker will have been silent for too long, unless an event comes before. `None` if the
    /// route has no `reply_idle_timeout`.
    fn silent_at(&self) -> Option<Instant> {
        let timeout = self.route.generations.reply_idle_timeout;
        (timeout > Duration::ZERO).then(|| self.reply.tracked.last_event_at() + timeout)
    }

    /// What counts as an end that this node has not heard.
    fn end_search(&self, stop: &Stop) -> EndSearch {
        match stop {
            _ if !self.is_taken_over => EndSearch::NamedOnly,
            Stop::TaskEnded(TaskEnd::Succeeded) => EndSearch::AnyComplete,
            _ => EndSearch::TerminalEvents,
        }
    }

    /// Publishes a terminal event, unless the worker has published one.
    async fn conclude(&self, stop: &Stop) -> Result<GenerationEnd, PublishError> {
        let task = self.reply.guard.task();
        let has_ended = !self.reply.tracked.end()
            || matches!(stop, Stop::EndedBefore)
            || self.replies.has_ended_in_history(task, self.end_search(stop)).await;
        if has_ended {
            return Ok(GenerationEnd::Completed);
        }
        let id = &task.id;
        let lost = |text| ErrorEvent::new(ErrorCode::WorkerLost, text).task_id(id).to_json();
        let (end, json) = match stop {
            Stop::Cancelled => {
                self.cancel_task().await;
                let terminal_events = &self.route.generations.terminal_events;
                let unnamed = self.reply.tracked.unnamed_events(terminal_events);
                self.publisher.publish_cancelled(unnamed).await?;
                return Ok(GenerationEnd::Cancelled);
            }
            // The worker has said so itself, by an event that is not one of the route's `terminal_events`.
            Stop::TaskEnded(TaskEnd::Succeeded) if self.reply.tracked.take_complete() => {
                return Ok(GenerationEnd::Completed);
            }
            Stop::TaskEnded(TaskEnd::Succeeded) => (GenerationEnd::Completed, complete(id)),
            Stop::TaskEnded(end) => (GenerationEnd::TaskFailed, task_failed(*end, id)),
            Stop::Silent => (GenerationEnd::WorkerLost, lost("the worker has fallen silent")),
            Stop::Overdue if self.silent_at().is_some() => {
                (GenerationEnd::WorkerLost, lost("the worker took too long"))
            }
            Stop::Overdue | Stop::Ended | Stop::EndedBefore | Stop::Draining | Stop::TakenOver => {
                return Ok(GenerationEnd::Overdue);
            }
        };
        self.publisher.publish_terminal(json.into()).await?;
        Ok(end)
    }

    /// Asks the worker to stop, if there is a way to. The request is kept for as long as a generation may
    /// last.
    async fn cancel_task(&self) {
        let (task, ttl) = (self.reply.guard.task(), self.route.generations.max_duration);
        let upstream = self.route.upstream.as_deref().unwrap_or_default();
        let (by_engine, by_queue) = tokio::join!(
            self.replies.services.generations.ledger.notify_worker(task, ttl),
            self.config.upstreams.publish_cancellation(upstream, &task.id, ttl)
        );
        if by_engine.is_err() || !by_queue {
            telemetry::replies::worker_not_cancelled(&task.channel, &task.id);
        }
    }
}

#[cfg(test)]
mod tests;
