//! What an upstream's own events say of the whole reply, where they have the members of the gateway's own.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::dialect::{ReplySummary, Usage};
use crate::protocol::EventName;

/// `usage`, with the members that the events of dialects have.
#[derive(Deserialize)]
struct OwnUsage {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    total_tokens: Option<u64>,
    cached_input_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
}

/// `chunk` and `reasoning`, of the first choice.
#[derive(Deserialize)]
struct OwnText<'a> {
    #[serde(borrow)]
    chunk: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow)]
    choice: Option<&'a RawValue>,
}

impl OwnText<'_> {
    fn is_first_choice(&self) -> bool {
        self.choice.is_none_or(|choice| choice.get() == "0")
    }
}

/// The end of a `tool_call`.
#[derive(Deserialize)]
struct OwnToolCall<'a> {
    #[serde(borrow)]
    state: Cow<'a, str>,
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    name: &'a RawValue,
    #[serde(borrow)]
    arguments: &'a RawValue,
}

/// The inside of a JSON string.
fn text(json: &RawValue) -> Option<&str> {
    json.get().strip_prefix('"')?.strip_suffix('"')
}

/// Takes an event whose `event` is `name` and that is this object. What has other members is not understood, and says
/// nothing.
pub(super) fn observe(summary: &mut ReplySummary, name: &str, json: &[u8]) {
    if name == EventName::Usage.label()
        && let Ok(own) = serde_json::from_slice::<OwnUsage>(json)
    {
        summary.usage.update(Usage {
            input: own.input_tokens,
            output: own.output_tokens,
            total: own.total_tokens,
            cached_input: own.cached_input_tokens,
            cache_write: own.cache_write_tokens,
            reasoning: own.reasoning_tokens,
        });
    }
    if name == EventName::Chunk.label()
        && summary.collects()
        && let Ok(own @ OwnText { chunk: Some(chunk), .. }) = serde_json::from_slice(json)
        && own.is_first_choice()
        && let Some(text) = text(chunk)
    {
        summary.add_text(text);
    }
    if name == EventName::Reasoning.label()
        && summary.collects_reasoning()
        && let Ok(own @ OwnText { reasoning: Some(reasoning), .. }) = serde_json::from_slice(json)
        && own.is_first_choice()
        && let Some(text) = text(reasoning)
    {
        summary.add_reasoning(text);
    }
    if name == EventName::ToolCall.label()
        && summary.collects()
        && let Ok(OwnToolCall { state, id, name, arguments }) = serde_json::from_slice(json)
        && state == "end"
        && let (Some(id), Some(name), Some(arguments)) = (text(id), text(name), text(arguments))
    {
        summary.add_tool_call(id, name, arguments);
    }
}

impl ReplySummary {
    /// Takes a publication of the reply, whose `event` is `name`.
    pub fn observe(&mut self, name: &str, json: &[u8]) {
        observe(self, name, json);
    }
}
