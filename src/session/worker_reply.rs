//! A generation that a worker publishes by itself: looked after from its `task_queued` until its
//! terminal event has been heard, so that its user's place is free again, a client can stop it, and a
//! worker that fell silent is reported.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::relay::MessageContext;
use super::reply_publisher::ReplyPublisher;
use super::{Services, Session, ThreadConfig};
use crate::broker::{ChannelPin, PublishError};
use crate::clock;
use crate::config::Route;
use crate::generations::{Begun, Entry, Expected, Facts, Run, Task, Tracked};
use crate::limits::Lease;
use crate::protocol::{ErrorCode, ErrorEvent, cancelled, complete};
use crate::telemetry;
use crate::telemetry::generations::GenerationEnd;
use crate::telemetry::pace::Pace;
use crate::telemetry::route::RouteFacts;
use crate::upstream::TaskEnd;

/// After a task is known to have ended, an event of its own may still be on its way.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Session {
    /// The upstream took a message that was `expected` as `task_id`; `place` is its user's. The message
    /// came when it was `asked`.
    pub(super) fn monitor(
        &self,
        expected: Expected,
        task_id: &str,
        place: Option<Lease>,
        context: MessageContext,
    ) {
        let pace = Pace::new(Arc::clone(&self.route_facts), context.received_at)
            .traced(context.spans.clone());
        let tracked = match expected.begin(task_id, pace) {
            Begun::Running(tracked) => tracked,
            Begun::Over => {
                let end = GenerationEnd::Completed;
                let channel = &self.client.channel;
                context.spans.ended(end);
                return self.route_facts.generation_ended(
                    channel,
                    end,
                    context.received_at,
                    task_id,
                );
            }
            Begun::Full => return self.route_facts.not_tracked(),
        };
        let (services, route) = (&self.services, self.client.route());
        let task = Task { channel: self.client.channel.clone(), id: task_id.into() };
        // An upstream that names a task twice means the one that runs.
        let Some(run) = services.generations.running.begin(task) else { return };
        let facts = self.facts(false, place.as_ref());
        let entry = services.generations.ledger.enter(run.task(), facts);
        let duration = route.generations.max_duration;
        let running = Running { run, tracked, entry, place, context };
        ReplyMonitor::new(services, &route, running, duration).start(true);
    }

    /// What another node needs to go on with a generation of this client.
    pub(super) fn facts(&self, streams: bool, place: Option<&Lease>) -> Facts {
        let route = self.client.route.borrow();
        let user = self.client.user_id.as_ref().map(|user| user.to_string());
        let place = user.zip(place.map(|place| place.holder().to_string()));
        let ends_ms = unix_ms(route.generations.max_duration);
        Facts { route: route.path.as_str().to_owned(), streams, ends_ms, place }
    }
}

/// Milliseconds since the Unix epoch, `later` than now.
pub(super) fn unix_ms(later: Duration) -> u64 {
    let then = clock::since_unix_epoch().saturating_add(later);
    u64::try_from(then.as_millis()).unwrap_or(u64::MAX)
}

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

/// What a generation holds while it runs.
pub(super) struct Running {
    pub run: Run,
    pub tracked: Tracked,
    pub entry: Entry,
    pub place: Option<Lease>,
    /// When its message came.
    pub context: MessageContext,
}

/// Looks after one generation.
pub(super) struct ReplyMonitor {
    services: Rc<Services>,
    /// Of when it began: its task is at an upstream of those.
    terms: Rc<ThreadConfig>,
    route: Arc<Route>,
    route_facts: Arc<RouteFacts>,
    running: Running,
    reply_publisher: ReplyPublisher,
    /// When it counts as running no more.
    ends: Instant,
    _heard_without_clients: ChannelPin,
}

/// Why a watch is over.
enum Over {
    Ended,
    Cancelled,
    /// Its task has, and no terminal event of it came.
    TaskEnded(TaskEnd),
    /// The worker has been silent for too long.
    Silent,
    /// `max_duration` is over.
    Overdue,
    /// This node stops.
    Left,
    /// Another node looks after it.
    Taken,
}

impl ReplyMonitor {
    pub fn new(
        services: &Rc<Services>,
        route: &Arc<Route>,
        running: Running,
        duration: Duration,
    ) -> Self {
        let task = running.run.task();
        Self {
            reply_publisher: ReplyPublisher::new(&services.publisher, task),
            _heard_without_clients: services.broker.pin(&task.channel),
            services: Rc::clone(services),
            terms: services.terms(),
            route_facts: RouteFacts::of(&route.path),
            route: Arc::clone(route),
            running,
            ends: Instant::now() + duration,
        }
    }

