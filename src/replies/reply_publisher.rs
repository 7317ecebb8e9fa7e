//! The events of a reply that the gateway itself publishes.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;

use crate::broker::{PublishError, PublishOnce, Publisher};
use crate::generations::Task;
use crate::retry::retry;

/// How often an event is tried while the engine is unavailable, and the pause between two attempts.
const PUBLISH_ATTEMPTS: usize = 20;
const PUBLISH_PAUSE: Duration = Duration::from_millis(250);

/// How long a repeat of an event is recognised: longer than all attempts together take.
const REMEMBERED: Duration = Duration::from_secs(120);

/// Publishes the events of one generation, each once however often it has to be tried.
pub(super) struct ReplyPublisher {
    publisher: Publisher,
    task: Task,
    /// The number of events so far, without the terminal one.
    count: Cell<u64>,
}

impl ReplyPublisher {
    pub fn new(publisher: &Publisher, task: &Task) -> Self {
        Self { publisher: publisher.clone(), task: task.clone(), count: Cell::new(0) }
    }

    /// Publishes an event that does not end the generation.
    pub async fn publish(&self, json: Bytes) -> Result<(), PublishError> {
        self.count.set(self.count.get() + 1);
        self.publish_once(self.task.id.to_string(), self.count.get(), json).await
    }

    /// Publishes the terminal event. If several nodes end a generation at the same time, one of them does.
    pub async fn publish_terminal(&self, json: Bytes) -> Result<(), PublishError> {
        self.publish_once(format!("end:{}", self.task.id), 1, json).await
    }

    async fn publish_once(
        &self,
        key: String,
        number: u64,
        json: Bytes,
    ) -> Result<(), PublishError> {
        // An attempt without an answer may have been published all the same.
        let once = PublishOnce { key, number, ttl: REMEMBERED };
        let is_transient = |error: &PublishError| *error == PublishError::EngineUnavailable;
        let publish = || self.publisher.publish(&self.task.channel, json.clone(), Some(&once));
        retry(PUBLISH_ATTEMPTS, PUBLISH_PAUSE, is_transient, publish).await.map(|_| ())
    }
}
