//! A reply that the upstream streams in its answer, published as a generation: `processing_started`,
//! the events, exactly one terminal event. It goes to the channel, not to the connection, and goes on
//! when the client is gone, unless the upstream's `on_disconnect` says otherwise.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Session;
use super::relay::MessageContext;
use super::reply_publisher::ReplyPublisher;
use crate::broker::{History, PublishError};
use crate::config::Route;
use crate::generations::{Entry, Run, Task};
use crate::limits::Lease;
use crate::protocol::{ErrorCode, ErrorEvent, cancelled, complete, event_name, processing_started};
use crate::shutdown::Shutdown;
use crate::telemetry::generations::GenerationEnd;
use crate::telemetry::pace::Pace;
use crate::telemetry::route::RouteFacts;
use crate::upstream::{Reply, ReplyBroken};

/// What a generation's reply comes to next.
enum Next {
    Event(Bytes),
    End,
    Broken(ReplyBroken),
    Cancelled,
    /// Another node has reported it as lost.
    Taken,
}

struct Generation {
    reply_publisher: ReplyPublisher,
    history: History,
    shutdown: Shutdown,
    /// After the beginning of a drain.
    stops_after: Duration,
    route: Arc<Route>,
    route_facts: Arc<RouteFacts>,
    /// When its message came.
    context: MessageContext,
    run: Run,
    entry: Entry,
}

impl Session {
    /// Runs the generation on a task of its own; `place` is its user's, until it ends. Its message came
    /// when it was `asked`.
    pub(super) fn generate(
        &self,
        task_id: &str,
        reply: Reply,
        place: Option<Lease>,
        context: MessageContext,
    ) {
        let task = Task { channel: self.client.channel.clone(), id: task_id.into() };
        // The id of a task whose reply streams is fresh.
        let Some(run) = self.services.generations.running.begin(task) else {
            return reply.give_up();
        };
        let route = self.client.route();
        let upstream = route.upstream.as_deref().unwrap_or_default();
        let attached = self.services.terms().upstreams.cancels_on_disconnect(upstream);
        if attached {
            self.attach(&run);
        }
        let facts = self.facts(true, place.as_ref());
        let generation = Generation {
            reply_publisher: ReplyPublisher::new(&self.services.publisher, run.task()),
            history: self.services.history.clone(),
            shutdown: self.services.shutdown.clone(),
            stops_after: self.services.terms().config.shutdown.abort_replies_after(),
            route,
            route_facts: Arc::clone(&self.route_facts),
            context,
            entry: self.services.generations.ledger.enter(run.task(), facts),
            run,
        };
        let (services, connection) = (Rc::clone(&self.services), self.client.connection_id);
        let tracked = self.services.shutdown.track();
        tokio::task::spawn_local(async move {
            let Task { channel, id } = generation.run.task();
            // Whoever hears of it can cancel it.
            let ledger = &services.generations.ledger;
            let _or_latecomers_see_less =
                tokio::join!(generation.history.generation_begins(channel, id), ledger.flush());
            let end = generation.run(reply).await.unwrap_or(GenerationEnd::EngineDown);
            let _or_it_expires = generation.history.generation_ended(channel, id).await;
            generation.route_facts.generation_ended(
                channel,
                end,
                generation.context.received_at,
                id,
            );
            generation.context.spans.ended(end);
            if attached {
                services.attached.detach(connection, &generation.run);
            }
            if end == GenerationEnd::EngineDown {
                // Its end has still to be said, by whoever reaches the engine first.
                generation.entry.abandon();
            } else {
                drop(generation.entry);
            }
            drop(place);
            services.flush_when_draining().await;
            drop(tracked);
        });
    }
}

impl Generation {
    async fn run(&self, mut reply: Reply) -> Result<GenerationEnd, PublishError> {
        let spans = self.context.spans.clone();
        let mut pace =
            Pace::new(Arc::clone(&self.route_facts), self.context.received_at).traced(spans);
        self.reply_publisher.say(processing_started(self.task_id()).into()).await?;
        loop {
            let json = match self.next(&mut reply).await {
                Next::Event(json) => json,
                Next::End => break,
                Next::Broken(broken) => return self.lost(&broken).await,
                Next::Taken => {
                    reply.give_up();
                    return Ok(GenerationEnd::Taken);
                }
                Next::Cancelled => {
                    reply.give_up();
                    self.run.end();
                    self.reply_publisher.say_last(cancelled(self.task_id()).into()).await?;
                    return Ok(GenerationEnd::Cancelled);
                }
            };
            let name = event_name(&json).unwrap_or_default();
            if name == "processing_started" {
                continue;
            }
            let is_last = self.route.generations.terminal_events.contains(&name);
            let published = if is_last {
                self.run.end();
                self.reply_publisher.say_last(json).await
            } else {
                self.reply_publisher.say(json).await
            };
            match published {
                Err(PublishError::TooLarge) => {
                    return self
                        .lost(&ReplyBroken::Refused("an event of the reply was too large"))
                        .await;
                }
                published => published?,
            }
            if is_last {
                if name != "error" {
                    pace.ended_well(Instant::now());
                }
                reply.finish();
                return Ok(GenerationEnd::Completed);
            }
            pace.chunk(Instant::now());
        }
        self.run.end();
        self.reply_publisher.say_last(complete(self.task_id()).into()).await?;
        Ok(GenerationEnd::Completed)
    }

    async fn next(&self, reply: &mut Reply) -> Next {
        tokio::select! {
            event = reply.next() => match event {
                Some(Ok(json)) => Next::Event(json),
                Some(Err(broken)) => Next::Broken(broken),
                None => Next::End,
            },
            () = self.run.cancelled() => Next::Cancelled,
            () = self.entry.taken() => Next::Taken,
            () = self.out_of_time() => {
                Next::Broken(ReplyBroken::Refused("the gateway is stopping"))
            }
        }
    }

    /// A gateway that is about to be cut says so while it still can.
    async fn out_of_time(&self) {
        self.shutdown.draining().await;
        tokio::time::sleep(self.stops_after).await;
        self.shutdown.record_early_end();
    }

    fn task_id(&self) -> &str {
        &self.run.task().id
    }

    async fn lost(&self, broken: &ReplyBroken) -> Result<GenerationEnd, PublishError> {
        let text = match broken {
            ReplyBroken::Lost => "the reply broke off",
            ReplyBroken::Refused(why) => why,
        };
        self.run.end();
        let event = ErrorEvent::new(ErrorCode::WorkerLost, text).task_id(self.task_id());
        self.reply_publisher.say_last(event.to_json().into()).await?;
        Ok(GenerationEnd::WorkerLost)
    }
}
