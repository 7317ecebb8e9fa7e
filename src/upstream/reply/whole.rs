//! What a whole reply came to.

use super::{Content, Reply};
use crate::telemetry::upstreams::ReplyEnd;
use crate::upstream::dialect::{Collected, ReplySummary};
use crate::upstream::own_events;

impl Reply {
    /// Ends a reply after its terminal event, and returns what it came to. The rest of the body is not read.
    pub fn finish(self) -> ReplySummary {
        self.close(ReplyEnd::Complete)
    }

    /// Aborts the request of a reply that is not needed any more, and returns what the reply has said so far.
    pub fn abort(self) -> ReplySummary {
        self.close(ReplyEnd::GivenUp)
    }

    fn close(mut self, end: ReplyEnd) -> ReplySummary {
        if !self.is_ended {
            self.end_with(end);
        }
        self.summary_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Collects texts and tool calls for what the reply came to.
    pub fn collect(&mut self, collected: Collected) {
        match self.summary_mut() {
            Some(summary) => summary.collect(collected),
            None => self.to_collect = Some(collected),
        }
    }

    /// Takes what an event of the upstream's own says of the whole reply. `name` is its `event`.
    pub fn observe(&mut self, name: &str, json: &[u8]) {
        if let Content::Own(summary) = &mut self.content {
            own_events::observe(summary, name, json);
        }
    }

    fn summary_mut(&mut self) -> Option<&mut ReplySummary> {
        match &mut self.content {
            Content::Undecided => None,
            Content::Own(summary) => Some(summary),
            Content::Dialect(translation) => Some(translation.summary_mut()),
        }
    }
}
