//! Ollama's own API: `/api/chat` and `/api/generate`.
//!
//! The proof of the end: an object with `"done":true`.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::escaped::{Count, Escaped, Text};
use super::item::{CallKey, Delta, End, Failure, FinishReason, Item, NotJson, Progress, Usage};
use super::{Event, Reader, Sink, parse};

#[derive(Default)]
pub(super) struct Ollama {
    calls: u64,
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow, default)]
    message: Option<Message<'a>>,
    /// The text of `/api/generate`.
    #[serde(borrow, default)]
    response: Text<'a>,
    #[serde(borrow, default)]
    thinking: Text<'a>,
    #[serde(default)]
    done: Option<bool>,
    #[serde(borrow, default)]
    done_reason: Text<'a>,
    #[serde(default)]
    prompt_eval_count: Count,
    #[serde(default)]
    eval_count: Count,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    content: Text<'a>,
    #[serde(borrow, default)]
    thinking: Text<'a>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<ToolCall<'a>>>,
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow, default)]
    id: Text<'a>,
    #[serde(borrow, default)]
    function: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

impl Reader for Ollama {
    fn read(&mut self, event: Event<'_>, sink: &mut Sink<'_>) -> Result<Progress, NotJson> {
        let Some(object) = parse::<Object<'_>>(event.data)? else {
            sink(Item::Unknown);
            return Ok(Progress::Running);
        };
        if let Some(error) = object.error {
            sink(Item::End(End::Failed(Failure::read(error.get()))));
            return Ok(Progress::Over);
        }
        let message = object.message.as_ref();
        let is_known =
            message.is_some() || object.response.get().is_some() || object.done.is_some();
        if !is_known {
            sink(Item::Unknown);
            return Ok(Progress::Running);
        }
        let thinking = message.map_or(object.thinking, |message| message.thinking);
        if let Some(text) = thinking.filled() {
            sink(Item::Reasoning(Delta::new(text)));
        }
        let text = message.map_or(object.response, |message| message.content);
        if let Some(text) = text.filled() {
            sink(Item::Text(Delta::new(text)));
        }
        for call in message.and_then(|message| message.tool_calls.as_ref()).into_iter().flatten() {
            self.read_call(call, sink);
        }
        if object.done != Some(true) {
            return Ok(Progress::Running);
        }
        let usage = Usage {
            input: object.prompt_eval_count.0,
            output: object.eval_count.0,
            ..Usage::default()
        };
        sink(Item::Usage(usage));
        sink(Item::End(self.end(object.done_reason)));
        Ok(Progress::Over)
    }
}

impl Ollama {
    /// Tool calls come whole.
    fn read_call(&mut self, call: &ToolCall<'_>, sink: &mut Sink<'_>) {
        let Some(function) = &call.function else { return };
        let key = CallKey::Number(0, self.calls);
        self.calls += 1;
        let (id, name) = (call.id.get().unwrap_or_default(), function.name.get());
        let name = name.unwrap_or_default();
        sink(Item::ToolStart { call: key, id, name, choice: 0 });
        sink(Item::ToolEnd { call: key, arguments: function.arguments.map(Escaped::of_value) });
    }

    /// Older versions give no reason.
    fn end<'a>(&self, reason: Text<'a>) -> End<'a> {
        let raw = reason.filled();
        let reason = raw.as_ref().map_or(FinishReason::Stop, |raw| FinishReason::of(raw.as_str()));
        let reason = match reason {
            FinishReason::Stop if self.calls > 0 => FinishReason::ToolCalls,
            reason => reason,
        };
        End::Completed { reason, raw: raw.unwrap_or_default() }
    }
}
