//! What is published of a dialect's stream. All texts are escaped already.

use bytes::Bytes;

use super::escaped::Escaped;
use super::item::{FinishReason, ToolResult, Usage};
use crate::protocol::{EventName, json_text};

/// Writes the publications of one reply.
pub(super) struct Writer {
    /// The last member of each, with the closing brace.
    tail: String,
}

/// A publication in progress.
struct Object<'a> {
    json: String,
    tail: &'a str,
}

impl Writer {
    pub fn new(task_id: &str) -> Self {
        Self { tail: format!(r#","task_id":{}}}"#, serde_json::Value::from(task_id)) }
    }

    pub fn chunk(&self, text: &str, choice: u64, is_refusal: bool) -> Bytes {
        let object = self.object(EventName::Chunk, text.len()).text("chunk", text);
        let object = if is_refusal { object.raw("refusal", "true") } else { object };
        object.choice(choice).finish()
    }

    pub fn reasoning(&self, text: &str, choice: u64) -> Bytes {
        self.object(EventName::Reasoning, text.len())
            .text("reasoning", text)
            .choice(choice)
            .finish()
    }

    pub fn tool_start(&self, id: &str, name: &str, choice: u64) -> Bytes {
        self.tool_call("start", id, name).choice(choice).finish()
    }

    pub fn tool_arguments(&self, id: &str, name: &str, delta: &str, choice: u64) -> Bytes {
        self.tool_call("arguments", id, name).text("delta", delta).choice(choice).finish()
    }

    pub fn tool_end(&self, id: &str, name: &str, arguments: &str, choice: u64) -> Bytes {
        self.tool_call("end", id, name).text("arguments", arguments).choice(choice).finish()
    }

    fn tool_call(&self, state: &str, id: &str, name: &str) -> Object<'_> {
        self.object(EventName::ToolCall, id.len() + name.len() + 64)
            .text("state", state)
            .text("id", id)
            .text("name", name)
    }

    pub fn tool_result(&self, result: &ToolResult<'_>) -> Bytes {
        let mut object =
            self.object(EventName::ToolResult, result.result.len()).text("id", result.id.as_str());
        if !result.name.is_empty() {
            object = object.text("name", result.name.as_str());
        }
        object = match json_text(result.result) {
            Some(json) => object.raw("result", &json),
            // It is nested more deeply than clients can read.
            None => object.text("result", Escaped::new(result.result).as_str()),
        };
        if result.is_error {
            object = object.raw("is_error", "true");
        }
        object.finish()
    }

    pub fn usage(&self, usage: &Usage) -> Bytes {
        let members = [
            ("input_tokens", usage.input),
            ("output_tokens", usage.output),
            ("total_tokens", usage.total()),
            ("cached_input_tokens", usage.cached_input),
            ("cache_write_tokens", usage.cache_write),
            ("reasoning_tokens", usage.reasoning),
        ];
        let mut object = self.object(EventName::Usage, 128);
        for (name, count) in members {
            if let Some(count) = count {
                object = object.raw(name, &count.to_string());
            }
        }
        object.finish()
    }

    /// `json` is a JSON value, and `name` what the stream calls it.
    pub fn native(&self, name: &str, json: &str) -> Bytes {
        let mut object = self.object(EventName::Native, json.len() + name.len());
        if !name.is_empty() {
            object = object.text("name", Escaped::new(name).as_str());
        }
        object.raw("data", json).finish()
    }

    /// `raw` is the API's own word for the reason.
    pub fn complete(&self, reason: FinishReason, raw: &str) -> Bytes {
        let object =
            self.object(EventName::Complete, raw.len() + 64).text("finish_reason", reason.label());
        match raw.is_empty() || raw == reason.label() {
            true => object,
            false => object.text("raw_finish_reason", raw),
        }
        .finish()
    }

    fn object(&self, event: EventName, size: usize) -> Object<'_> {
        let mut json = String::with_capacity(size + self.tail.len() + 48);
        json.extend([r#"{"event":""#, event.label(), "\""]);
        Object { json, tail: &self.tail }
    }
}

impl Object<'_> {
    fn text(mut self, name: &str, escaped: &str) -> Self {
        self.json.extend([",\"", name, "\":\"", escaped, "\""]);
        self
    }

    fn raw(mut self, name: &str, json: &str) -> Self {
        self.json.extend([",\"", name, "\":", json]);
        self
    }

    /// Most replies have one choice, the first, which is not named.
    fn choice(self, choice: u64) -> Self {
        if choice == 0 { self } else { self.raw("choice", &choice.to_string()) }
    }

    fn finish(mut self) -> Bytes {
        self.json.push_str(self.tail);
        self.json.into()
    }
}
