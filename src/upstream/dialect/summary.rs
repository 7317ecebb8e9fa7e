//! What a whole reply came to.

use super::escaped;
use super::item::{FinishReason, Usage};
use crate::upstream::kept::KeptShare;

/// What a reply has said so far. The texts and the tool calls are only collected on request.
#[derive(Debug, Default)]
pub struct ReplySummary {
    /// The text of the first choice, as it is escaped in JSON.
    escaped_text: String,
    /// The thoughts of the first choice, in the same form.
    escaped_reasoning: String,
    /// `None` = texts and tool calls are not collected.
    collected: Option<Box<Collected>>,
    /// Whether something was left out, because it was too long.
    pub is_cut: bool,
    is_text_cut: bool,
    is_reasoning_cut: bool,
    pub tool_calls: Vec<SummaryToolCall>,
    tool_call_bytes: usize,
    pub usage: Usage,
    /// `None` = the reply is not complete.
    pub finish_reason: Option<FinishReason>,
}

/// What is collected.
#[derive(Debug)]
pub struct Collected {
    /// The most bytes of text, of thoughts and of tool calls, each.
    pub max_bytes: usize,
    pub has_reasoning: bool,
    /// What all of it takes; `None` = nothing bounds it but `max_bytes`.
    pub share: Option<KeptShare>,
}

impl Collected {
    /// Whether there is room for so many bytes more behind these. It is taken then.
    fn take(&mut self, used: usize, more: usize) -> bool {
        used + more <= self.max_bytes && self.share.as_mut().is_none_or(|share| share.grow(more))
    }
}

/// A tool call, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SummaryToolCall {
    pub id: String,
    pub name: String,
    /// JSON, if the model has written it right.
    pub arguments: String,
}

impl ReplySummary {
    /// Collects texts and tool calls from now on.
    pub fn collect(&mut self, collected: Collected) {
        self.collected = Some(Box::new(collected));
    }

    /// Whether texts and tool calls are collected.
    pub fn collects(&self) -> bool {
        self.collected.is_some()
    }

    /// Whether the thoughts are.
    pub fn collects_reasoning(&self) -> bool {
        self.collected.as_ref().is_some_and(|collected| collected.has_reasoning)
    }

    /// The text of the first choice.
    pub fn text(&self) -> String {
        escaped::decode(&self.escaped_text).into_owned()
    }

    /// The thoughts of the first choice.
    pub fn reasoning(&self) -> String {
        escaped::decode(&self.escaped_reasoning).into_owned()
    }

    pub(in crate::upstream) fn add_text(&mut self, escaped_text: &str) {
        let Some(collected) = self.collected.as_mut().filter(|_| !self.is_text_cut) else { return };
        if collected.take(self.escaped_text.len(), escaped_text.len()) {
            self.escaped_text.push_str(escaped_text);
        } else {
            (self.is_text_cut, self.is_cut) = (true, true);
        }
    }

    pub(in crate::upstream) fn add_reasoning(&mut self, escaped_text: &str) {
        let Some(collected) = self.collected.as_mut() else { return };
        if !collected.has_reasoning || self.is_reasoning_cut {
            return;
        }
        if collected.take(self.escaped_reasoning.len(), escaped_text.len()) {
            self.escaped_reasoning.push_str(escaped_text);
        } else {
            (self.is_reasoning_cut, self.is_cut) = (true, true);
        }
    }

    /// The texts are as they are escaped in JSON.
    pub(in crate::upstream) fn add_tool_call(&mut self, id: &str, name: &str, arguments: &str) {
        let Some(collected) = self.collected.as_mut() else { return };
        let bytes = id.len() + name.len() + arguments.len();
        if !collected.take(self.tool_call_bytes, bytes) {
            self.is_cut = true;
            return;
        }
        self.tool_call_bytes += bytes;
        let decode = |text| escaped::decode(text).into_owned();
        self.tool_calls.push(SummaryToolCall {
            id: decode(id),
            name: decode(name),
            arguments: decode(arguments),
        });
    }
}
