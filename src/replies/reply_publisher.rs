//! The events of a reply that the gateway itself publishes.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;

use super::history_mark::HistoryMark;
use crate::broker::{
    Cancellation, PublishError, PublishOnce, Published, ReplyEvent, TerminalEvent, ThreadPublisher,
    end_key,
};
use crate::generations::Task;
use crate::protocol::{EventNames, cancelled};
use crate::retry::retry;

/// How often an event is tried while the engine is unavailable, and the pause between two attempts.
const PUBLISH_ATTEMPTS: usize = 20;
const PUBLISH_PAUSE: Duration = Duration::from_millis(250);

/// How long a repeat of an event is recognised: longer than all attempts together take.
const REMEMBERED: Duration = Duration::from_secs(120);

/// Publishes the events of one generation, each once however often it has to be tried.
pub(super) struct ReplyPublisher {
    publisher: ThreadPublisher,
    task: Task,
    /// The number of events so far, without the terminal one.
    count: Cell<u64>,
    /// The mark of the generation in the history was removed with its terminal event.
    has_removed_mark: Cell<bool>,
}

impl ReplyPublisher {
    pub fn new(publisher: &ThreadPublisher, task: &Task) -> Self {
        Self {
            publisher: publisher.clone(),
            task: task.clone(),
            count: Cell::new(0),
            has_removed_mark: Cell::new(false),
        }
    }

    /// Publishes an event that does not end the generation. Returns false if the generation has ended, on whichever
    /// node: the event is not published then.
    pub async fn publish(&self, json: Bytes) -> Result<bool, PublishError> {
        self.count.set(self.count.get() + 1);
        let Task { channel, id } = &self.task;
        let (number, ttl) = (self.count.get(), REMEMBERED);
        let event = || ReplyEvent { task_id: id, number, ttl, json: &json };
        let published = self.retry(|| self.publisher.publish_event(channel, event())).await?;
        Ok(!published.refused)
    }

    /// Publishes the terminal event. If several nodes end a generation at the same time, one of them does.
    pub async fn publish_terminal(&self, json: Bytes) -> Result<(), PublishError> {
        self.end(json, None).await
    }

    /// Publishes that the task was cancelled. No client gets an event of it after that. `unnamed` are the names of the
    /// events without a task id that belong to it if nothing else runs on the channel.
    pub async fn publish_cancelled(&self, unnamed: Option<EventNames>) -> Result<(), PublishError> {
        self.end(cancelled(&self.task.id).into(), Some(Cancellation { unnamed })).await
    }

    async fn end(
        &self,
        json: Bytes,
        cancellation: Option<Cancellation>,
    ) -> Result<(), PublishError> {
        let Task { channel, id } = &self.task;
        let once = PublishOnce { key: end_key(id), number: 1, ttl: REMEMBERED, unless: None };
        let terminal = TerminalEvent { task_id: id.clone(), json, once, cancellation };
        let ended = self.retry(|| self.publisher.end_generation(channel, &terminal)).await?;
        self.has_removed_mark.set(!ended.duplicate && self.publisher.removes_marks());
        Ok(())
    }

    /// Removes the mark of the generation, unless that was done with its terminal event.
    pub async fn remove(&self, mark: HistoryMark) {
        match self.has_removed_mark.get() {
            true => mark.leave_set(),
            false => mark.remove().await,
        }
    }

    /// An attempt without an answer may have been published all the same; it is not published again.
    async fn retry<F: Future<Output = Result<Published, PublishError>>>(
        &self,
        publish: impl FnMut() -> F,
    ) -> Result<Published, PublishError> {
        let is_transient = |error: &PublishError| *error == PublishError::EngineUnavailable;
        retry(PUBLISH_ATTEMPTS, PUBLISH_PAUSE, is_transient, publish).await
    }
}
