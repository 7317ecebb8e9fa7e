//! What a whole reply came to.

use super::escaped;
use super::item::{FinishReason, Usage};

/// What a reply has said so far. The texts and the tool calls are only collected on request.
#[derive(Debug, Default)]
pub struct ReplySummary {
    /// The text of the first choice, as it is escaped in JSON.
    escaped_text: String,
    /// The most bytes of text and of tool calls that are collected, each.
    max_bytes: usize,
    /// Whether something was left out, because it was too long.
    pub is_cut: bool,
    pub tool_calls: Vec<SummaryToolCall>,
    tool_call_bytes: usize,
    pub usage: Usage,
    /// `None` = the reply is not complete.
    pub finish_reason: Option<FinishReason>,
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
    /// Collects up to this many bytes of text from now on, and as many of tool calls.
    pub fn collect(&mut self, max_bytes: usize) {
        self.max_bytes = max_bytes;
    }

    /// Whether texts and tool calls are collected.
    pub fn collects(&self) -> bool {
        self.max_bytes > 0
    }

    /// The text of the first choice.
    pub fn text(&self) -> String {
        escaped::decode(&self.escaped_text).into_owned()
    }

    pub(in crate::upstream) fn add_text(&mut self, escaped_text: &str) {
        if self.max_bytes == 0 || self.is_cut {
            return;
        }
        if self.escaped_text.len() + escaped_text.len() > self.max_bytes {
            self.is_cut = true;
            return;
        }
        self.escaped_text.push_str(escaped_text);
    }

    pub(super) fn add_tool_call(&mut self, id: &str, name: &str, arguments: &str) {
        if self.max_bytes == 0 {
            return;
        }
        self.tool_call_bytes += id.len() + name.len() + arguments.len();
        if self.tool_call_bytes > self.max_bytes {
            self.is_cut = true;
            return;
        }
        let decode = |text| escaped::decode(text).into_owned();
        self.tool_calls.push(SummaryToolCall {
            id: decode(id),
            name: decode(name),
            arguments: decode(arguments),
        });
    }
}
