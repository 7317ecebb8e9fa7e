//! Messages of LangChain, in Python and JavaScript, as LangGraph and LangServe serialize them.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::escaped::{Count, Escaped, Text};
use super::item::Usage;

#[derive(Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    pub id: Text<'a>,
    #[serde(borrow, default)]
    pub content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_call_chunks: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<&'a RawValue>,
    #[serde(default)]
    usage_metadata: Option<UsageMembers>,
    #[serde(borrow, default)]
    response_metadata: Option<ResponseMetadata<'a>>,
    #[serde(borrow, default)]
    additional_kwargs: Option<AdditionalMembers<'a>>,
    /// `last` in the last part of a message, and null in others. Before version 1 there is none.
    #[serde(borrow, default, deserialize_with = "present")]
    chunk_position: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub tool_call_id: Text<'a>,
    #[serde(borrow, default)]
    pub name: Text<'a>,
    #[serde(borrow, default)]
    status: Text<'a>,
}

/// Reads a member whose presence counts, even if it is null.
fn present<'de, D: Deserializer<'de>>(member: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(member).map(Some)
}

/// Who a message is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Assistant,
    Tool,
    /// A person, or the application.
    Other,
}

#[derive(Deserialize)]
pub(super) struct CallChunk<'a> {
    #[serde(default)]
    pub index: Count,
    #[serde(borrow, default)]
    pub id: Text<'a>,
    #[serde(borrow, default)]
    pub name: Text<'a>,
    #[serde(borrow, default)]
    pub args: Text<'a>,
}

#[derive(Deserialize)]
pub(super) struct Call<'a> {
    #[serde(borrow, default)]
    pub id: Text<'a>,
    #[serde(borrow, default)]
    pub name: Text<'a>,
    #[serde(borrow, default)]
    pub args: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ResponseMetadata<'a> {
    #[serde(borrow, default)]
    finish_reason: Text<'a>,
    #[serde(borrow, default, rename = "finishReason")]
    finish_reason_js: Text<'a>,
    #[serde(borrow, default)]
    stop_reason: Text<'a>,
    #[serde(borrow, default)]
    done_reason: Text<'a>,
}

#[derive(Deserialize)]
struct AdditionalMembers<'a> {
    #[serde(borrow, default)]
    reasoning_content: Text<'a>,
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
    input_token_details: Option<InputDetails>,
    #[serde(default)]
    output_token_details: Option<OutputDetails>,
}

#[derive(Deserialize)]
struct InputDetails {
    #[serde(default)]
    cache_read: Count,
    #[serde(default)]
    cache_creation: Count,
}

#[derive(Deserialize)]
struct OutputDetails {
    #[serde(default)]
    reasoning: Count,
}

/// A part of a content that is a list.
#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    text: Text<'a>,
    #[serde(borrow, default)]
    reasoning: Text<'a>,
    #[serde(borrow, default)]
    thinking: Text<'a>,
    #[serde(borrow, default)]
    refusal: Text<'a>,
    #[serde(borrow, default)]
    summary: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Summary<'a> {
    #[serde(borrow, default)]
    text: Text<'a>,
}

/// What a piece of a content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceKind {
    Text,
    Refusal,
    Reasoning,
}

impl<'a> Message<'a> {
    pub fn from(&self) -> From {
        match self.kind.word() {
            "ai" | "AIMessage" | "AIMessageChunk" => From::Assistant,
            "tool" | "ToolMessage" | "ToolMessageChunk" => From::Tool,
            _ => From::Other,
        }
    }

    /// Whether the data has the form of a message at all.
    pub fn is_message(&self) -> bool {
        !self.kind.word().is_empty() && self.content.is_some()
    }

    pub fn is_error(&self) -> bool {
        self.status.word() == "error"
    }

    /// Why the model stopped, in the last part of a message.
    pub fn finish_reason(&self) -> Option<Escaped<'a>> {
        let metadata = self.response_metadata.as_ref()?;
        let words = [
            metadata.finish_reason,
            metadata.finish_reason_js,
            metadata.stop_reason,
            metadata.done_reason,
        ];
        words.into_iter().find_map(Text::filled)
    }

    /// Whether this is the last part of a message.
    pub fn is_last(&self) -> bool {
        self.is_marked_last() || self.finish_reason().is_some()
    }

    /// Whether the last part of this message is going to say that it is.
    pub fn will_be_marked(&self) -> bool {
        self.chunk_position.is_some() && !self.is_marked_last()
    }

    fn is_marked_last(&self) -> bool {
        self.chunk_position.is_some_and(|position| position.get() == "\"last\"")
    }

    pub fn usage(&self) -> Option<Usage> {
        let members = self.usage_metadata.as_ref()?;
        let (input, output) = (&members.input_token_details, &members.output_token_details);
        Some(Usage {
            input: members.input_tokens.0,
            output: members.output_tokens.0,
            total: members.total_tokens.0,
            cached_input: input.as_ref().and_then(|details| details.cache_read.0),
            cache_write: input.as_ref().and_then(|details| details.cache_creation.0),
            reasoning: output.as_ref().and_then(|details| details.reasoning.0),
        })
    }

    pub fn call_chunks(&self) -> Vec<CallChunk<'a>> {
        let json = self.tool_call_chunks.map_or("[]", RawValue::get);
        serde_json::from_str(json).unwrap_or_default()
    }

    /// Calls whose arguments are an object. In a message that streams they are what could be read so far.
    pub fn calls(&self) -> Vec<Call<'a>> {
        let json = self.tool_calls.map_or("[]", RawValue::get);
        serde_json::from_str(json).unwrap_or_default()
    }

    /// Passes on the pieces of the content, and of the reasoning beside it.
    pub fn pieces(&self, take: &mut dyn FnMut(PieceKind, Escaped<'a>)) {
        let additional = self.additional_kwargs.as_ref();
        if let Some(text) = additional.and_then(|members| members.reasoning_content.filled()) {
            take(PieceKind::Reasoning, text);
        }
        let Some(content) = self.content else { return };
        if let Some(text) = Escaped::of_string(content) {
            if !text.is_empty() {
                take(PieceKind::Text, text);
            }
            return;
        }
        let blocks: Vec<&'a RawValue> = serde_json::from_str(content.get()).unwrap_or_default();
        for json in blocks {
            if let Some(text) = Escaped::of_string(json) {
                take(PieceKind::Text, text);
            } else if let Ok(block) = serde_json::from_str::<Block<'a>>(json.get()) {
                block.pieces(take);
            }
        }
    }
}

impl<'a> Block<'a> {
    fn pieces(&self, take: &mut dyn FnMut(PieceKind, Escaped<'a>)) {
        match self.kind.word() {
            "text" | "output_text" => {
                if let Some(text) = self.text.filled() {
                    take(PieceKind::Text, text);
                }
            }
            "refusal" => {
                if let Some(text) = self.refusal.filled() {
                    take(PieceKind::Refusal, text);
                }
            }
            "reasoning" | "thinking" => {
                if let Some(text) = self.reasoning.filled().or(self.thinking.filled()) {
                    take(PieceKind::Reasoning, text);
                }
                let summary = self.summary.map_or("[]", RawValue::get);
                let parts: Vec<Summary<'a>> = serde_json::from_str(summary).unwrap_or_default();
                for part in parts {
                    if let Some(text) = part.text.filled() {
                        take(PieceKind::Reasoning, text);
                    }
                }
            }
            _ => {}
        }
    }
}
