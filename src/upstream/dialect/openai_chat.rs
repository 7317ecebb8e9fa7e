//! Chat Completions of OpenAI, and of the many servers that are compatible with it.
//!
//! The proof of the end: each choice that was seen has its `finish_reason`. `[DONE]` is none, because some servers write
//! it after an error as well. The usage comes after the proof, in a chunk without choices.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::choices::Choices;
use super::escaped::{Count, Escaped, Text};
use super::item::{CallKey, Delta, End, Failure, Item, NotJson, Progress, Usage};
use super::{Event, Reader, Sink, parse};

#[derive(Default)]
pub(super) struct OpenaiChat {
    choices: Choices,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: Count,
    #[serde(borrow, default)]
    delta: Option<Message<'a>>,
    /// An answer that is not streamed has it in place of `delta`.
    #[serde(borrow, default)]
    message: Option<Message<'a>>,
    #[serde(borrow, default)]
    finish_reason: Text<'a>,
    /// OpenRouter's, of a choice that failed.
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    refusal: Text<'a>,
    #[serde(borrow, default)]
    reasoning: Text<'a>,
    #[serde(borrow, default)]
    reasoning_content: Text<'a>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<ToolCall<'a>>>,
    /// The older form of one tool call.
    #[serde(borrow, default)]
    function_call: Option<Function<'a>>,
}

/// A part of a text that is written as a list, as Mistral does.
#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    text: Text<'a>,
    #[serde(borrow, default)]
    thinking: Option<Vec<Part<'a>>>,
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(default)]
    index: Count,
    #[serde(borrow, default)]
    id: Text<'a>,
    #[serde(borrow, default)]
    function: Option<Function<'a>>,
    /// A call of a tool whose input is a text.
    #[serde(borrow, default)]
    custom: Option<Custom<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Custom<'a> {
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct UsageMembers {
    #[serde(default)]
    prompt_tokens: Count,
    #[serde(default)]
    completion_tokens: Count,
    #[serde(default)]
    total_tokens: Count,
    #[serde(default)]
    prompt_tokens_details: Option<InputDetails>,
    #[serde(default)]
    completion_tokens_details: Option<OutputDetails>,
}

#[derive(Deserialize)]
struct InputDetails {
    #[serde(default)]
    cached_tokens: Count,
}

#[derive(Deserialize)]
struct OutputDetails {
    #[serde(default)]
    reasoning_tokens: Count,
}

impl Reader for OpenaiChat {
    fn read(&mut self, event: Event<'_>, sink: &mut Sink<'_>) -> Result<Progress, NotJson> {
        let Some(chunk) = parse::<Chunk<'_>>(event.data)? else {
            sink(Item::Unknown);
            return Ok(self.progress());
        };
        let of_choice =
            || chunk.choices.iter().flatten().find_map(|choice: &Choice<'_>| choice.error);
        if let Some(error) = chunk.error.or_else(of_choice) {
            sink(Item::End(End::Failed(Failure::read(error.get()))));
            return Ok(Progress::Over);
        }
        let usage = chunk.usage.and_then(|json| usage(json.get()));
        if let Some(usage) = usage {
            sink(Item::Usage(usage));
        }
        let Some(choices) = chunk.choices else {
            if usage.is_none() {
                sink(Item::Unknown);
            }
            return Ok(self.progress());
        };
        let is_last = choices.is_empty() && usage.is_some();
        for choice in choices {
            self.read_choice(&choice, sink);
        }
        let progress = self.progress();
        if progress == Progress::Ended {
            sink(Item::End(self.choices.end()));
            if is_last {
                return Ok(Progress::Over);
            }
        }
        Ok(progress)
    }
}

impl OpenaiChat {
    fn progress(&self) -> Progress {
        if self.choices.all_finished() { Progress::Ended } else { Progress::Running }
    }

    fn read_choice(&mut self, choice: &Choice<'_>, sink: &mut Sink<'_>) {
        let index = choice.index.0.unwrap_or(0);
        let finish = choice.finish_reason.filled();
        let message = choice.delta.as_ref().or(choice.message.as_ref());
        // Azure writes choices with neither, which say what a filter found.
        if (message.is_none() && finish.is_none()) || !self.choices.is_running(index) {
            return;
        }
        if let Some(message) = message {
            read_message(message, index, sink);
            if message.refusal.filled().is_some() {
                self.choices.refused(index);
            }
            if message.tool_calls.as_ref().is_some_and(|calls| !calls.is_empty()) {
                self.choices.called_tool(index);
            }
        }
        if let Some(finish) = finish {
            self.choices.finish(index, finish);
            sink(Item::ToolsEnd { choice: index });
        }
    }
}

fn read_message(message: &Message<'_>, choice: u64, sink: &mut Sink<'_>) {
    // OpenRouter and vLLM may send both, with the same text.
    if let Some(text) = message.reasoning.filled().or(message.reasoning_content.filled()) {
        sink(Item::Reasoning(Delta { choice, text }));
    }
    if let Some(content) = message.content {
        read_content(content, choice, sink);
    }
    if let Some(text) = message.refusal.filled() {
        sink(Item::Refusal(Delta { choice, text }));
    }
    for (position, call) in message.tool_calls.iter().flatten().enumerate() {
        let number = call.index.0.unwrap_or(position as u64);
        let (name, arguments) = match (&call.function, &call.custom) {
            (Some(function), _) => (function.name, function.arguments),
            (None, Some(custom)) => (custom.name, custom.input),
            (None, None) => (Text::default(), None),
        };
        read_call(choice, number, call.id, name, arguments, sink);
    }
    if let Some(Function { name, arguments }) = message.function_call {
        read_call(choice, 0, Text::default(), name, arguments, sink);
    }
}

fn read_call(
    choice: u64,
    number: u64,
    id: Text<'_>,
    name: Text<'_>,
    arguments: Option<&RawValue>,
    sink: &mut Sink<'_>,
) {
    let call = CallKey::Number(choice, number);
    let (id, name) = (id.get().unwrap_or_default(), name.get().unwrap_or_default());
    if !id.is_empty() || !name.is_empty() {
        sink(Item::ToolStart { call, id, name, choice });
    }
    if let Some(arguments) = arguments {
        let text = Escaped::of_value(arguments);
        if !text.is_empty() {
            sink(Item::ToolArguments { call, text });
        }
    }
}

fn read_content(content: &RawValue, choice: u64, sink: &mut Sink<'_>) {
    if let Some(text) = Escaped::of_string(content) {
        if !text.is_empty() {
            sink(Item::Text(Delta { choice, text }));
        }
        return;
    }
    for part in serde_json::from_str::<Vec<Part<'_>>>(content.get()).unwrap_or_default() {
        for thought in part.thinking.iter().flatten() {
            if let Some(text) = thought.text.filled() {
                sink(Item::Reasoning(Delta { choice, text }));
            }
        }
        if let Some(text) = part.text.filled() {
            sink(Item::Text(Delta { choice, text }));
        }
    }
}

fn usage(json: &str) -> Option<Usage> {
    let members: UsageMembers = serde_json::from_str(json).ok()?;
    let input = members.prompt_tokens_details;
    let output = members.completion_tokens_details;
    let usage = Usage {
        input: members.prompt_tokens.0,
        output: members.completion_tokens.0,
        total: members.total_tokens.0,
        cached_input: input.and_then(|details| details.cached_tokens.0),
        cache_write: None,
        reasoning: output.and_then(|details| details.reasoning_tokens.0),
    };
    usage.is_known().then_some(usage)
}
