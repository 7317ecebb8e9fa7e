//! The neutral model: what a stream of any AI API says.

use super::escaped::Escaped;
use crate::protocol::label_enum;

/// One thing that an event of a stream says.
#[derive(Debug)]
pub(super) enum Item<'a> {
    Text(Delta<'a>),
    /// A part of the text by which the model refuses.
    Refusal(Delta<'a>),
    Reasoning(Delta<'a>),
    /// The model begins to call a tool. A second start of an open call is none, unless it has another id.
    ToolStart {
        call: CallKey<'a>,
        id: Escaped<'a>,
        name: Escaped<'a>,
        choice: u64,
    },
    /// A part of the arguments, which are JSON when they are whole.
    ToolArguments {
        call: CallKey<'a>,
        text: Escaped<'a>,
    },
    /// The arguments are whole: these, or else those of the parts.
    ToolEnd {
        call: CallKey<'a>,
        arguments: Option<Escaped<'a>>,
    },
    /// The calls of a choice have ended.
    ToolsEnd {
        choice: u64,
    },
    ToolResult(ToolResult<'a>),
    /// The tokens so far. Of several, the members of the last one count that it has.
    Usage(Usage),
    /// The event says something for which there is no item.
    Native,
    /// The same of an event that the reader does not know.
    Unknown,
    /// How the reply has ended. Of several the last one counts, but nothing replaces a failure.
    End(End<'a>),
}

/// A part of a text.
#[derive(Debug)]
pub(super) struct Delta<'a> {
    /// Which of several answers to one message it belongs to.
    pub choice: u64,
    pub text: Escaped<'a>,
}

impl<'a> Delta<'a> {
    pub fn new(text: Escaped<'a>) -> Self {
        Self { choice: 0, text }
    }
}

/// What distinguishes the open tool calls of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallKey<'a> {
    /// A choice and a number in it.
    Number(u64, u64),
    Id(&'a str),
}

#[derive(Debug)]
pub(super) struct ToolResult<'a> {
    /// The id of the call.
    pub id: Escaped<'a>,
    /// The name of the tool; empty if the stream does not say it.
    pub name: Escaped<'a>,
    /// A JSON value.
    pub result: &'a str,
    pub is_error: bool,
}

/// The tokens that a reply took. `None` = not known, which is not 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub input: Option<u64>,
    pub output: Option<u64>,
    pub total: Option<u64>,
    /// Parts of `input`.
    pub cached_input: Option<u64>,
    pub cache_write: Option<u64>,
    /// A part of `output`.
    pub reasoning: Option<u64>,
}

impl Usage {
    /// Takes over what a later report says.
    pub(in crate::upstream) fn update(&mut self, later: Self) {
        self.input = later.input.or(self.input);
        self.output = later.output.or(self.output);
        self.total = later.total.or(self.total);
        self.cached_input = later.cached_input.or(self.cached_input);
        self.cache_write = later.cache_write.or(self.cache_write);
        self.reasoning = later.reasoning.or(self.reasoning);
    }

    /// Adds what other requests took.
    pub(super) fn add(&mut self, other: Self) {
        let sum = |of: &mut Option<u64>, more: Option<u64>| {
            if let Some(more) = more {
                *of = Some(of.unwrap_or(0).saturating_add(more));
            }
        };
        sum(&mut self.input, other.input);
        sum(&mut self.output, other.output);
        sum(&mut self.total, other.total);
        sum(&mut self.cached_input, other.cached_input);
        sum(&mut self.cache_write, other.cache_write);
        sum(&mut self.reasoning, other.reasoning);
    }

    pub fn is_known(&self) -> bool {
        *self != Self::default()
    }

    /// The tokens that count against a limit: those of input and output; where one of them is not known, what the
    /// upstream says of both.
    pub fn charged(&self) -> u64 {
        match (self.input, self.output) {
            (Some(input), Some(output)) => input.saturating_add(output),
            (input, output) => self.total.or(input).or(output).unwrap_or(0),
        }
    }

    /// All tokens: what the upstream says, or else the sum of input and output if both are known.
    pub fn total(&self) -> Option<u64> {
        self.total.or_else(|| self.input?.checked_add(self.output?))
    }
}

#[derive(Debug, Clone)]
pub(super) enum End<'a> {
    Completed {
        reason: FinishReason,
        /// The API's own word for it.
        raw: Escaped<'a>,
    },
    Failed(Failure),
    /// The upstream says that it was stopped.
    Aborted,
}

/// What the upstream says of its failure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failure {
    pub code: Option<String>,
    pub text: String,
}

impl<'a> End<'a> {
    pub fn completed(raw: Escaped<'a>) -> Self {
        Self::Completed { reason: FinishReason::of(raw.as_str()), raw }
    }

    pub fn into_owned(self) -> End<'static> {
        match self {
            Self::Completed { reason, raw } => End::Completed { reason, raw: raw.into_owned() },
            Self::Failed(failure) => End::Failed(failure),
            Self::Aborted => End::Aborted,
        }
    }
}

label_enum! {
    /// Why a model stopped, in one vocabulary for all APIs.
    pub enum FinishReason {
        /// The answer is whole.
        Stop => "stop",
        /// The answer is as long as it may be.
        Length => "length",
        /// The model waits for the results of tools.
        ToolCalls => "tool_calls",
        /// The model, or a filter in front of it, refused.
        Refusal => "refusal",
        /// The model or agent waits to be asked to go on.
        Pause => "pause",
        Other => "other",
    }
}

impl FinishReason {
    /// The meaning of the word of any of the APIs.
    pub fn of(raw: &str) -> Self {
        match raw {
            "stop" | "end_turn" | "stop_sequence" | "STOP" | "completed" | "success" | "eos"
            | "stop_token" | "end" => Self::Stop,
            "length"
            | "max_tokens"
            | "max_output_tokens"
            | "MAX_TOKENS"
            | "model_context_window_exceeded"
            | "max_messages"
            | "model_length" => Self::Length,
            "tool_calls" | "tool-calls" | "function_call" | "FUNCTION_CALL" | "tool_use"
            | "tool_call" => Self::ToolCalls,
            "refusal"
            | "content_filter"
            | "content-filter"
            | "SAFETY"
            | "RECITATION"
            | "BLOCKLIST"
            | "PROHIBITED_CONTENT"
            | "SPII"
            | "IMAGE_SAFETY"
            | "IMAGE_PROHIBITED_CONTENT"
            | "IMAGE_RECITATION"
            | "MODEL_ARMOR"
            | "safety" => Self::Refusal,
            "pause_turn" | "interrupt" | "pause" => Self::Pause,
            _ => Self::Other,
        }
    }
}

/// How far a stream is after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Running,
    /// What has come proves that the reply has ended. Something that belongs to it, such as its usage, may follow.
    Ended,
    /// The same, and nothing that counts can follow.
    Over,
}

/// The data of an event is not JSON.
#[derive(Debug)]
pub(super) struct NotJson;
