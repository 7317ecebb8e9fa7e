//! Dialects: the formats in which AI APIs stream their replies, read into one neutral model.
//!
//! A reader is pure: it takes one event after the other, and says what each means ([`Item`]). It touches no socket, no
//! clock and no channel. [`Translation`] keeps what belongs to the whole reply, and writes the publications.
//!
//! The end of a body proves nothing, because a stream that breaks off can end like one that is whole. Each API has a
//! proof of its own, and a reply without it is lost.

mod ag_ui;
mod ai_sdk;
mod ai_sdk_data;
mod ai_sdk_usage;
mod anthropic;
mod choices;
mod detection;
mod escaped;
mod failure;
mod faults;
mod gemini;
mod item;
mod langchain;
mod langgraph;
mod langgraph_message;
mod ollama;
mod openai_chat;
mod openai_responses;
mod publication;
mod summary;
#[cfg(test)]
mod tests;
mod tool_calls;
mod translation;

pub(super) use detection::{detect, dialect_of_headers};
pub use item::{Failure, Usage};
use item::{Item, NotJson, Progress};
pub use summary::{Collected, ReplySummary, SummaryToolCall};
pub use translation::{Conclusion, Outcome};
pub(super) use translation::{Translation, Untranslatable, is_keep_alive};

use crate::protocol::Dialect;

/// One event of a stream.
#[derive(Debug, Clone, Copy)]
struct Event<'a> {
    /// The name that the stream gives it; empty if there is none.
    name: &'a str,
    /// Should be JSON.
    data: &'a str,
}

/// Takes what an event says.
type Sink<'a> = dyn FnMut(Item<'_>) + 'a;

/// The reader of one dialect, for one reply.
trait Reader {
    /// Reads an event. Its name is not `error`, which means a failure in every dialect, and its data is not `[DONE]`.
    ///
    /// It may be called again with the same event after [`NotJson`], so that it changes nothing of itself before its data
    /// is parsed.
    fn read(&mut self, event: Event<'_>, sink: &mut Sink<'_>) -> Result<Progress, NotJson>;

    /// The body has ended, and all of it has come. Some servers write no other proof of the end.
    fn end_body(&mut self, _sink: &mut Sink<'_>) -> Progress {
        Progress::Running
    }
}

/// Returns a reader; `None` for what is not the format of an API.
fn reader(dialect: Dialect) -> Option<Box<dyn Reader>> {
    Some(match dialect {
        Dialect::OpenaiChat => Box::new(openai_chat::OpenaiChat::default()),
        Dialect::OpenaiResponses => Box::new(openai_responses::OpenaiResponses::default()),
        Dialect::Anthropic => Box::new(anthropic::Anthropic::default()),
        Dialect::Gemini => Box::new(gemini::Gemini::default()),
        Dialect::Ollama => Box::new(ollama::Ollama::default()),
        Dialect::AiSdk => Box::new(ai_sdk::AiSdk::default()),
        Dialect::AgUi => Box::new(ag_ui::AgUi::default()),
        Dialect::Langgraph => Box::new(langgraph::LangGraph::default()),
        _ => return None,
    })
}

/// Parses an object. `Ok(None)` = it is JSON of another form.
fn parse<'a, T: serde::Deserialize<'a>>(data: &'a str) -> Result<Option<T>, NotJson> {
    // serde would also take an array for the members of a struct.
    if !data.trim_start().starts_with('{') {
        return crate::protocol::json_text(data).map(|_| None).ok_or(NotJson);
    }
    parse_value(data)
}

/// The same of data that may be other values than objects.
fn parse_value<'a, T: serde::Deserialize<'a>>(data: &'a str) -> Result<Option<T>, NotJson> {
    match serde_json::from_str(data) {
        Ok(parsed) => Ok(Some(parsed)),
        Err(error) if error.is_data() && crate::protocol::json_text(data).is_some() => Ok(None),
        Err(_) => Err(NotJson),
    }
}
