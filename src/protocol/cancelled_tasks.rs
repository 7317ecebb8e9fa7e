//! Which events belong to a cancelled task, so that no client gets them any more.
//!
//! An event with a task id belongs to that task. An event without one belongs to the only task that ran on its channel
//! when it was cancelled, until something else starts there, the task's own end comes, or it is forgotten.
//! src/broker/history/cancelled.lua decides in the same way.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{EventMembers, EventName, Position, json_text};

/// How long a cancelled task is remembered.
pub const CANCELLED_MEMORY: Duration = Duration::from_secs(10 * 60);

/// How long after the cancellation an event without a task id belongs to the task whatever its name is. After that, only
/// one whose name is among those of the task's events does, so that other events on the channel are not lost for long.
pub const ANY_NAME_MEMORY: Duration = Duration::from_secs(30);

/// The most cancelled tasks that are remembered for one channel.
const MAX_TASKS: usize = 64;

/// What the names of a message for the nodes begin with, which they do not pass on.
pub const INTERNAL_PREFIX: &[u8] = b"tidegate.";

/// The names of events without a task id by which a task is recognised, and whether they end it. `None` stands for one
/// by which another task begins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventNames(BTreeMap<Box<str>, Option<bool>>);

impl EventNames {
    /// `parts` are the names of the events that a task has published, `ends` those of terminal events. A task that has
    /// begun does not begin again.
    pub fn new<'a>(
        parts: impl IntoIterator<Item = &'a str>,
        ends: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let (begin, chunk) = (EventName::ProcessingStarted.label(), EventName::Chunk.label());
        let mut names = BTreeMap::from([begin, chunk].map(|name| (name.into(), Some(false))));
        for name in parts {
            names.insert(name.into(), (name != begin).then_some(false));
        }
        names.extend(ends.into_iter().map(|name| (name.into(), Some(true))));
        Self(names)
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and booleans serialize")
    }
}

/// A message that a script publishes for the nodes on a channel, in the place where it applies.
#[derive(Debug, Deserialize)]
#[serde(tag = "event")]
pub enum TaskNotice {
    /// The channel's only task is about to be cancelled.
    #[serde(rename = "tidegate.task_cancelled")]
    Cancelled { names: EventNames },
    /// A task starts, or nothing of a cancelled task is expected any more.
    #[serde(rename = "tidegate.task_started")]
    Started { task_id: Option<Box<str>> },
}

impl TaskNotice {
    pub fn read(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }
}

/// The cancelled tasks of one channel. Times are those since any fixed instant.
#[derive(Debug, Default)]
pub struct CancelledTasks {
    /// The oldest first, at most [`MAX_TASKS`].
    tasks: VecDeque<CancelledTask>,
    unnamed: Option<UnnamedEvents>,
}

#[derive(Debug)]
struct CancelledTask {
    id: Box<str>,
    at: Duration,
    /// The position of its terminal event. What came before belongs to the time when it ran.
    end: Option<Position>,
}

/// The events without a task id that belong to a cancelled task.
#[derive(Debug)]
struct UnnamedEvents {
    names: EventNames,
    at: Duration,
    end: Option<Position>,
}

impl CancelledTasks {
    /// A task was cancelled, by an event at `end`.
    pub fn cancel(&mut self, id: &str, end: Option<Position>, now: Duration) {
        self.forget(id);
        if self.tasks.len() >= MAX_TASKS {
            self.tasks.pop_front();
        }
        self.tasks.push_back(CancelledTask { id: id.into(), at: now, end });
        if let Some(unnamed) = &mut self.unnamed {
            unnamed.end = unnamed.end.or(end);
        }
    }

    /// A task was cancelled, by an event that came before `position`. Does nothing if it is remembered.
    pub fn learn(&mut self, id: &str, position: Position, now: Duration) {
        if !self.tasks.iter().any(|task| *task.id == *id) {
            self.cancel(id, Some(position), now);
        }
    }

    /// Events without a task id belong to the task that is being cancelled.
    pub fn cancel_unnamed(&mut self, names: EventNames, now: Duration) {
        self.unnamed = Some(UnnamedEvents { names, at: now, end: None });
    }

    /// A task starts, to which events without a task id may belong.
    pub fn start(&mut self) {
        self.unnamed = None;
    }

    /// Forgets a task that starts again, if it was cancelled before `before`.
    pub fn restart(&mut self, id: &str, before: Duration) -> bool {
        let count = self.tasks.len();
        self.tasks.retain(|task| *task.id != *id || task.at >= before);
        self.tasks.len() < count
    }

    fn forget(&mut self, id: &str) {
        self.tasks.retain(|task| *task.id != *id);
    }

    /// Whether a publication belongs to a cancelled task. `position` is its own, if it has one.
    pub fn covers(&mut self, json: &[u8], position: Option<Position>, now: Duration) -> bool {
        // As clients get it: numbers that JSON does not have are in quotes.
        let Some(json) = std::str::from_utf8(json).ok().and_then(json_text) else { return false };
        let Some(members) = EventMembers::read(json.as_bytes()) else { return false };
        if let Some(id) = members.task_id() {
            return self.tasks.iter().any(|task| {
                *task.id == *id && now < task.at + CANCELLED_MEMORY && is_after(position, task.end)
            });
        }
        let Some(unnamed) = &self.unnamed else { return false };
        let Some(name) = members.event().filter(|_| members.names_no_task()) else { return false };
        let is_presence = [EventName::Join, EventName::Leave].iter().any(|own| own.label() == name);
        if is_presence || now >= unnamed.at + CANCELLED_MEMORY || !is_after(position, unnamed.end) {
            return false;
        }
        match unnamed.names.0.get(&*name) {
            Some(Some(false)) => true,
            Some(end) => {
                // The task has ended, or another one begins: other events do not belong to it.
                let is_end = end.is_some();
                self.unnamed = None;
                is_end
            }
            None => now < unnamed.at + ANY_NAME_MEMORY,
        }
    }

    /// Whether nothing is remembered any more.
    pub fn is_expired(&self, now: Duration) -> bool {
        let is_old = |at: Duration| now >= at + CANCELLED_MEMORY;
        self.tasks.iter().all(|task| is_old(task.at))
            && self.unnamed.as_ref().is_none_or(|unnamed| is_old(unnamed.at))
    }
}

/// Whether a publication was published after the end at `end`. One without a position was, as it is not repeated.
fn is_after(position: Option<Position>, end: Option<Position>) -> bool {
    match (position, end) {
        (Some(position), Some(end)) if position.epoch == end.epoch => position.offset > end.offset,
        _ => true,
    }
}

#[cfg(test)]
mod tests;
