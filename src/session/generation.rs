//! A reply that the upstream streams in its answer, published as a generation: `processing_started`,
//! the events, exactly one terminal event. It goes to the channel, not to the connection, and goes on
//! when the client is gone.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Session;
use crate::broker::{PublishError, Publisher};
use crate::config::Route;
use crate::limits::Lease;
use crate::protocol::{
    ChannelName, ErrorCode, ErrorEvent, complete, event_name, processing_started,
};
use crate::shutdown::Shutdown;
use crate::telemetry;
use crate::upstream::{Reply, ReplyBroken};

/// While the engine is away, an event is tried again this often, with this pause.
const PUBLISH_ATTEMPTS: usize = 20;
const PUBLISH_PAUSE: Duration = Duration::from_millis(250);

/// How a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerationEnd {
    /// By a terminal event of the upstream, or its regular end.
    Completed,
    /// The upstream died, or sent what could not be published.
    WorkerLost,
    /// The engine was away for too long.
    EngineDown,
}

impl GenerationEnd {
    /// The value of the `outcome` metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::WorkerLost => "worker_lost",
            Self::EngineDown => "engine_down",
        }
    }
}

struct Generation {
    publisher: Publisher,
    shutdown: Shutdown,
    channel: ChannelName,
    route: Arc<Route>,
    task_id: String,
}

impl Session {
    pub(super) fn generation(
        &self,
        task_id: String,
        reply: Reply,
        place: Option<Lease>,
    ) -> impl Future<Output = ()> + use<> {
        let generation = Generation {
            publisher: self.services.publisher.clone(),
            shutdown: self.services.shutdown.clone(),
            channel: self.client.channel.clone(),
            route: Arc::clone(&self.client.route),
            task_id,
        };
        let tracked = self.services.shutdown.track();
        async move {
            let end = generation.run(reply).await.unwrap_or(GenerationEnd::EngineDown);
            telemetry::connections::generation_ended(end.label(), &generation.task_id);
            drop((place, tracked));
        }
    }
}

impl Generation {
    async fn run(&self, mut reply: Reply) -> Result<GenerationEnd, PublishError> {
        self.publish(processing_started(&self.task_id).into()).await?;
        while let Some(event) = self.next(&mut reply).await {
            let json = match event {
                Ok(json) => json,
                Err(broken) => return self.lost(&broken).await,
            };
            let name = event_name(&json).unwrap_or_default();
            if name == "processing_started" {
                continue;
            }
            match self.publish(json).await {
                Err(PublishError::TooLarge) => {
                    return self
                        .lost(&ReplyBroken::Refused("an event of the reply was too large"))
                        .await;
                }
                published => published?,
            }
            if self.route.generations.terminal_events.contains(&name) {
                reply.finish();
                return Ok(GenerationEnd::Completed);
            }
        }
        self.publish(complete(&self.task_id).into()).await?;
        Ok(GenerationEnd::Completed)
    }

    /// The next event; a gateway that is being cut says so while it still can.
    async fn next(&self, reply: &mut Reply) -> Option<Result<Bytes, ReplyBroken>> {
        tokio::select! {
            event = reply.next() => event,
            () = self.shutdown.killed() => Some(Err(ReplyBroken::Refused("the gateway is stopping"))),
        }
    }

    async fn lost(&self, broken: &ReplyBroken) -> Result<GenerationEnd, PublishError> {
        let text = match broken {
            ReplyBroken::Lost => "the reply broke off",
            ReplyBroken::Refused(why) => why,
        };
        let event = ErrorEvent::new(ErrorCode::WorkerLost, text).task_id(&self.task_id);
        self.publish(event.to_json().into()).await?;
        Ok(GenerationEnd::WorkerLost)
    }

    async fn publish(&self, json: Bytes) -> Result<(), PublishError> {
        let mut result = Ok(());
        for _ in 0..PUBLISH_ATTEMPTS {
            result = self.publisher.publish(&self.channel, json.clone()).await;
            if result != Err(PublishError::EngineDown) {
                break;
            }
            tokio::time::sleep(PUBLISH_PAUSE).await;
        }
        result
    }
}
