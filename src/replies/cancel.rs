//! Cancelling a reply on a client's request.

use std::time::Duration;

use super::Replies;
use crate::broker::Page;
use crate::control::NodeCommand;
use crate::generations::Task;
use crate::protocol::ChannelName;

/// What became of a request to cancel a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelOutcome {
    /// The reply is about to end; its terminal event is the answer, to everybody on the channel.
    Requested,
    /// No such reply is in progress on any node.
    UnknownTask,
    /// The other nodes cannot be asked.
    EngineUnavailable,
}

impl Replies {
    /// Notes which tasks of a channel were cancelled before this node received its publications.
    pub fn record_cancelled(&self, channel: &ChannelName, page: &Page) {
        for task_id in &page.cancelled {
            self.services.generations.tracker.record_cancelled(channel, task_id, page.now);
        }
    }

    /// Cancels a reply of this node. `None` if this node does not know the task and others must be asked
    /// ([`Replies::cancel_elsewhere`]).
    pub fn cancel_here(&self, task: &Task) -> Option<CancelOutcome> {
        let generations = &self.services.generations;
        if generations.tracker.has_ended(task) {
            Some(CancelOutcome::UnknownTask)
        } else {
            generations.running.cancel(task).then_some(CancelOutcome::Requested)
        }
    }

    /// Asks the other nodes, if one of them is known to run or monitor the task. The request is also kept
    /// in the engine for `ttl`, for a node that has just taken the task over or misses the command.
    pub async fn cancel_elsewhere(&self, task: Task, ttl: Duration) -> CancelOutcome {
        match self.services.generations.ledger.request_cancel(&task, ttl).await {
            Ok(true) => {
                let command =
                    NodeCommand::Cancel { channel: task.channel, task_id: task.id.into() };
                // A node that the command does not reach finds the request in the engine.
                let _ = self.services.control.send(command).await;
                CancelOutcome::Requested
            }
            Ok(false) => CancelOutcome::UnknownTask,
            Err(_) => CancelOutcome::EngineUnavailable,
        }
    }
}
