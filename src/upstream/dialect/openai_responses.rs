//! OpenAI's Responses.
//!
//! The proof of the end: an event with the whole response, `response.completed` or `response.incomplete`.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::escaped::{Count, Escaped, Text};
use super::item::{
    CallKey, Delta, End, Failure, FinishReason, Item, NotJson, Progress, ToolResult, Usage,
};
use super::{Event, Reader, Sink, parse};

/// The most items of one response of which is known that they have begun.
const MAX_ITEMS: usize = 1024;

/// Events that add nothing to the others.
const STRUCTURE: &[&str] = &[
    "response.created",
    "response.queued",
    "response.in_progress",
    "response.content_part.added",
    "response.content_part.done",
    "response.output_text.done",
    "response.refusal.done",
    "response.reasoning_text.done",
    "response.reasoning_summary_part.added",
    "response.reasoning_summary_part.done",
    "response.reasoning_summary_text.done",
    "keepalive",
];

/// The beginnings of events for which there is no other item.
const NATIVE: &[&str] = &[
    "response.output_text.annotation.",
    "response.web_search_call.",
    "response.file_search_call.",
    "response.code_interpreter_call",
    "response.image_generation_call.",
    "response.mcp_call.",
    "response.mcp_list_tools.",
    "response.shell_call_",
    "response.audio.",
    "response.compaction.",
];

#[derive(Default)]
pub(super) struct OpenaiResponses {
    /// The items that have begun, by their place in the output.
    begun: Vec<u64>,
    has_said_something: bool,
    has_refused: bool,
    /// The model waits for the result of a tool.
    has_called_tool: bool,
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    delta: Text<'a>,
    #[serde(default)]
    output_index: Count,
    #[serde(borrow, default)]
    arguments: Text<'a>,
    #[serde(borrow, default)]
    input: Text<'a>,
    #[serde(borrow, default)]
    item: Option<&'a RawValue>,
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
    #[serde(borrow, default)]
    object: Text<'a>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// An element of the output.
#[derive(Deserialize)]
struct OutputItem<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    id: Text<'a>,
    #[serde(borrow, default)]
    call_id: Text<'a>,
    #[serde(borrow, default)]
    name: Text<'a>,
    /// A text of JSON, or an object.
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
    /// What the client is to do, in calls that have it in place of arguments.
    #[serde(borrow, default)]
    action: Option<&'a RawValue>,
    #[serde(borrow, default)]
    actions: Option<&'a RawValue>,
    #[serde(borrow, default)]
    operation: Option<&'a RawValue>,
    /// Where the commands of a shell call run.
    #[serde(borrow, default)]
    environment: Option<Kind<'a>>,
    /// Who runs a tool search.
    #[serde(borrow, default)]
    execution: Text<'a>,
    #[serde(borrow, default)]
    status: Text<'a>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<Vec<Part<'a>>>,
    #[serde(borrow, default)]
    summary: Option<Vec<Part<'a>>>,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    text: Text<'a>,
    #[serde(borrow, default)]
    refusal: Text<'a>,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow, default)]
    status: Text<'a>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    incomplete_details: Option<IncompleteDetails<'a>>,
    #[serde(borrow, default)]
    output: Option<Vec<&'a RawValue>>,
    #[serde(default)]
    usage: Option<UsageMembers>,
}

#[derive(Deserialize)]
struct IncompleteDetails<'a> {
    #[serde(borrow, default)]
    reason: Text<'a>,
}

#[derive(Deserialize)]
struct UsageMembers {
    #[serde(default)]
    input_tokens: Count,
    #[serde(default)]
    output_tokens: Count,
    #[serde(default)]
    total_tokens: Count,
    #[serde(default)]
    input_tokens_details: Option<InputDetails>,
    #[serde(default)]
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Deserialize)]
struct InputDetails {
    #[serde(default)]
    cached_tokens: Count,
    #[serde(default)]
    cache_write_tokens: Count,
}

#[derive(Deserialize)]
struct OutputDetails {
    #[serde(default)]
    reasoning_tokens: Count,
}

