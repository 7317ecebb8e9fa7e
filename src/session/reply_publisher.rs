//! What the gateway itself publishes of a generation.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;

use crate::broker::{PublishError, PublishOnce, Publisher};
use crate::generations::Task;

/// While the engine is away, an event is tried again this often, with this pause.
const PUBLISH_ATTEMPTS: usize = 20;
const PUBLISH_PAUSE: Duration = Duration::from_millis(250);

/// For how long a repeat of an event is recognised: longer than all attempts together take.
const REMEMBERED: Duration = Duration::from_secs(120);

/// Publishes the events of one generation, each once however often it has to be tried.
pub(super) struct ReplyPublisher {
    publisher: Publisher,
    task: Task,
    /// Events so far.
    said: Cell<u64>,
}

impl ReplyPublisher {
    pub fn new(publisher: &Publisher, task: &Task) -> Self {
        Self { publisher: publisher.clone(), task: task.clone(), said: Cell::new(0) }
    }

    /// An event that is not the last.
    pub async fn say(&self, json: Bytes) -> Result<(), PublishError> {
        self.said.set(self.said.get() + 1);
        self.publish(self.task.id.to_string(), self.said.get(), json).await
    }

    /// The terminal event: of several nodes that end a generation at the same time, one does.
    pub async fn say_last(&self, json: Bytes) -> Result<(), PublishError> {
        self.publish(format!("end:{}", self.task.id), 1, json).await
    }

    async fn publish(&self, key: String, number: u64, json: Bytes) -> Result<(), PublishError> {
        // An attempt without an answer may have been published all the same.
        let once = PublishOnce { key, number, remembered: REMEMBERED };
        let mut result = Ok(());
        for attempt in 0..PUBLISH_ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(PUBLISH_PAUSE).await;
            }
            let published = self.publisher.publish(&self.task.channel, json.clone(), Some(&once));
            result = published.await.map(|_| ());
            if result != Err(PublishError::EngineUnavailable) {
                break;
            }
        }
        result
    }
}
