//! The events of AG-UI, versions 0 and 1.
//!
//! The proof of the end: `RUN_FINISHED`, whose outcome says how, or `RUN_ERROR`.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::escaped::{Count, Escaped, Text};
use super::item::{
    CallKey, Delta, End, Failure, FinishReason, Item, NotJson, Progress, ToolResult, Usage,
};
use super::{Event, Reader, Sink, parse};

/// The most messages that are open at once and are not the assistant's.
const MAX_FOREIGN: usize = 64;
/// The longest id of such a message.
const MAX_ID_BYTES: usize = 256;

#[derive(Default)]
pub(super) struct AgUi {
    progress: Option<Progress>,
    /// Messages of users and of developers, whose text is no part of the reply.
    foreign: Vec<String>,
    /// The call that is written in chunks, which end without a word.
    chunked_call: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AgUiEvent<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    message_id: Text<'a>,
    #[serde(borrow, default)]
    role: Text<'a>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_call_id: Text<'a>,
    #[serde(borrow, default)]
    tool_call_name: Text<'a>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    /// The event is of an agent that the agent of the run has started.
    #[serde(borrow, default)]
    subagent_run_id: Text<'a>,
    #[serde(borrow, default)]
    outcome: Option<Outcome<'a>>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

/// An object since version 1; before it a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Outcome<'a> {
    Object {
        #[serde(borrow, rename = "type")]
        kind: &'a str,
    },
    Text(&'a str),
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UsageEntry {
    #[serde(default)]
    input_tokens: Count,
    #[serde(default)]
    output_tokens: Count,
    #[serde(default)]
    total_tokens: Count,
    #[serde(default)]
    cached_input_tokens: Count,
    #[serde(default)]
    cache_write_input_tokens: Count,
    #[serde(default)]
    reasoning_tokens: Count,
}

impl Reader for AgUi {
    fn read(&mut self, event: Event<'_>, sink: &mut Sink<'_>) -> Result<Progress, NotJson> {
        let Some(read) = parse::<AgUiEvent<'_>>(event.data)? else {
            sink(Item::Unknown);
            return Ok(self.progress.unwrap_or(Progress::Running));
        };
        let kind = read.kind.word();
        self.end_chunked_call(&read, sink);
        let is_text = matches!(
            kind,
            "TEXT_MESSAGE_START"
                | "TEXT_MESSAGE_CONTENT"
                | "TEXT_MESSAGE_CHUNK"
                | "TEXT_MESSAGE_END"
        );
        if is_text && self.is_foreign(&read) {
            sink(Item::Native);
            return Ok(self.progress.unwrap_or(Progress::Running));
        }
        let text = || read.delta.and_then(Escaped::of_string).unwrap_or_default();
        match kind {
            "TEXT_MESSAGE_CONTENT" | "TEXT_MESSAGE_CHUNK" => sink(Item::Text(Delta::new(text()))),
            "REASONING_MESSAGE_CONTENT"
            | "REASONING_MESSAGE_CHUNK"
            | "THINKING_TEXT_MESSAGE_CONTENT" => sink(Item::Reasoning(Delta::new(text()))),
            "TOOL_CALL_START" | "TOOL_CALL_ARGS" | "TOOL_CALL_END" | "TOOL_CALL_CHUNK"
            | "TOOL_CALL_RESULT" => self.read_tool(&read, sink),
            "RUN_FINISHED" => self.finish(&read, sink),
            "RUN_ERROR" => {
                read_usage(&read, sink);
                sink(Item::End(End::Failed(Failure::read(event.data))));
                self.progress = Some(Progress::Over);
            }
            // A stream may have several runs, one after the other.
            "RUN_STARTED" => self.progress = None,
            // Messages begin and end with these, which say nothing that their contents do not.
            "TEXT_MESSAGE_START"
            | "TEXT_MESSAGE_END"
            | "REASONING_START"
            | "REASONING_END"
            | "REASONING_MESSAGE_START"
            | "REASONING_MESSAGE_END"
            | "THINKING_START"
            | "THINKING_END"
            | "THINKING_TEXT_MESSAGE_START"
            | "THINKING_TEXT_MESSAGE_END" => {}
            "STEP_STARTED"
            | "STEP_FINISHED"
            | "STATE_SNAPSHOT"
            | "STATE_DELTA"
            | "MESSAGES_SNAPSHOT"
            | "ACTIVITY_SNAPSHOT"
            | "ACTIVITY_DELTA"
            | "REASONING_ENCRYPTED_VALUE"
            | "SUBAGENT_STARTED"
            | "SUBAGENT_FINISHED"
            | "SUBAGENT_ERROR"
            | "RAW"
            | "CUSTOM" => sink(Item::Native),
            _ => sink(Item::Unknown),
        }
        Ok(self.progress.unwrap_or(Progress::Running))
    }
}

impl AgUi {
    /// Whether the event belongs to a message that is not the reply's: of a user, or of a subagent.
    fn is_foreign(&mut self, event: &AgUiEvent<'_>) -> bool {
        if event.subagent_run_id.filled().is_some() {
            return true;
        }
        let id = event.message_id.word();
        let known = self.foreign.iter().position(|foreign| foreign == id);
        if event.kind.word() == "TEXT_MESSAGE_END"
            && let Some(at) = known
        {
            self.foreign.swap_remove(at);
        }
        let is_new = !matches!(event.role.word(), "" | "assistant");
        if is_new && known.is_none() && self.foreign.len() < MAX_FOREIGN && id.len() <= MAX_ID_BYTES
        {
            self.foreign.push(id.to_owned());
        }
        is_new || known.is_some()
    }