impl Reader for OpenaiResponses {
    fn read(&mut self, event: Event<'_>, sink: &mut Sink<'_>) -> Result<Progress, NotJson> {
        let Some(object) = parse::<Object<'_>>(event.data)? else {
            sink(Item::Unknown);
            return Ok(Progress::Running);
        };
        let index = object.output_index.0.unwrap_or(0);
        let call = CallKey::Number(0, index);
        match object.kind.word() {
            "response.output_text.delta" => self.take(Item::Text, object.delta, sink),
            "response.refusal.delta" => {
                self.has_refused = true;
                self.take(Item::Refusal, object.delta, sink);
            }
            "response.reasoning_text.delta" | "response.reasoning_summary_text.delta" => {
                self.take(Item::Reasoning, object.delta, sink);
            }
            "response.function_call_arguments.delta"
            | "response.custom_tool_call_input.delta"
            | "response.mcp_call_arguments.delta" => {
                if let Some(text) = object.delta.filled() {
                    sink(Item::ToolArguments { call, text });
                }
            }
            "response.function_call_arguments.done"
            | "response.custom_tool_call_input.done"
            | "response.mcp_call_arguments.done" => {
                let arguments = object.arguments.get().or(object.input.get());
                sink(Item::ToolEnd { call, arguments });
            }
            "response.output_item.added" => self.read_item(object.item, index, false, sink),
            "response.output_item.done" => self.read_item(object.item, index, true, sink),
            "response.completed"
            | "response.incomplete"
            | "response.failed"
            | "response.cancelled" => {
                return Ok(self.read_response(object.response, sink));
            }
            "error" => return Ok(fail(event.data, sink)),
            kind if STRUCTURE.contains(&kind) => {}
            kind if NATIVE.iter().any(|start| kind.starts_with(start)) => sink(Item::Native),
            "" if object.object.word() == "response" => {
                let whole = serde_json::from_str(event.data).map_err(|_| NotJson)?;
                return Ok(self.read_response(Some(whole), sink));
            }
            "" if object.error.is_some() => return Ok(fail(event.data, sink)),
            _ => sink(Item::Unknown),
        }
        Ok(Progress::Running)
    }
}

fn fail(data: &str, sink: &mut Sink<'_>) -> Progress {
    sink(Item::End(End::Failed(Failure::read(data))));
    Progress::Over
}

