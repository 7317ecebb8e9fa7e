//! Replies of which nothing is heard: the worker publishes elsewhere, or no worker takes the task. Nothing fails
//! then, so only the log and a metric can tell.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{Sender, ThreadConfig};
use crate::config::{ChannelsWire, Engine, EngineKind};
use crate::generations::Task;
use crate::protocol::{Params, UserId};
use crate::telemetry::replies::{Unheard, UnheardReply};
use crate::telemetry::route::RouteMetrics;
use crate::upstream::QueueState;

/// How long the queue's Redis may take to answer.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the key of the queue is made of.
pub(super) struct QueueContext {
    params: Params,
    user_id: Option<UserId>,
}

impl QueueContext {
    pub fn of(sender: &Sender) -> Self {
        Self { params: sender.params.clone(), user_id: sender.user_id.clone() }
    }
}

/// A reply of which no event was heard.
pub(super) struct UnheardReport {
    pub config: Rc<ThreadConfig>,
    pub route_metrics: Arc<RouteMetrics>,
    pub upstream: String,
    pub task: Task,
    pub when: Unheard,
}

impl UnheardReport {
    /// Counts and logs the reply on a task of its own, since the queue's Redis is asked first.
    pub fn send(self, queue: Rc<QueueContext>) {
        tokio::task::spawn_local(async move {
            let (queue, waiting, consumers) = match self.queue_state(&queue).await {
                Some(QueueState { queue, waiting, consumers }) => {
                    (Some(queue), Some(waiting), consumers)
                }
                None => (None, None, None),
            };
            let reply = UnheardReply {
                channel: &self.task.channel,
                task_id: &self.task.id,
                upstream: &self.upstream,
                queue: queue.as_deref(),
                waiting,
                consumers,
                check: settings_to_check(&self.config.config.engine),
            };
            self.route_metrics.replies.unheard(self.when, &reply);
        });
    }

    async fn queue_state(&self, context: &QueueContext) -> Option<QueueState> {
        let QueueContext { params, user_id } = context;
        let state = self.config.upstreams.queue_state(
            &self.upstream,
            &self.task.channel,
            params,
            user_id.as_ref(),
        );
        tokio::time::timeout(QUEUE_TIMEOUT, state).await.ok()?
    }
}

/// The settings that decide whether a worker's events are heard.
fn settings_to_check(engine: &Engine) -> &'static str {
    match &engine.kind {
        EngineKind::Memory => {
            "[engine] kind: with \"memory\" workers publish by POST /v1/publish to this node; the route's channel must \
             be the one that the worker publishes to"
        }
        EngineKind::Redis(redis) => match redis.channels.as_ref().map(|layer| layer.wire) {
            None => {
                "[engine.redis] wire: group_send of Django Channels needs \"channels-core\" or \"channels-pubsub\"; \
                 pubsub_url (or url): the Redis that the worker publishes to; the route's channel must be the one that \
                 the worker publishes to"
            }
            Some(ChannelsWire::Core) => {
                "[engine.redis] wire: \"channels-core\" is for channels_redis.core only; [engine.redis.channels] types, \
                 prefix, hosts with their databases, serializer, symmetric_encryption_keys: as in CHANNEL_LAYERS; the \
                 route's channel must be the group that the task sends to"
            }
            Some(ChannelsWire::PubSub) => {
                "[engine.redis] wire: \"channels-pubsub\" is for channels_redis.pubsub only; [engine.redis.channels] \
                 types, prefix, hosts, serializer, symmetric_encryption_keys: as in CHANNEL_LAYERS; the route's channel \
                 must be the group that the task sends to"
            }
        },
    }
}