    /// A call in chunks ends with the first event that does not continue it.
    fn end_chunked_call(&mut self, event: &AgUiEvent<'_>, sink: &mut Sink<'_>) {
        let continues = event.kind.word() == "TOOL_CALL_CHUNK"
            && matches!(event.tool_call_id.word(), id if id.is_empty() || Some(id) == self.chunked_call.as_deref());
        if !continues && let Some(id) = self.chunked_call.take() {
            sink(Item::ToolEnd { call: CallKey::Id(&id), arguments: None });
        }
    }

    fn read_tool(&mut self, event: &AgUiEvent<'_>, sink: &mut Sink<'_>) {
        let id = event.tool_call_id.get().unwrap_or_default();
        let call = CallKey::Id(event.tool_call_id.word());
        let name = event.tool_call_name.get().unwrap_or_default();
        let text = event.delta.and_then(Escaped::of_string).unwrap_or_default();
        match event.kind.word() {
            "TOOL_CALL_START" => sink(Item::ToolStart { call, id, name, choice: 0 }),
            "TOOL_CALL_ARGS" => sink(Item::ToolArguments { call, text }),
            "TOOL_CALL_END" => sink(Item::ToolEnd { call, arguments: None }),
            "TOOL_CALL_CHUNK" => {
                if self.chunked_call.is_none() {
                    if id.is_empty() || id.as_str().len() > MAX_ID_BYTES {
                        return sink(Item::Unknown);
                    }
                    self.chunked_call = Some(id.as_str().to_owned());
                    sink(Item::ToolStart { call, id, name, choice: 0 });
                }
                let call = CallKey::Id(self.chunked_call.as_deref().unwrap_or_default());
                sink(Item::ToolArguments { call, text });
            }
            _ => {
                let result = event.content.map_or("null", RawValue::get);
                sink(Item::ToolResult(ToolResult { id, name, result, is_error: false }));
            }
        }
    }

    fn finish(&mut self, event: &AgUiEvent<'_>, sink: &mut Sink<'_>) {
        read_usage(event, sink);
        let outcome = match event.outcome {
            Some(Outcome::Object { kind } | Outcome::Text(kind)) => kind,
            Some(Outcome::Other(_)) | None => "",
        };
        // What it is that the user is asked, or what the agent has worked out.
        let has_result = event.result.is_some_and(|result| result.get() != "null");
        if outcome == "interrupt" || has_result {
            sink(Item::Native);
        }
        sink(Item::End(match outcome {
            "cancelled" => End::Aborted,
            "" => End::Completed { reason: FinishReason::Stop, raw: Escaped::default() },
            outcome => End::completed(Escaped::new(outcome)),
        }));
        self.progress = Some(Progress::Ended);
    }
}

/// Each entry is of one model, and the run took all of them.
fn read_usage(event: &AgUiEvent<'_>, sink: &mut Sink<'_>) {
    let Some(json) = event.usage else { return };
    let entries: Vec<UsageEntry> = serde_json::from_str(json.get()).unwrap_or_default();
    let mut usage = Usage::default();
    for entry in entries {
        usage.add(Usage {
            input: entry.input_tokens.0,
            output: entry.output_tokens.0,
            total: entry.total_tokens.0,
            cached_input: entry.cached_input_tokens.0,
            cache_write: entry.cache_write_input_tokens.0,
            reasoning: entry.reasoning_tokens.0,
        });
    }
    if usage.is_known() {
        sink(Item::Usage(usage));
    }
}
