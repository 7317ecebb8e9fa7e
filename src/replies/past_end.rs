//! Whether a reply has ended while no node heard it, as its channel's history tells.

use std::time::Duration;

use super::Replies;
use crate::broker::{GenerationState, ReadFrom};
use crate::generations::Task;
use crate::protocol::{Position, ReplyEnd};
use crate::redis_link::EngineUnavailable;
use crate::socket::frame;

/// When the history is searched for the end of a reply that was taken over: at once, and when this node surely hears
/// the channel.
const HISTORY_SEARCHES: [Duration; 2] = [Duration::ZERO, Duration::from_secs(2)];

/// Which events of a history count as the end of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndSearch {
    /// Terminal events that name its task.
    NamedOnly,
    /// Also those that name no task, unless other replies run on the channel: then it is not known whose end it is.
    TerminalEvents,
    /// Also a `complete` that is not a terminal event of the route, since the task is known to have succeeded.
    AnyComplete,
}

impl Replies {
    /// Whether the end of `task` is in the history of its channel. If the engine does not answer, it is not known to
    /// be there.
    pub(super) async fn has_ended_in_history(&self, task: &Task, search: EndSearch) -> bool {
        self.find_end(task, search).await.unwrap_or(false)
    }

    /// Completes if the end of `task`, which was taken over from another node, came while no node heard it.
    pub(super) async fn find_unheard_end(&self, task: &Task) {
        for pause in HISTORY_SEARCHES {
            tokio::time::sleep(pause).await;
            if self.has_ended_in_history(task, EndSearch::TerminalEvents).await {
                return;
            }
        }
        std::future::pending().await
    }

    async fn find_end(&self, task: &Task, search: EndSearch) -> Result<bool, EngineUnavailable> {
        let Task { channel, id } = task;
        let Some(state) = self.history.generation_state(channel, id).await? else {
            return Ok(false);
        };
        let GenerationState { epoch, start, has_ended, others } = state;
        if has_ended {
            return Ok(true);
        }
        let Some(oldest) = self.history.extent(channel).await?.and_then(|extent| extent.oldest)
        else {
            return Ok(false);
        };
        let is_alone = start.is_some() && others == 0;
        let tracker = &self.services.generations.tracker;
        let is_end = |json: &[u8]| {
            let end = tracker.reply_end(channel, json, search == EndSearch::AnyComplete);
            end.is_some_and(|end| match end {
                ReplyEnd::Named(other) => *other == **id,
                ReplyEnd::Unnamed => search != EndSearch::NamedOnly && is_alone,
            })
        };
        let mut after = start.unwrap_or(0).max(oldest.saturating_sub(1));
        loop {
            let from = ReadFrom::After(Position { epoch, offset: after });
            let page = self.history.read(channel, from).await?;
            if page.publications.iter().any(|one| is_end(frame::payload(&one.frame))) {
                return Ok(true);
            }
            match page.publications.last().and_then(|last| last.position) {
                Some(last) if !page.complete => after = last.offset,
                _ => return Ok(false),
            }
        }
    }
}
