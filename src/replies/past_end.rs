//! Whether a reply has ended while no node heard it, as its channel's history tells.

use std::time::Duration;

use bytes::Bytes;

use super::Replies;
use crate::broker::{GenerationState, ReadFrom};
use crate::generations::Task;
use crate::protocol::{EventMembers, Position, ReplyEnd};
use crate::redis_link::EngineUnavailable;
use crate::socket::frame;
use crate::upstream::{Collected, ReplySummary};

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

    /// Reads what the history of its channel still has of a reply that another node streamed. If the engine does not
    /// answer, nothing is known.
    pub(super) async fn reply_in_history(
        &self,
        task: &Task,
        collected: Option<Collected>,
    ) -> PastReply {
        let has_ended = self.has_ended_in_history(task, EndSearch::NamedOnly).await;
        let mut reply = PastReply { has_ended, ..PastReply::default() };
        let collects = collected.is_some();
        if let Some(collected) = collected {
            reply.summary.collect(collected);
        }
        let tracker = &self.services.generations.tracker;
        let mut is_end = |json: &[u8]| {
            if collects {
                observe(&mut reply.summary, task, json);
            }
            let end = tracker.reply_end(&task.channel, json, false);
            let is_end = matches!(end, Some(ReplyEnd::Named(other)) if *other == *task.id);
            if is_end {
                reply.terminal = Some(Bytes::copy_from_slice(json));
            }
            is_end
        };
        let read = match self.history.generation_state(&task.channel, &task.id).await {
            Ok(Some(state)) => self.read_reply(task, &state, &mut is_end).await,
            _ => Ok(PastRead::default()),
        };
        let PastRead { has_ended, is_whole } = read.unwrap_or_default();
        reply.has_ended |= has_ended;
        reply.summary.is_cut |= !is_whole;
        reply
    }

    async fn find_end(&self, task: &Task, search: EndSearch) -> Result<bool, EngineUnavailable> {
        let Task { channel, id } = task;
        let Some(state) = self.history.generation_state(channel, id).await? else {
            return Ok(false);
        };
        if state.has_ended {
            return Ok(true);
        }
        let is_alone = state.start.is_some() && state.others == 0;
        let tracker = &self.services.generations.tracker;
        let is_end = |json: &[u8]| {
            let end = tracker.reply_end(channel, json, search == EndSearch::AnyComplete);
            end.is_some_and(|end| match end {
                ReplyEnd::Named(other) => *other == **id,
                ReplyEnd::Unnamed => search != EndSearch::NamedOnly && is_alone,
            })
        };
        Ok(self.read_reply(task, &state, is_end).await?.has_ended)
    }

    /// Reads the publications of the channel since the beginning of a reply, until `is_end` returns true for one.
    async fn read_reply(
        &self,
        task: &Task,
        state: &GenerationState,
        mut is_end: impl FnMut(&[u8]) -> bool,
    ) -> Result<PastRead, EngineUnavailable> {
        let channel = &task.channel;
        let GenerationState { epoch, start, .. } = *state;
        let Some(oldest) = self.history.extent(channel).await?.and_then(|extent| extent.oldest)
        else {
            return Ok(PastRead::default());
        };
        let is_whole = start.is_some_and(|start| start + 1 >= oldest);
        let mut after = start.unwrap_or(0).max(oldest.saturating_sub(1));
        loop {
            let from = ReadFrom::After(Position { epoch, offset: after });
            let page = self.history.read(channel, from).await?;
            if page.publications.iter().any(|one| is_end(frame::payload(&one.frame))) {
                return Ok(PastRead { has_ended: true, is_whole });
            }
            match page.publications.last().and_then(|last| last.position) {
                Some(last) if !page.complete => after = last.offset,
                _ => return Ok(PastRead { has_ended: false, is_whole }),
            }
        }
    }
}

/// Takes a publication into the summary of a reply, if it is one of it.
fn observe(summary: &mut ReplySummary, task: &Task, json: &[u8]) {
    let Some(members) = EventMembers::read(json) else { return };
    if members.task_id().is_some_and(|id| *id == *task.id)
        && let Some(name) = members.event()
    {
        summary.observe(&name, json);
    }
}

/// What a history tells of a reply.
#[derive(Default)]
pub(super) struct PastReply {
    pub has_ended: bool,
    /// Its terminal event, if the history has it.
    pub terminal: Option<Bytes>,
    /// What its publications came to, with `is_cut` if the first ones are not there.
    pub summary: ReplySummary,
}

/// How the publications of a reply were read.
#[derive(Default)]
struct PastRead {
    has_ended: bool,
    /// Whether the history has them from the first on.
    is_whole: bool,
}
