//! Anthropic's Messages.
//!
//! The proof of the end: `message_stop` after a `message_delta` with a `stop_reason`.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::escaped::{Count, Escaped, Text};
use super::item::{CallKey, Delta, End, Failure, Item, NotJson, Progress, ToolResult, Usage};
use super::{Event, Reader, Sink, parse};

#[derive(Default)]
pub(super) struct Anthropic {
    stop_reason: Option<Escaped<'static>>,
    usage: UsageMembers,
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(default)]
    index: Count,
    #[serde(borrow, default)]
    delta: Option<DeltaMembers<'a>>,
    #[serde(borrow, default)]
    content_block: Option<Block<'a>>,
    #[serde(borrow, default)]
    message: Option<Message<'a>>,
    #[serde(default)]
    usage: Option<UsageMembers>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct DeltaMembers<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    text: Text<'a>,
    #[serde(borrow, default)]
    thinking: Text<'a>,
    #[serde(borrow, default)]
    partial_json: Text<'a>,
    #[serde(borrow, default)]
    stop_reason: Text<'a>,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    text: Text<'a>,
    #[serde(borrow, default)]
    thinking: Text<'a>,
    #[serde(borrow, default)]
    id: Text<'a>,
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_use_id: Text<'a>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(default)]
    is_error: Option<bool>,
}

/// A message: its beginning in a stream, or an answer that is not streamed.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    content: Option<Vec<Block<'a>>>,
    #[serde(borrow, default)]
    stop_reason: Text<'a>,
    #[serde(default)]
    usage: Option<UsageMembers>,
}

/// Each is cumulative, and may be left out where it has not changed.
#[derive(Deserialize, Default, Clone, Copy)]
struct UsageMembers {
    #[serde(default)]
    input_tokens: Count,
    #[serde(default)]
    cache_creation_input_tokens: Count,
    #[serde(default)]
    cache_read_input_tokens: Count,
    #[serde(default)]
    output_tokens: Count,
}

impl Reader for Anthropic {
    fn read(&mut self, event: Event<'_>, sink: &mut Sink<'_>) -> Result<Progress, NotJson> {
        let Some(object) = parse::<Object<'_>>(event.data)? else {
            sink(Item::Unknown);
            return Ok(Progress::Running);
        };
        let call = CallKey::Number(0, object.index.0.unwrap_or(0));
        match object.kind.word() {
            "content_block_delta" => match object.delta {
                Some(delta) => read_delta(&delta, call, sink),
                None => sink(Item::Unknown),
            },
            "content_block_start" => match object.content_block {
                Some(block) => read_block(&block, call, sink),
                None => sink(Item::Unknown),
            },
            "content_block_stop" => sink(Item::ToolEnd { call, arguments: None }),
            "message_start" => {
                if let Some(usage) = object.message.and_then(|message| message.usage) {
                    self.take_usage(usage, sink);
                }
            }
            "message_delta" => {
                if let Some(reason) = object.delta.and_then(|delta| delta.stop_reason.filled()) {
                    self.stop_reason = Some(reason.into_owned());
                }
                if let Some(usage) = object.usage {
                    self.take_usage(usage, sink);
                }
            }
            "message_stop" => return Ok(self.stop(sink)),
            "ping" => {}
            "message" => return self.read_whole(event.data, sink),
            "error" => return Ok(fail(event.data, sink)),
            _ if object.error.is_some() => return Ok(fail(event.data, sink)),
            _ => sink(Item::Unknown),
        }
        Ok(Progress::Running)
    }
}

impl Anthropic {
    fn stop(&mut self, sink: &mut Sink<'_>) -> Progress {
        match &self.stop_reason {
            Some(reason) => {
                sink(Item::End(End::completed(reason.clone())));
                Progress::Over
            }
            None => Progress::Running,
        }
    }

