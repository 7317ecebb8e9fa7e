//! What an upstream's own events say of the whole reply, where they have the members of the gateway's own.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::dialect::{ReplySummary, Usage};
use crate::protocol::EventName;

/// `usage`, with the members that the events of dialects have.
#[derive(Deserialize)]
struct OwnUsage {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    total_tokens: Option<u64>,
    cached_input_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
}

/// `chunk`.
#[derive(Deserialize)]
struct OwnChunk<'a> {
    #[serde(borrow)]
    chunk: &'a RawValue,
}

/// Takes an event whose `event` is `name` and that is this object. What has other members is not understood, and says
/// nothing.
pub(super) fn observe(summary: &mut ReplySummary, name: &str, json: &[u8]) {
    if name == EventName::Usage.label()
        && let Ok(own) = serde_json::from_slice::<OwnUsage>(json)
    {
        summary.usage.update(Usage {
            input: own.input_tokens,
            output: own.output_tokens,
            total: own.total_tokens,
            cached_input: own.cached_input_tokens,
            cache_write: own.cache_write_tokens,
            reasoning: own.reasoning_tokens,
        });
    }
    if name == EventName::Chunk.label()
        && summary.collects()
        && let Ok(own) = serde_json::from_slice::<OwnChunk<'_>>(json)
        && let Some(text) =
            own.chunk.get().strip_prefix('"').and_then(|text| text.strip_suffix('"'))
    {
        summary.add_text(text);
    }
}