impl OpenaiResponses {
    fn take<'a>(&mut self, item: fn(Delta<'a>) -> Item<'a>, text: Text<'a>, sink: &mut Sink<'_>) {
        self.has_said_something = true;
        if let Some(text) = text.filled() {
            sink(item(Delta::new(text)));
        }
    }

    /// Reads the beginning or the end of an element of the output.
    fn read_item(
        &mut self,
        json: Option<&RawValue>,
        index: u64,
        is_done: bool,
        sink: &mut Sink<'_>,
    ) {
        let item = json.and_then(|json| parse::<OutputItem<'_>>(json.get()).ok().flatten());
        let (Some(json), Some(item)) = (json, item) else { return sink(Item::Unknown) };
        let kind = item.kind.word();
        if let Some(tool) = kind.strip_suffix("_call_output") {
            if is_done {
                let id = item.call_id.filled().unwrap_or_default();
                let (name, result) = (Escaped::new(tool), json.get());
                sink(Item::ToolResult(ToolResult { id, name, result, is_error: false }));
            }
            return;
        }
        let Some(tool) = kind.strip_suffix("_call").filter(|tool| !tool.is_empty()) else {
            // Texts and thoughts come in deltas. Others, such as the question whether a tool may run, come only so.
            if is_done && !matches!(kind, "message" | "reasoning") {
                sink(Item::Native);
            }
            return;
        };
        let is_of_client = item.is_of_client();
        let id = item.call_id.filled().or(item.id.filled()).unwrap_or_default();
        let call = CallKey::Number(0, index);
        if !self.begun.contains(&index) && self.begun.len() < MAX_ITEMS {
            self.begun.push(index);
            let name = item.name.filled().unwrap_or_else(|| Escaped::new(tool));
            sink(Item::ToolStart { call, id: id.clone(), name, choice: 0 });
        }
        self.has_said_something = true;
        self.has_called_tool |= is_of_client;
        if is_done {
            sink(Item::ToolEnd { call, arguments: item.arguments() });
            if !is_of_client {
                let name = item.name.filled().unwrap_or_else(|| Escaped::new(tool));
                let is_error = item.error.is_some() || item.status.word() == "failed";
                let result = json.get();
                sink(Item::ToolResult(ToolResult { id, name, result, is_error }));
            }
        }
    }

    /// Reads the whole response, which is the last event, or an answer that is not streamed.
    fn read_response(&mut self, json: Option<&RawValue>, sink: &mut Sink<'_>) -> Progress {
        let response = json.and_then(|json| parse::<Response<'_>>(json.get()).ok().flatten());
        let Some(response) = response else {
            sink(Item::Unknown);
            return Progress::Running;
        };
        if !self.has_said_something {
            self.read_output(response.output.as_deref().unwrap_or_default(), sink);
        }
        if let Some(usage) = response.usage {
            sink(Item::Usage(usage.into()));
        }
        let status = response.status;
        let raw = status.get().unwrap_or_default();
        let details = response.incomplete_details.and_then(|details| details.reason.filled());
        let end = match status.word() {
            "completed" => {
                let reason = match (self.has_refused, self.has_called_tool) {
                    (true, _) => FinishReason::Refusal,
                    (false, true) => FinishReason::ToolCalls,
                    (false, false) => FinishReason::Stop,
                };
                End::Completed { reason, raw }
            }
            "incomplete" => End::completed(details.unwrap_or(raw)),
            "failed" => End::Failed(Failure::read(response.error.map_or("null", RawValue::get))),
            "cancelled" => End::Aborted,
            // It runs in the background, and this is no stream of it.
            _ => {
                sink(Item::Native);
                return Progress::Running;
            }
        };
        sink(Item::End(end));
        Progress::Over
    }

    fn read_output(&mut self, output: &[&RawValue], sink: &mut Sink<'_>) {
        for (index, json) in output.iter().enumerate() {
            let Ok(Some(item)) = parse::<OutputItem<'_>>(json.get()) else { continue };
            for part in item.summary.iter().flatten() {
                self.take(Item::Reasoning, part.text, sink);
            }
            let is_reasoning = item.kind.word() == "reasoning";
            for part in item.content.iter().flatten() {
                if part.refusal.filled().is_some() {
                    self.has_refused = true;
                    self.take(Item::Refusal, part.refusal, sink);
                }
                let kind = if is_reasoning { Item::Reasoning } else { Item::Text };
                self.take(kind, part.text, sink);
            }
            self.read_item(Some(json), index as u64, true, sink);
        }
    }
}

impl<'a> OutputItem<'a> {
    /// Whether the model waits for the client to run the tool; others OpenAI runs itself.
    fn is_of_client(&self) -> bool {
        match self.kind.word() {
            "function_call" | "custom_tool_call" | "computer_call" | "local_shell_call"
            | "apply_patch_call" => true,
            "shell_call" => {
                self.environment.as_ref().is_none_or(|place| place.kind.word() == "local")
            }
            "tool_search_call" => self.execution.word() == "client",
            _ => false,
        }
    }

    /// `None` = those of the deltas are all.
    fn arguments(&self) -> Option<Escaped<'a>> {
        let written = self.arguments.or(self.input);
        let done = || self.action.or(self.actions).or(self.operation);
        let arguments = written.or_else(|| self.is_of_client().then(done).flatten())?;
        Some(Escaped::of_value(arguments)).filter(|arguments| !arguments.is_empty())
    }
}

impl From<UsageMembers> for Usage {
    fn from(members: UsageMembers) -> Self {
        let input = members.input_tokens_details;
        Self {
            input: members.input_tokens.0,
            output: members.output_tokens.0,
            total: members.total_tokens.0,
            cached_input: input.as_ref().and_then(|details| details.cached_tokens.0),
            cache_write: input.as_ref().and_then(|details| details.cache_write_tokens.0),
            reasoning: members.output_tokens_details.and_then(|it| it.reasoning_tokens.0),
        }
    }
}
