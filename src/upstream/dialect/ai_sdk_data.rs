//! The data stream of AI SDK 4, which many backends in Python write: lines of a code and JSON, `0:"Hi"`.
//!
//! An event is one line: its name is the code, and its data the JSON behind it. The proof of the end: the line `d`.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::ai_sdk_usage::counts;
use super::escaped::{Escaped, Text};
use super::item::{
    CallKey, Delta, End, Failure, FinishReason, Item, NotJson, Progress, ToolResult,
};
use super::{Event, Reader, Sink, parse, parse_value};

#[derive(Default)]
pub(super) struct AiSdkData {
    progress: Option<Progress>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tool<'a> {
    #[serde(borrow, default)]
    tool_call_id: Text<'a>,
    #[serde(borrow, default)]
    tool_name: Text<'a>,
    #[serde(borrow, default)]
    args_text_delta: Text<'a>,
    #[serde(borrow, default)]
    args: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    is_error: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Finish<'a> {
    #[serde(borrow, default)]
    finish_reason: Text<'a>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

/// A text of assistant-ui's own codes, which belongs to a part of another one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Nested<'a> {
    #[serde(borrow, default)]
    text_delta: Text<'a>,
    #[serde(borrow, default)]
    reasoning_delta: Text<'a>,
}

impl Reader for AiSdkData {
    fn read(&mut self, event: Event<'_>, sink: &mut Sink<'_>) -> Result<Progress, NotJson> {
        let Some(json) = parse_value::<&RawValue>(event.data)? else { return Err(NotJson) };
        match event.name {
            "0" => read_text(json, Item::Text, sink),
            "g" => read_text(json, Item::Reasoning, sink),
            "3" => {
                sink(Item::End(End::Failed(Failure::read(event.data))));
                self.progress = Some(Progress::Over);
            }
            "d" => self.finish(event.data, sink),
            "b" | "c" | "9" | "a" => match parse::<Tool<'_>>(event.data)? {
                Some(tool) => read_tool(event.name, &tool, sink),
                None => sink(Item::Unknown),
            },
            "aui-text-delta" | "aui-reasoning-delta" => match parse::<Nested<'_>>(event.data)? {
                Some(Nested { text_delta, reasoning_delta }) => {
                    let text = |text: Text<'_>| text.filled().map(Escaped::into_owned);
                    if let Some(text) = text(text_delta) {
                        sink(Item::Text(Delta::new(text)));
                    }
                    if let Some(text) = text(reasoning_delta) {
                        sink(Item::Reasoning(Delta::new(text)));
                    }
                }
                None => sink(Item::Unknown),
            },
            // The begin and the end of a step.
            "f" | "e" => {}
            // Data, annotations, sources, files, and what a provider wants back of its reasoning.
            "2" | "8" | "h" | "k" | "i" | "j" => sink(Item::Native),
            _ => sink(Item::Unknown),
        }
        Ok(self.progress.unwrap_or(Progress::Running))
    }
}

impl AiSdkData {
    /// Whether a name is the code of a line: a character, or one of assistant-ui's own.
    pub fn is_code(name: &str) -> bool {
        name.len() == 1 || name.starts_with("aui-")
    }

    fn finish(&mut self, data: &str, sink: &mut Sink<'_>) {
        self.progress = Some(Progress::Over);
        let Ok(Some(finish)) = parse::<Finish<'_>>(data) else {
            return sink(Item::End(End::Completed {
                reason: FinishReason::Other,
                raw: Escaped::default(),
            }));
        };
        if let Some(usage) = finish.usage.and_then(counts) {
            sink(Item::Usage(usage));
        }
        let raw = finish.finish_reason.get().unwrap_or_default();
        if raw.as_str() == "error" {
            let text = "the service failed while it replied".to_owned();
            return sink(Item::End(End::Failed(Failure { code: None, text })));
        }
        sink(Item::End(End::completed(raw)));
    }
}

fn read_text<'a>(
    json: &'a RawValue,
    item: impl FnOnce(Delta<'a>) -> Item<'a>,
    sink: &mut Sink<'_>,
) {
    match Escaped::of_string(json) {
        Some(text) => sink(item(Delta::new(text))),
        None => sink(Item::Unknown),
    }
}

fn read_tool(code: &str, tool: &Tool<'_>, sink: &mut Sink<'_>) {
    let call = CallKey::Id(tool.tool_call_id.word());
    let id = tool.tool_call_id.get().unwrap_or_default();
    let name = tool.tool_name.get().unwrap_or_default();
    match code {
        "b" => sink(Item::ToolStart { call, id, name, choice: 0 }),
        "c" => {
            let text = tool.args_text_delta.get().unwrap_or_default();
            sink(Item::ToolArguments { call, text });
        }
        "9" => {
            sink(Item::ToolStart { call, id, name, choice: 0 });
            let arguments = tool.args.map(|args| Escaped::new(args.get()));
            sink(Item::ToolEnd { call, arguments });
        }
        _ => {
            // Its arguments are whole, also where no line says so.
            sink(Item::ToolEnd { call, arguments: None });
            let result = tool.result.map_or("null", RawValue::get);
            let is_error = tool.is_error == Some(true);
            sink(Item::ToolResult(ToolResult { id, name, result, is_error }));
        }
    }
}