    /// On a task of its own. `begins` = latecomers are to see the channel from here on.
    pub fn start(self, begins: bool) {
        self.services.monitored_replies.set(self.services.monitored_replies.get() + 1);
        tokio::task::spawn_local(async move {
            let services = Rc::clone(&self.services);
            self.run(begins).await;
            services.monitored_replies.set(services.monitored_replies.get() - 1);
        });
    }

    async fn run(self, begins: bool) {
        let Task { channel, id } = self.running.run.task();
        let history = self.services.history.clone();
        if begins {
            let _or_latecomers_see_less = history.generation_begins(channel, id).await;
        }
        let over = self.wait().await;
        if let Over::Left | Over::Taken = over {
            return self.leave();
        }
        self.running.run.end();
        let end = self.conclude(&over).await.unwrap_or(GenerationEnd::EngineDown);
        let _or_it_expires = history.generation_ended(channel, id).await;
        self.route_facts.generation_ended(channel, end, self.running.context.received_at, id);
        self.running.context.spans.ended(end);
        if end == GenerationEnd::EngineDown {
            self.running.entry.abandon();
        }
    }

    /// Another node goes on with it, and with its user's place.
    fn leave(self) {
        self.running.entry.hand_over();
        if let Some(place) = self.running.place {
            place.leave();
        }
    }

    async fn wait(&self) -> Over {
        let mut task_end = self.task_end();
        loop {
            let next = self.silent_at().map_or(self.ends, |silent| silent.min(self.ends));
            tokio::select! {
                end = completed(&mut task_end) => return Over::TaskEnded(end),
                () = self.running.tracked.ended() => return Over::Ended,
                () = self.running.run.cancelled() => return Over::Cancelled,
                () = self.running.entry.taken() => return Over::Taken,
                () = self.services.shutdown.draining() => return Over::Left,
                () = tokio::time::sleep_until(next.into()) => {}
            }
            let now = Instant::now();
            if self.silent_at().is_some_and(|silent| silent <= now) {
                return Over::Silent;
            }
            if self.ends <= now {
                return Over::Overdue;
            }
        }
    }

    /// Completes when its last words have had their time; `None` = nobody would know.
    fn task_end(&self) -> Option<Pin<Box<dyn Future<Output = TaskEnd> + '_>>> {
        let upstream = self.route.upstream.as_deref().unwrap_or_default();
        let task_id = &self.running.run.task().id;
        let end = self.terms.upstreams.task_end(upstream, task_id)?;
        Some(Box::pin(async move {
            let end = end.await;
            tokio::time::sleep(LAST_WORDS).await;
            end
        }))
    }

    /// When the worker will have been silent for too long, as far as it has been heard.
    fn silent_at(&self) -> Option<Instant> {
        let timeout = self.route.generations.reply_idle_timeout;
        (timeout > Duration::ZERO).then(|| self.running.tracked.heard() + timeout)
    }

    /// Says the last word, unless the worker has said it.
    async fn conclude(&self, over: &Over) -> Result<GenerationEnd, PublishError> {
        if !self.running.tracked.end() {
            return Ok(GenerationEnd::Completed);
        }
        let id = &self.running.run.task().id;
        let lost = |text| ErrorEvent::new(ErrorCode::WorkerLost, text).task_id(id).to_json();
        let (end, json) = match over {
            Over::Cancelled => {
                self.tell_worker().await;
                (GenerationEnd::Cancelled, cancelled(id))
            }
            Over::TaskEnded(TaskEnd::Succeeded) => (GenerationEnd::Completed, complete(id)),
            Over::TaskEnded(end) => (GenerationEnd::TaskFailed, task_failed(*end, id)),
            Over::Silent => (GenerationEnd::WorkerLost, lost("the worker has fallen silent")),
            Over::Overdue if self.silent_at().is_some() => {
                (GenerationEnd::WorkerLost, lost("the worker took too long"))
            }
            Over::Overdue | Over::Ended | Over::Left | Over::Taken => {
                return Ok(GenerationEnd::Overdue);
            }
        };
        self.reply_publisher.say_last(json.into()).await?;
        Ok(end)
    }

    /// To stop, where it can be told. It has as long as a generation may last to look.
    async fn tell_worker(&self) {
        let (task, ttl) = (self.running.run.task(), self.route.generations.max_duration);
        let upstream = self.route.upstream.as_deref().unwrap_or_default();
        let (told, told_by_queue) = tokio::join!(
            self.services.generations.ledger.tell_worker(task, ttl),
            self.terms.upstreams.tell_cancelled(upstream, &task.id, ttl)
        );
        if told.is_err() || !told_by_queue {
            telemetry::generations::worker_not_told(&task.channel, &task.id);
        }
    }
}
