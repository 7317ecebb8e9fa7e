//! A generation that a worker publishes by itself: looked after from its `task_queued` until its
//! terminal event has been heard, so that its user's place is free again, a client can stop it, and a
//! worker that fell silent is reported.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::generation::GenerationEnd;
use super::voice::Voice;
use super::{Services, Session};
use crate::broker::{Kept, PublishError};
use crate::config::Route;
use crate::generations::{Begun, Expected, Run, Task, Tracked};
use crate::limits::Lease;
use crate::protocol::{ErrorCode, ErrorEvent, cancelled};
use crate::telemetry;

impl Session {
    /// The upstream took a message that was `expected` as `task_id`; `place` is its user's.
    pub(super) fn watch(&self, expected: Expected, task_id: &str, place: Option<Lease>) {
        let tracked = match expected.begin(task_id) {
            Begun::Running(tracked) => tracked,
            Begun::Over => return,
            Begun::Full => return telemetry::generations::not_tracked(),
        };
        let task = Task { channel: self.client.channel.clone(), id: task_id.into() };
        // An upstream that names a task twice means the one that runs.
        let Some(run) = self.services.generations.running.begin(task) else { return };
        let watch = Watch {
            voice: Voice::new(&self.services.publisher, run.task()),
            _heard_without_clients: self.services.broker.keep(&self.client.channel),
            services: Rc::clone(&self.services),
            route: Arc::clone(&self.client.route),
            ends: Instant::now() + self.client.route.generations.max_duration,
            run,
            tracked,
            _place: place,
        };
        tokio::task::spawn_local(watch.run());
    }
}

struct Watch {
    services: Rc<Services>,
    route: Arc<Route>,
    run: Run,
    tracked: Tracked,
    voice: Voice,
    /// When it counts as running no more.
    ends: Instant,
    _heard_without_clients: Kept,
    _place: Option<Lease>,
}

/// Why a watch is over.
enum Over {
    Ended,
    Cancelled,
    /// The worker has been silent for too long.
    Silent,
    /// `max_duration` is over.
    Overdue,
    /// This node stops.
    Left,
}

impl Watch {
    async fn run(self) {
        let Task { channel, id } = self.run.task();
        let history = &self.services.history;
        let _or_latecomers_see_less = history.generation_begins(channel, id).await;
        let over = self.wait().await;
        if matches!(over, Over::Left) {
            return;
        }
        self.run.end();
        let end = self.conclude(over).await.unwrap_or(GenerationEnd::EngineDown);
        let _or_it_expires = history.generation_ended(channel, id).await;
        telemetry::connections::generation_ended(end.label(), id);
    }

    async fn wait(&self) -> Over {
        loop {
            let next = self.silent_at().map_or(self.ends, |silent| silent.min(self.ends));
            tokio::select! {
                () = self.tracked.ended() => return Over::Ended,
                () = self.run.cancelled() => return Over::Cancelled,
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

    /// When the worker will have been silent for too long, as far as it has been heard.
    fn silent_at(&self) -> Option<Instant> {
        let timeout = self.route.generations.reply_idle_timeout;
        (timeout > Duration::ZERO).then(|| self.tracked.heard() + timeout)
    }

    /// Says the last word, unless the worker has said it.
    async fn conclude(&self, over: Over) -> Result<GenerationEnd, PublishError> {
        if !self.tracked.end() {
            return Ok(GenerationEnd::Completed);
        }
        let id = &self.run.task().id;
        let lost = |text| ErrorEvent::new(ErrorCode::WorkerLost, text).task_id(id).to_json();
        let (end, json) = match over {
            Over::Cancelled => (GenerationEnd::Cancelled, cancelled(id)),
            Over::Silent => (GenerationEnd::WorkerLost, lost("the worker has fallen silent")),
            Over::Overdue if self.silent_at().is_some() => {
                (GenerationEnd::WorkerLost, lost("the worker took too long"))
            }
            Over::Overdue | Over::Ended | Over::Left => return Ok(GenerationEnd::Overdue),
        };
        self.voice.say_last(json.into()).await?;
        Ok(end)
    }
}
