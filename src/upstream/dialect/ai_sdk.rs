//! The UI message stream of the AI SDK, version 1. The older data stream is read by [`AiSdkData`].
//!
//! The proof of the end: `finish`. `[DONE]` is none, because it is also written after an error and when the stream has
//! stopped. The protocol has no usage; routes put it into the metadata of the message.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::ai_sdk_data::AiSdkData;
use super::ai_sdk_usage::usage;
use super::escaped::{Escaped, Text};
use super::item::{
    CallKey, Delta, End, Failure, FinishReason, Item, NotJson, Progress, ToolResult,
};
use super::{Event, Reader, Sink, parse};

#[derive(Default)]
pub(super) struct AiSdk {
    progress: Option<Progress>,
    /// Whether a step has begun after a `finish`.
    is_going_on: bool,
    /// The reader of a data stream, whose events have names, once one has come.
    data: Option<AiSdkData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chunk<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    delta: Text<'a>,
    #[serde(borrow, default)]
    input_text_delta: Text<'a>,
    #[serde(borrow, default)]
    tool_call_id: Text<'a>,
    #[serde(borrow, default)]
    tool_name: Text<'a>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    output: Option<&'a RawValue>,
    #[serde(default)]
    preliminary: Option<bool>,
    #[serde(borrow, default)]
    error_text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    finish_reason: Text<'a>,
    #[serde(borrow, default)]
    message_metadata: Option<&'a RawValue>,
    /// The parts of a message that is not streamed.
    #[serde(borrow, default)]
    parts: Option<Vec<Part<'a>>>,
}

/// A part of a message that is not streamed.
#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    text: Text<'a>,
}

impl Reader for AiSdk {
    fn read(&mut self, event: Event<'_>, sink: &mut Sink<'_>) -> Result<Progress, NotJson> {
        if AiSdkData::is_code(event.name) {
            return self.data.get_or_insert_default().read(event, sink);
        }
        let Some(chunk) = parse::<Chunk<'_>>(event.data)? else {
            sink(Item::Unknown);
            return Ok(self.progress());
        };
        let usage = chunk.message_metadata.and_then(usage);
        if let Some(usage) = usage {
            sink(Item::Usage(usage));
        }
        let kind = chunk.kind.word();
        // The application may say something of the message where it begins, ends, or in between.
        let may_have_metadata = matches!(kind, "start" | "message-metadata" | "finish");
        if may_have_metadata && chunk.message_metadata.is_some() && usage.is_none() {
            sink(Item::Native);
        }
        match kind {
            "text-delta" => sink(Item::Text(Delta::new(chunk.delta.get().unwrap_or_default()))),
            "reasoning-delta" => {
                sink(Item::Reasoning(Delta::new(chunk.delta.get().unwrap_or_default())));
            }
            "abort" => {
                sink(Item::End(End::Aborted));
                self.progress = Some(Progress::Over);
            }
            "error" => {
                sink(Item::End(End::Failed(Failure::read(event.data))));
                self.progress = Some(Progress::Over);
            }
            "finish" => self.finish(&chunk, sink),
            // A route may join several streams. A step of the next one must end as well.
            "start" | "start-step" => self.is_going_on = self.progress == Some(Progress::Ended),
            "finish-step" => self.is_going_on = false,
            // Parts begin and end with these, which say nothing that their contents do not.
            "text-start" | "text-end" | "reasoning-start" | "reasoning-end" => {}
            "message-metadata" => {}
            "reset-step" | "reasoning-file" | "source-url" | "source-document" | "file"
            | "custom" | "steering-message" => sink(Item::Native),
            kind if kind.starts_with("data-") => sink(Item::Native),
            kind if kind.starts_with("tool-") => read_tool(&chunk, sink),
            "" if chunk.parts.is_some() => {
                self.read_whole(chunk.parts.as_deref().unwrap_or_default(), sink);
            }
            _ => sink(Item::Unknown),
        }
        Ok(self.progress())
    }
}

impl AiSdk {
    fn progress(&self) -> Progress {
        match self.progress {
            Some(Progress::Ended) if self.is_going_on => Progress::Running,
            progress => progress.unwrap_or(Progress::Running),
        }
    }

    /// Reads a message that is not streamed.
    fn read_whole(&mut self, parts: &[Part<'_>], sink: &mut Sink<'_>) {
        for part in parts {
            match (part.kind.word(), part.text.filled()) {
                ("text", Some(text)) => sink(Item::Text(Delta::new(text))),
                ("reasoning", Some(text)) => sink(Item::Reasoning(Delta::new(text))),
                ("text" | "reasoning" | "step-start", _) => {}
                _ => sink(Item::Native),
            }
        }
        sink(Item::End(End::Completed { reason: FinishReason::Stop, raw: Escaped::default() }));
        self.progress = Some(Progress::Over);
    }

    /// A route may join several streams that each end so, of which the last one counts.
    fn finish(&mut self, chunk: &Chunk<'_>, sink: &mut Sink<'_>) {
        let raw = chunk.finish_reason.get().unwrap_or_default();
        let text = match raw.as_str() {
            "error" => "the service failed while it replied",
            "interrupted" => "the model's stream broke off",
            _ => {
                let end = match raw.is_empty() {
                    true => End::Completed { reason: FinishReason::Stop, raw },
                    false => End::completed(raw),
                };
                sink(Item::End(end));
                self.progress = Some(Progress::Ended);
                self.is_going_on = false;
                return;
            }
        };
        let code = Some(raw.as_str().to_owned());
        sink(Item::End(End::Failed(Failure { code, text: text.to_owned() })));
        self.progress = Some(Progress::Over);
    }
}

fn read_tool(chunk: &Chunk<'_>, sink: &mut Sink<'_>) {
    let id = chunk.tool_call_id.get().unwrap_or_default();
    let call = CallKey::Id(chunk.tool_call_id.word());
    let result = |result, is_error| {
        Item::ToolResult(ToolResult { id: id.clone(), name: Escaped::default(), result, is_error })
    };
    match chunk.kind.word() {
        "tool-input-start" => sink(tool_start(chunk)),
        "tool-input-delta" => {
            let text = chunk.input_text_delta.get().unwrap_or_default();
            sink(Item::ToolArguments { call, text });
        }
        "tool-input-available" => end_call(chunk, sink),
        // The model's input does not have the form that the tool wants.
        "tool-input-error" => {
            end_call(chunk, sink);
            sink(result(chunk.error_text.map_or("null", RawValue::get), true));
        }
        "tool-output-available" if chunk.preliminary == Some(true) => sink(Item::Native),
        "tool-output-available" => sink(result(chunk.output.map_or("null", RawValue::get), false)),
        "tool-output-error" => sink(result(chunk.error_text.map_or("null", RawValue::get), true)),
        "tool-output-denied" => sink(result(r#""denied""#, true)),
        "tool-approval-request" | "tool-approval-response" => sink(Item::Native),
        _ => sink(Item::Unknown),
    }
}

fn tool_start<'a>(chunk: &Chunk<'a>) -> Item<'a> {
    Item::ToolStart {
        call: CallKey::Id(chunk.tool_call_id.word()),
        id: chunk.tool_call_id.get().unwrap_or_default(),
        name: chunk.tool_name.get().unwrap_or_default(),
        choice: 0,
    }
}

/// Its input was streamed before, or is all there is.
fn end_call(chunk: &Chunk<'_>, sink: &mut Sink<'_>) {
    sink(tool_start(chunk));
    sink(Item::ToolEnd {
        call: CallKey::Id(chunk.tool_call_id.word()),
        arguments: chunk.input.map(|input| Escaped::new(input.get())),
    });
}
