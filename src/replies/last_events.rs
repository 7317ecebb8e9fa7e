//! How long the last events of a task may still be on their way once the task is known to have ended.

use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::config::{ChannelsWire, Engine, EngineKind};
use crate::generations::TrackedReply;

/// How long the terminal event of a task that is known to have ended may still be on its way, counted from the
/// latest event.
const TERMINAL_EVENT_DELAY: Duration = Duration::from_secs(2);

/// The same with a pub/sub layer, where another node may take over the import of the channel meanwhile.
const TERMINAL_EVENT_DELAY_PUBSUB: Duration = Duration::from_secs(4);

/// The terminal event is no longer waited for after this time, even if events of other replies continue to come.
const MAX_TERMINAL_EVENT_DELAY: Duration = Duration::from_secs(30);

/// How long what was read from a mailbox may be on its way through the engine.
const ENGINE_DELAY: Duration = Duration::from_millis(500);

/// How often it is checked whether events can be heard at all.
const HEARING_CHECK: Duration = Duration::from_millis(250);

/// Completes when the events that the worker published before its task ended have had time to come. The time begins
/// again with each event, does not count while this node is cut off from what workers publish, and is not over before
/// this node has read what its mailbox held when the task had ended.
pub(super) async fn wait_for_last_events(engine: &Engine, broker: &Broker, reply: &TrackedReply) {
    let delay = terminal_event_delay(engine);
    let sent = broker.mark_layer_reads();
    let (mut began, mut unread_at) = (Instant::now(), None);
    loop {
        let now = Instant::now();
        if !broker.hears_all() {
            began = now;
        }
        if !broker.has_read_layer_until(sent) {
            unread_at = Some(now);
        }
        let quiet = began.max(reply.last_event_at()) + delay;
        let due = quiet.min(began + MAX_TERMINAL_EVENT_DELAY);
        let due = unread_at.map_or(due, |unread_at| due.max(unread_at + ENGINE_DELAY));
        if due <= now {
            return;
        }
        tokio::time::sleep_until(due.min(now + HEARING_CHECK).into()).await;
    }
}

fn terminal_event_delay(engine: &Engine) -> Duration {
    let layer = match &engine.kind {
        EngineKind::Redis(redis) => redis.channels.as_ref().map(|layer| layer.wire),
        EngineKind::Memory => None,
    };
    match layer {
        Some(ChannelsWire::PubSub) => TERMINAL_EVENT_DELAY_PUBSUB,
        Some(ChannelsWire::Core) | None => TERMINAL_EVENT_DELAY,
    }
}
