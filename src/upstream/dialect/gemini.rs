//! Google's `streamGenerateContent`.
//!
//! Each event is a whole answer with what is new. The proof of the end: each candidate that was seen has its
//! `finishReason`, or the prompt was blocked.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::choices::Choices;
use super::escaped::{Count, Escaped, Text};
use super::item::{CallKey, Delta, End, Failure, FinishReason, Item, NotJson, Progress, Usage};
use super::{Event, Reader, Sink, parse};

#[derive(Default)]
pub(super) struct Gemini {
    choices: Choices,
    calls: u64,
    is_blocked: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    #[serde(borrow, default)]
    candidates: Option<Vec<Candidate<'a>>>,
    #[serde(borrow, default)]
    prompt_feedback: Option<PromptFeedback<'a>>,
    #[serde(default)]
    usage_metadata: Option<UsageMembers>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate<'a> {
    #[serde(default)]
    index: Count,
    #[serde(borrow, default)]
    content: Option<Content<'a>>,
    #[serde(borrow, default)]
    finish_reason: Text<'a>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, default)]
    parts: Option<Vec<Part<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part<'a> {
    #[serde(borrow, default)]
    text: Text<'a>,
    #[serde(default)]
    thought: Option<bool>,
    #[serde(borrow, default)]
    function_call: Option<FunctionCall<'a>>,
    #[serde(borrow, default)]
    thought_signature: Text<'a>,
}

#[derive(Deserialize)]
struct FunctionCall<'a> {
    #[serde(borrow, default)]
    id: Text<'a>,
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(borrow, default)]
    args: Option<&'a RawValue>,
    /// The arguments come in parts, each for a path in them.
    #[serde(default, rename = "willContinue")]
    will_continue: Option<bool>,
    #[serde(borrow, default, rename = "partialArgs")]
    partial_args: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PromptFeedback<'a> {
    #[serde(borrow, default)]
    block_reason: Text<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UsageMembers {
    #[serde(default)]
    prompt_token_count: Count,
    #[serde(default)]
    tool_use_prompt_token_count: Count,
    #[serde(default)]
    cached_content_token_count: Count,
    #[serde(default)]
    candidates_token_count: Count,
    #[serde(default)]
    thoughts_token_count: Count,
    #[serde(default)]
    total_token_count: Count,
}

impl Reader for Gemini {
    fn read(&mut self, event: Event<'_>, sink: &mut Sink<'_>) -> Result<Progress, NotJson> {
        // Without `alt=sse` the answers are the elements of an array.
        if event.data.trim_start().starts_with('[') {
            let answers: Vec<&RawValue> = serde_json::from_str(event.data).map_err(|_| NotJson)?;
            for answer in answers {
                if self.read_answer(answer.get(), sink)? == Progress::Over {
                    return Ok(Progress::Over);
                }
            }
            return Ok(self.progress());
        }
        self.read_answer(event.data, sink)
    }
}

impl Gemini {
    fn read_answer(&mut self, data: &str, sink: &mut Sink<'_>) -> Result<Progress, NotJson> {
        let Some(answer) = parse::<Answer<'_>>(data)? else {
            sink(Item::Unknown);
            return Ok(self.progress());
        };
        if let Some(error) = answer.error {
            sink(Item::End(End::Failed(Failure::read(error.get()))));
            return Ok(Progress::Over);
        }
        let is_known = answer.candidates.is_some()
            || answer.prompt_feedback.is_some()
            || answer.usage_metadata.is_some();
        if !is_known {
            sink(Item::Unknown);
        }
        if let Some(usage) = answer.usage_metadata {
            sink(Item::Usage(usage.into()));
        }
        for candidate in answer.candidates.iter().flatten() {
            self.read_candidate(candidate, sink);
        }
        let blocked = answer.prompt_feedback.and_then(|feedback| feedback.block_reason.filled());
        if let Some(raw) = blocked
            && !self.choices.all_finished()
        {
            self.is_blocked = true;
            sink(Item::End(End::Completed { reason: FinishReason::Refusal, raw }));
        } else if self.choices.all_finished() {
            sink(Item::End(self.choices.end()));
        }
        Ok(self.progress())
    }

    fn progress(&self) -> Progress {
        match self.is_blocked || self.choices.all_finished() {
            true => Progress::Ended,
            false => Progress::Running,
        }
    }

    fn read_candidate(&mut self, candidate: &Candidate<'_>, sink: &mut Sink<'_>) {
        let choice = candidate.index.0.unwrap_or(0);
        // Some models give a reason with each part of an answer.
        if !self.choices.may_continue(choice) {
            return;
        }
        let parts = candidate.content.as_ref().and_then(|content| content.parts.as_ref());
        for part in parts.into_iter().flatten() {
            self.read_part(part, choice, sink);
        }
        if let Some(reason) = candidate.finish_reason.filled() {
            self.choices.finish(choice, reason);
        }
    }

    fn read_part(&mut self, part: &Part<'_>, choice: u64, sink: &mut Sink<'_>) {
        if let Some(function) = &part.function_call {
            self.choices.called_tool(choice);
            let is_partial = function.will_continue == Some(true)
                || function.partial_args.is_some()
                || function.name.filled().is_none();
            if is_partial {
                sink(Item::Native);
                return;
            }
            let call = CallKey::Number(choice, self.calls);
            self.calls += 1;
            let (id, name) = (function.id.get(), function.name.get());
            let (id, name) = (id.unwrap_or_default(), name.unwrap_or_default());
            sink(Item::ToolStart { call, id, name, choice });
            sink(Item::ToolEnd { call, arguments: function.args.map(Escaped::of_value) });
            return;
        }
        match part.text.get() {
            Some(text) if text.is_empty() => {}
            Some(text) if part.thought == Some(true) => {
                sink(Item::Reasoning(Delta { choice, text }));
            }
            Some(text) => sink(Item::Text(Delta { choice, text })),
            None if part.thought_signature.get().is_some() => {}
            // Code that was run, an image, and the like.
            None => sink(Item::Native),
        }
    }
}

impl From<UsageMembers> for Usage {
    fn from(members: UsageMembers) -> Self {
        // Parts of a sum that are left out are 0.
        let sum = |first: Count, second: Count| match (first.0, second.0) {
            (None, None) => None,
            (first, second) => Some(first.unwrap_or(0).saturating_add(second.unwrap_or(0))),
        };
        Self {
            input: sum(members.prompt_token_count, members.tool_use_prompt_token_count),
            output: sum(members.candidates_token_count, members.thoughts_token_count),
            total: members.total_token_count.0,
            cached_input: members.cached_content_token_count.0,
            cache_write: None,
            reasoning: members.thoughts_token_count.0,
        }
    }
}
