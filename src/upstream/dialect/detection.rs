//! Finds out in which dialect a stream is (`dialect = "auto"`).

use hyper::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::ai_sdk_data::AiSdkData;
use super::escaped::Text;
use super::failure::is_failure;
use super::langchain::{self, Message};
use super::parse;
use crate::protocol::Dialect;

/// The members by which the first event of a stream shows its dialect.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    object: Text<'a>,
    #[serde(borrow, default)]
    role: Text<'a>,
    #[serde(borrow, default)]
    choices: Option<&'a RawValue>,
    #[serde(borrow, default)]
    candidates: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "promptFeedback")]
    prompt_feedback: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "usageMetadata")]
    usage_metadata: Option<&'a RawValue>,
    #[serde(borrow, default)]
    model: Text<'a>,
    #[serde(borrow, default)]
    done: Option<&'a RawValue>,
    #[serde(borrow, default)]
    run_id: Text<'a>,
    #[serde(borrow, default)]
    event: Text<'a>,
    #[serde(borrow, default, rename = "errorText")]
    error_text: Text<'a>,
    #[serde(borrow, default)]
    messages: Option<&'a RawValue>,
    #[serde(borrow, default)]
    output: Option<&'a RawValue>,
    #[serde(borrow, default)]
    metadata: Option<Metadata<'a>>,
    #[serde(borrow, default, rename = "__error__")]
    run_error: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "__interrupt__")]
    interrupt: Option<&'a RawValue>,
    #[serde(borrow, default)]
    parts: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Metadata<'a> {
    OfRun {
        #[serde(borrow, rename = "run_id")]
        _run_id: &'a str,
    },
    Other(serde::de::IgnoredAny),
}

impl Metadata<'_> {
    fn is_of_run(&self) -> bool {
        matches!(self, Self::OfRun { .. })
    }
}

/// The dialect that the head of a response names; `None` = the first event has to show it.
pub(in crate::upstream) fn dialect_of_headers(headers: &HeaderMap) -> Option<Dialect> {
    let names = ["x-vercel-ai-ui-message-stream", "x-vercel-ai-data-stream"];
    names.iter().any(|name| headers.contains_key(*name)).then_some(Dialect::AiSdk)
}

/// The dialect whose stream begins with this event; `None` = that of no API.
pub(in crate::upstream) fn detect(name: &str, data: &str) -> Option<Dialect> {
    // LangGraph's events have their data in arrays as well.
    let mode = name.split(['|', '/']).next().unwrap_or_default();
    if matches!(mode, "messages" | "messages-tuple" | "values" | "updates") {
        return Some(Dialect::Langgraph);
    }
    if AiSdkData::is_code(name) {
        return Some(Dialect::AiSdk);
    }
    // Gemini without `alt=sse`.
    let data = data.trim();
    let data = data.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(data);
    let members: Members<'_> = parse(data).ok().flatten()?;
    if members.event.get().is_some() {
        return None;
    }
    if mode == "metadata" && members.run_id.get().is_some() {
        return Some(Dialect::Langgraph);
    }
    let kind = members.kind.word();
    if kind.starts_with("response.") || members.object.word() == "response" {
        return Some(Dialect::OpenaiResponses);
    }
    if members.object.word().starts_with("chat.completion") || members.choices.is_some() {
        return Some(Dialect::OpenaiChat);
    }
    let is_gemini = members.candidates.is_some()
        || members.prompt_feedback.is_some()
        || members.usage_metadata.is_some();
    if is_gemini {
        return Some(Dialect::Gemini);
    }
    if members.done.is_some() && members.model.get().is_some() {
        return Some(Dialect::Ollama);
    }
    match kind {
        "message_start" | "ping" | "content_block_start" => Some(Dialect::Anthropic),
        "message" if members.role.get().is_some() => Some(Dialect::Anthropic),
        "start" | "start-step" | "text-start" | "text-delta" | "reasoning-start"
        | "tool-input-start" | "message-metadata" => Some(Dialect::AiSdk),
        "error" if members.error_text.get().is_some() => Some(Dialect::AiSdk),
        kind if kind.starts_with("data-") => Some(Dialect::AiSdk),
        kind if is_ag_ui(kind) => Some(Dialect::AgUi),
        // A state that a LangGraph server was asked for, and the output of LangServe.
        "" if members.is_langgraph() => Some(Dialect::Langgraph),
        "" if members.parts.is_some() && members.role.word() == "assistant" => Some(Dialect::AiSdk),
        // Most APIs that fail at once say so in this form.
        _ if is_failure(data) => Some(Dialect::OpenaiChat),
        _ => None,
    }
}

impl Members<'_> {
    fn is_langgraph(&self) -> bool {
        let messages = self.messages.map_or("[]", RawValue::get);
        let messages: Vec<Message<'_>> = serde_json::from_str(messages).unwrap_or_default();
        let is_answer = |message: &Message<'_>| {
            message.is_message() && message.from() == langchain::From::Assistant
        };
        self.run_error.is_some()
            || self.interrupt.is_some()
            || messages.iter().any(is_answer)
            || (self.output.is_some() && self.metadata.as_ref().is_some_and(Metadata::is_of_run))
    }
}

fn is_ag_ui(kind: &str) -> bool {
    let starts = ["RUN_", "TEXT_MESSAGE_", "TOOL_CALL_", "STATE_", "MESSAGES_", "STEP_"];
    starts.iter().any(|start| kind.starts_with(start))
}
