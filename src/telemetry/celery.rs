//! Celery tasks: how they ended, and results that cannot be read.

use tracing::{debug, warn};

use super::definitions::{metrics, words};
use crate::protocol::label_enum;

metrics! {
    /// Celery tasks whose result was read, by how they ended. Those that returned the results of others count twice.
    CELERY_TASKS = counter "tidegate_celery_tasks_total" [outcome: words(&[CeleryOutcome::LABELS])];
    /// Celery tasks whose id could not be added to the backend's key.
    CELERY_UNTRACKED = counter "tidegate_celery_untracked_tasks_total";
}

label_enum! {
    /// How a Celery task ended.
    pub enum TaskEnd {
        /// The state `SUCCESS`.
        Succeeded => "succeeded",
        /// The state `FAILURE`: the task raised, its process died, or no worker knows it.
        Failed => "failed",
        /// The state `REVOKED`.
        Revoked => "revoked",
        /// The state `REVOKED`, because the task had waited too long.
        Expired => "expired",
    }
}

label_enum! {
    enum CeleryOutcome {
        Unreadable => "unreadable",
        /// It returned the results of other tasks.
        Promised => "promised";
        Ended(TaskEnd),
    }
}

/// The result backend has the result of a Celery task that this node monitors.
pub fn task_ended(end: TaskEnd, task_id: &str, exception: Option<&str>) {
    let outcome = CeleryOutcome::Ended(end).label();
    CELERY_TASKS.at([outcome]).increment(1);
    debug!(event = "celery_task_ended", outcome, task_id, exception, "a Celery task has ended");
}

label_enum! {
    /// The setting of Celery that makes a result unreadable.
    pub enum UnreadableResult {
        /// The result is not JSON, but a pickle, YAML or MessagePack.
        Serializer => "result_serializer",
        /// The result is compressed.
        Compression => "result_compression",
    }
}

/// A result is not a Celery result in JSON, because of this setting. The backend is no longer asked for it.
pub fn result_unreadable(task_id: &str, setting: UnreadableResult) {
    CELERY_TASKS.at([CeleryOutcome::Unreadable.label()]).increment(1);
    let setting = setting.label();
    warn!(
        event = "celery_result_unreadable",
        task_id,
        setting,
        "the result of a Celery task cannot be read, so its end is not noticed: set result_serializer to json and result_compression to None"
    );
}

/// A task returned the results of other tasks instead of its own. Unless they are too many, they are awaited.
pub fn task_promised(task_id: &str, tasks: usize, awaited: bool) {
    CELERY_TASKS.at([CeleryOutcome::Promised.label()]).increment(1);
    warn!(
        event = "celery_task_promised",
        task_id,
        tasks,
        awaited,
        "a Celery task returned the results of other tasks; its reply ends when they end, unless they store no results (ignore_result)"
    );
}

/// A task is queued, but its id could not be added to the backend's key.
pub fn task_not_tracked(reason: &str) {
    CELERY_UNTRACKED.get().increment(1);
    warn!(
        event = "celery_task_not_tracked",
        reason, "failed to add the id of a Celery task to the backend's key"
    );
}
