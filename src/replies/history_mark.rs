//! The mark in a channel's history at which a generation began.

use std::cell::Cell;

use tokio::runtime::Handle;

use crate::broker::History;
use crate::generations::Task;
use crate::redis_link::{Commands, Step, StepAnswer};

/// While the mark is set, clients that connect see the channel from where the generation began. It is removed
/// when this is dropped. Failing to set or remove it is not an error: without it later clients see less of the
/// reply, and it expires.
pub(super) struct HistoryMark {
    history: History,
    task: Task,
    is_set: Cell<bool>,
    /// Whether the engine has confirmed it.
    is_confirmed: Cell<bool>,
    /// The mark of the same generation under the id that it had before, until this one replaces it.
    replaced: Option<Box<HistoryMark>>,
}

impl HistoryMark {
    /// A mark that is not set yet.
    pub fn new(history: &History, task: Task) -> Self {
        Self {
            history: history.clone(),
            task,
            is_set: Cell::new(false),
            is_confirmed: Cell::new(false),
            replaced: None,
        }
    }

    /// The mark of the same generation as `task`, which is what the upstream calls it. It is not set yet. Setting it
    /// replaces this one in one step: at no time do two marks count as two generations, whose events without a task id
    /// belong to neither, and a client that connects sees what was published before the upstream answered.
    pub fn named(self, task: Task) -> Self {
        let mut named = Self::new(&self.history, task);
        named.replaced = Some(Box::new(self));
        named
    }

    /// The mark of a generation that began on another node.
    pub fn adopt(history: &History, task: Task) -> Self {
        let mark = Self::new(history, task);
        mark.is_set.set(true);
        mark.is_confirmed.set(true);
        mark
    }

    pub fn task(&self) -> &Task {
        &self.task
    }

    /// Sets the mark. Does nothing if it is set already, also where another node has recorded the end since.
    pub async fn set(&self) {
        if self.is_confirmed.get() {
            return;
        }
        self.is_set.set(true);
        let Task { channel, id } = &self.task;
        let replaced = self.replaced.as_ref();
        let replaced_id = replaced.map(|mark| &*mark.task.id);
        let set = self.history.record_generation_start(channel, id, replaced_id).await;
        self.is_confirmed.set(set.is_ok());
        if let (Ok(()), Some(mark)) = (set, replaced) {
            mark.is_set.set(false);
        }
    }

    /// The step of a chain that sets the mark, and the connection on which it runs; `None` on the memory engine. Counts
    /// as set from now on, until [`HistoryMark::take_answer`].
    pub fn step(&self) -> Option<(Step, &Commands)> {
        let Task { channel, id } = &self.task;
        let step = self.history.generation_start_step(channel, id)?;
        self.is_set.set(true);
        Some(step)
    }

    /// Takes the answer to the step; `None` = it has not run.
    pub fn take_answer(&self, answer: Option<&StepAnswer>) {
        self.is_set.set(answer.is_some());
        self.is_confirmed.set(answer.is_some_and(Option::is_some));
    }

    /// Removes the mark, and returns once that is done.
    pub async fn remove(self) {
        let _ = self.history.record_generation_end(&self.task.channel, &self.task.id).await;
        self.is_set.set(false);
    }

    /// Leaves the mark set, for the node or the reply that will remove it.
    pub fn leave_set(self) {
        self.is_set.set(false);
    }
}

impl Drop for HistoryMark {
    fn drop(&mut self) {
        if !self.is_set.get() || !self.history.records_generations(&self.task.channel) {
            return;
        }
        // Without a runtime the process is ending.
        if let Ok(runtime) = Handle::try_current() {
            let (history, task) = (self.history.clone(), self.task.clone());
            runtime.spawn(async move {
                let _ = history.record_generation_end(&task.channel, &task.id).await;
            });
        }
    }
}

#[cfg(test)]
mod tests;
