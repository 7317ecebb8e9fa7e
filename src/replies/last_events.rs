//! How long the last events of a task may still be on their way once the task is known to have ended.

use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::config::{ChannelsWire, Engine, EngineKind};
use crate::generations::TrackedReply;
use crate::upstream::TaskEnd;

/// How long the terminal event of a task that is known to have ended may still be on its way, counted from the
/// latest event.
const TERMINAL_EVENT_DELAY: Duration = Duration::from_secs(2);

/// The same with a pub/sub layer, where another node may take over the import of the channel meanwhile.
const TERMINAL_EVENT_DELAY_PUBSUB: Duration = Duration::from_secs(4);

/// The terminal event is no longer waited for after this time, even if events of other replies continue to come.
const MAX_TERMINAL_EVENT_DELAY: Duration = Duration::from_secs(30);

/// The same if events come after the task has ended, although no other reply runs on the channel: the task has started
/// others, which continue its reply.
const CONTINUED_REPLY_DELAY: Duration = Duration::from_secs(30);

/// How long what was read from a mailbox may be on its way through the engine.
const ENGINE_DELAY: Duration = Duration::from_millis(500);

/// How often it is checked whether events can be heard at all.
const HEARING_CHECK: Duration = Duration::from_millis(250);

/// Completes when the events that the worker published before its task ended have had time to come. The time begins
/// again with each event, does not count while this node is cut off from what workers publish, and is not over before
/// this node has read what its mailbox held when the task had ended.
pub(super) async fn wait_for_last_events(
    engine: &Engine,
    broker: &Broker,
    reply: &TrackedReply,
    end: TaskEnd,
) {
    let delay = terminal_event_delay(engine);
    let sent = broker.mark_layer_reads();
    let ended_at = Instant::now();
    let (mut began, mut unread_at) = (ended_at, None);
    loop {
        let now = Instant::now();
        if !broker.hears_all() {
            began = now;
        }
        if !broker.has_read_layer_until(sent) {
            unread_at = Some(now);
        }
        let due = Activity {
            ended_at,
            began,
            last_event: reply.last_event_at(),
            may_continue: end == TaskEnd::Succeeded && reply.is_only_one(),
        }
        .due(delay);
        let due = unread_at.map_or(due, |unread_at| due.max(unread_at + ENGINE_DELAY));
        if due <= now {
            return;
        }
        tokio::time::sleep_until(due.min(now + HEARING_CHECK).into()).await;
    }
}

/// What is known about a reply whose task has ended.
struct Activity {
    /// When the end of the task was read.
    ended_at: Instant,
    /// Since when this node hears what workers publish, at least `ended_at`.
    began: Instant,
    last_event: Instant,
    /// The task succeeded, and no other reply runs on the channel: what comes now is of a task that it has started.
    may_continue: bool,
}

impl Activity {
    /// When the terminal event is no longer waited for, if no event comes before. `delay` is the usual time.
    fn due(&self, delay: Duration) -> Instant {
        let Self { ended_at, began, last_event, may_continue } = *self;
        if !may_continue {
            return (began.max(last_event) + delay).min(began + MAX_TERMINAL_EVENT_DELAY);
        }
        let is_continued = last_event > ended_at + ENGINE_DELAY;
        began.max(last_event) + if is_continued { CONTINUED_REPLY_DELAY } else { delay }
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

#[cfg(test)]
mod tests;
