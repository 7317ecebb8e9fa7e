//! What commands of any node do on this node, apart from its threads: they are called on the engine thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock;
use crate::control::{
    CancelHook, Concerning, DebugHook, Gathering, GenerationRow, GenerationsHook, Target,
};
use crate::generations::{GenerationOrigin, RunningTasks, Task};
use crate::telemetry::log::{LogControl, Subject};

/// Cancels replies that run on this node. Commands of any node call it.
pub(super) fn cancel(running: &RunningTasks) -> CancelHook {
    let running = running.clone();
    Arc::new(move |channel, task_id| {
        u64::from(running.cancel(&Task { channel: channel.clone(), id: task_id.into() }))
    })
}

/// Turns on debug lines about one user, channel or connection. Commands of any node call it.
pub(super) fn debug(log: &LogControl) -> DebugHook {
    let log = log.clone();
    Arc::new(move |command| {
        let subject = match command.target() {
            Target::User(id) => Subject::User(id.to_string()),
            Target::Channel(name) => Subject::Channel(name.to_string()),
            Target::Connection(id) => Subject::Connection(id.to_string()),
        };
        u64::from(log.debug(subject, Duration::from_secs(command.seconds().into())).is_ok())
    })
}

/// Finds replies that run on this node: those on the channels, and those that the target has asked for.
pub(super) fn generations(running: &RunningTasks) -> GenerationsHook {
    let running = running.clone();
    Arc::new(move |query, node| {
        let found = running.find(|task, origin| concerns(task, origin, query));
        let (now, unix_now) = (Instant::now(), clock::since_unix_epoch());
        let unix =
            |at: Instant| unix_now.saturating_sub(now.saturating_duration_since(at)).as_secs();
        let mut rows = Gathering::new(query.limit);
        for (Task { channel, id }, activity) in found {
            let origin = activity.origin.clone();
            rows.add(GenerationRow {
                task_id: id,
                channel,
                route: origin.route,
                upstream: origin.upstream,
                node: node.into(),
                streams: origin.streams,
                connection_id: origin.connection,
                user_id: origin.user,
                began_at: unix(origin.began),
                last_event_at: activity.last_event_at().map(unix),
            });
        }
        rows.finish()
    })
}

fn concerns(task: &Task, origin: &GenerationOrigin, query: &Concerning) -> bool {
    query.has_channel(&task.channel)
        || match &query.target {
            Target::User(user) => origin.user.as_ref() == Some(user),
            Target::Connection(id) => origin.connection == Some(*id),
            Target::Channel(_) => false,
        }
}