    fn take_usage(&mut self, later: UsageMembers, sink: &mut Sink<'_>) {
        let update = |count: &mut Count, later: Count| count.0 = later.0.or(count.0);
        let known = &mut self.usage;
        update(&mut known.input_tokens, later.input_tokens);
        update(&mut known.cache_creation_input_tokens, later.cache_creation_input_tokens);
        update(&mut known.cache_read_input_tokens, later.cache_read_input_tokens);
        update(&mut known.output_tokens, later.output_tokens);
        let (written, read) =
            (known.cache_creation_input_tokens.0, known.cache_read_input_tokens.0);
        // The input does not include what came from a cache or went into it.
        let input = known.input_tokens.0.map(|input| {
            input.saturating_add(written.unwrap_or(0)).saturating_add(read.unwrap_or(0))
        });
        sink(Item::Usage(Usage {
            input,
            output: known.output_tokens.0,
            cached_input: read,
            cache_write: written,
            ..Usage::default()
        }));
    }

    /// Reads an answer that is not streamed.
    fn read_whole(&mut self, data: &str, sink: &mut Sink<'_>) -> Result<Progress, NotJson> {
        let Some(message) = parse::<Message<'_>>(data)? else {
            sink(Item::Unknown);
            return Ok(Progress::Running);
        };
        for (index, block) in message.content.iter().flatten().enumerate() {
            let call = CallKey::Number(0, index as u64);
            read_block(block, call, sink);
            sink(Item::ToolEnd { call, arguments: None });
        }
        if let Some(usage) = message.usage {
            self.take_usage(usage, sink);
        }
        self.stop_reason = message.stop_reason.filled().map(Escaped::into_owned);
        Ok(self.stop(sink))
    }
}

fn fail(data: &str, sink: &mut Sink<'_>) -> Progress {
    sink(Item::End(End::Failed(Failure::read(data))));
    Progress::Over
}

fn read_delta(delta: &DeltaMembers<'_>, call: CallKey<'_>, sink: &mut Sink<'_>) {
    match delta.kind.word() {
        "text_delta" => read_text(delta.text, sink),
        "thinking_delta" => read_thinking(delta.thinking, sink),
        "input_json_delta" => {
            if let Some(text) = delta.partial_json.filled() {
                sink(Item::ToolArguments { call, text });
            }
        }
        // It only proves to the API that the thoughts are its own.
        "signature_delta" => {}
        "citations_delta" => sink(Item::Native),
        _ => sink(Item::Unknown),
    }
}

fn read_block(block: &Block<'_>, call: CallKey<'_>, sink: &mut Sink<'_>) {
    match block.kind.word() {
        "text" => read_text(block.text, sink),
        "thinking" => read_thinking(block.thinking, sink),
        "tool_use" | "server_tool_use" | "mcp_tool_use" => {
            let (id, name) = (block.id.get().unwrap_or_default(), block.name.get());
            sink(Item::ToolStart { call, id, name: name.unwrap_or_default(), choice: 0 });
            // In a stream it is empty, and comes in deltas.
            let is_empty = |json: &RawValue| {
                json.get()
                    .bytes()
                    .all(|byte| matches!(byte, b'{' | b'}') || byte.is_ascii_whitespace())
            };
            if let Some(input) = block.input.filter(|input| !is_empty(input)) {
                sink(Item::ToolArguments { call, text: Escaped::of_value(input) });
            }
        }
        "redacted_thinking" | "container_upload" => sink(Item::Native),
        kind if kind.ends_with("_tool_result") => {
            let result = block.content.map_or("null", RawValue::get);
            let is_error = block.is_error.unwrap_or_else(|| is_error(result));
            let id = block.tool_use_id.get().unwrap_or_default();
            sink(Item::ToolResult(ToolResult { id, name: Escaped::default(), result, is_error }));
        }
        _ => sink(Item::Unknown),
    }
}

fn read_text(text: Text<'_>, sink: &mut Sink<'_>) {
    if let Some(text) = text.filled() {
        sink(Item::Text(Delta::new(text)));
    }
}

fn read_thinking(thinking: Text<'_>, sink: &mut Sink<'_>) {
    if let Some(text) = thinking.filled() {
        sink(Item::Reasoning(Delta::new(text)));
    }
}

/// Whether the content of a tool's result is an error, such as `web_search_tool_result_error`.
fn is_error(result: &str) -> bool {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(borrow, default, rename = "type")]
        kind: Text<'a>,
    }
    let kind: Option<Kind<'_>> = parse(result).ok().flatten();
    kind.is_some_and(|it| it.kind.word().ends_with("_error"))
}
