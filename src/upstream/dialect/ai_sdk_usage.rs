//! The token counts of the AI SDK, in the forms of its versions 4 to 7.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::escaped::Count;
use super::item::Usage;

/// Metadata of a message. Its form is the route's own; these are the names that the SDK uses for its counts.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    total_usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Members {
    #[serde(default)]
    input_tokens: Count,
    #[serde(default)]
    prompt_tokens: Count,
    #[serde(default)]
    output_tokens: Count,
    #[serde(default)]
    completion_tokens: Count,
    #[serde(default)]
    total_tokens: Count,
    #[serde(default)]
    cached_input_tokens: Count,
    #[serde(default)]
    reasoning_tokens: Count,
    #[serde(default)]
    input_token_details: Option<InputDetails>,
    #[serde(default)]
    output_token_details: Option<OutputDetails>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct InputDetails {
    #[serde(default)]
    cache_read_tokens: Count,
    #[serde(default)]
    cache_write_tokens: Count,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct OutputDetails {
    #[serde(default)]
    reasoning_tokens: Count,
}

/// Returns the counts in a message's metadata; `None` = there are none.
pub(super) fn usage(metadata: &RawValue) -> Option<Usage> {
    let members = serde_json::from_str::<Metadata<'_>>(metadata.get()).ok()?;
    counts(members.total_usage.or(members.usage).unwrap_or(metadata))
}

/// Returns the counts of an object that is nothing else.
pub(super) fn counts(json: &RawValue) -> Option<Usage> {
    let members = serde_json::from_str::<Members>(json.get()).ok()?;
    let input = members.input_token_details.unwrap_or_default();
    let output = members.output_token_details.unwrap_or_default();
    let usage = Usage {
        input: members.input_tokens.0.or(members.prompt_tokens.0),
        output: members.output_tokens.0.or(members.completion_tokens.0),
        total: members.total_tokens.0,
        cached_input: input.cache_read_tokens.0.or(members.cached_input_tokens.0),
        cache_write: input.cache_write_tokens.0,
        reasoning: output.reasoning_tokens.0.or(members.reasoning_tokens.0),
    };
    usage.is_known().then_some(usage)
}
