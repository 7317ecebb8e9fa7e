//! Runs of a LangGraph server, in Python or JavaScript, and streams of LangServe.
//!
//! LangServe proves its end with `event: end`. A LangGraph server may do so too, but usually it just ends the body, so
//! that here a body that has ended as a whole is the proof.

use std::collections::VecDeque;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Map;
use serde_json::value::RawValue;

use super::escaped::Escaped;
use super::item::{CallKey, Delta, End, FinishReason, Item, NotJson, Progress, ToolResult, Usage};
use super::langchain::{self, From, Message, PieceKind};
use super::{Event, Reader, Sink, parse, parse_value};

/// The most messages of which something is known; an older one is forgotten.
const MAX_MESSAGES: usize = 256;
/// The longest id of a message or call that is remembered.
const MAX_ID_BYTES: usize = 256;
/// The most calls of one message.
const MAX_CALLS: usize = 128;
/// The most bytes of the arguments of all open calls whose parts are whole each time.
const MAX_ARGUMENT_BYTES: usize = 1024 * 1024;

#[derive(Default)]
pub(super) struct LangGraph {
    /// Whether an event has come that proves this to be a run.
    has_begun: bool,
    /// Whether this is a stream of LangServe, whose end is always written.
    has_own_end: bool,
    messages: VecDeque<MessageState>,
    /// The number of messages so far.
    count: u64,
    /// The tokens of messages that are forgotten.
    forgotten: Usage,
    /// Whether the messages that were there before the run have come.
    has_state: bool,
    finish: Option<Escaped<'static>>,
    is_interrupted: bool,
}

#[derive(Default)]
struct MessageState {
    id: String,
    number: u64,
    /// How much of the message's texts has been read, as they are escaped.
    read: [usize; 3],
    usage: Usage,
    /// The calls that have begun and not ended.
    calls: Vec<CallState>,
    /// The ids of calls that have ended.
    ended: Vec<String>,
}

struct CallState {
    index: u64,
    id: String,
    /// The arguments so far, if each part has the whole of them.
    whole: Option<String>,
}

/// How the parts of a message relate to each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Each has what is new.
    Deltas,
    /// Each has all so far.
    Whole,
}

impl Reader for LangGraph {
    fn read(&mut self, event: Event<'_>, sink: &mut Sink<'_>) -> Result<Progress, NotJson> {
        // Events of subgraphs have the path to them behind the name.
        let name = event.name.split('|').next().unwrap_or_default();
        match name {
            // LangServe writes it without data.
            "end" => {
                self.end(sink);
                return Ok(Progress::Over);
            }
            "metadata" => {}
            "messages" => self.read_tuple(event, sink)?,
            "messages/metadata" => {
                if let Some(ids) = parse::<Map<String, serde_json::Value>>(event.data)? {
                    for id in ids.keys() {
                        self.message(id);
                    }
                }
            }
            "messages/partial" => self.read_list(event, false, sink)?,
            "messages/complete" => self.read_list(event, true, sink)?,
            "data" => {
                self.read_data(event, sink)?;
                self.has_own_end = true;
            }
            "values" | "updates" => {
                self.read_interrupt(event)?;
                sink(Item::Native);
            }
            "custom" | "debug" | "tasks" | "checkpoints" | "events" | "feedback" => {
                sink(Item::Native);
            }
            _ => sink(Item::Unknown),
        }
        self.has_begun = true;
        Ok(Progress::Running)
    }

    fn end_body(&mut self, sink: &mut Sink<'_>) -> Progress {
        if !self.has_begun || self.has_own_end {
            return Progress::Running;
        }
        self.end(sink);
        Progress::Over
    }
}

impl LangGraph {
    fn end(&mut self, sink: &mut Sink<'_>) {
        for message in &mut self.messages {
            message.end_calls(sink);
        }
        let raw = self.finish.clone().unwrap_or_default();
        sink(Item::End(if self.is_interrupted {
            End::completed(Escaped::new("interrupt"))
        } else if raw.is_empty() {
            End::Completed { reason: FinishReason::Stop, raw }
        } else {
            End::completed(raw)
        }));
    }

    /// Reads a part of a message, and where in the graph it comes from.
    fn read_tuple(&mut self, event: Event<'_>, sink: &mut Sink<'_>) -> Result<(), NotJson> {
        match parse_value::<(Message<'_>, IgnoredAny)>(event.data)? {
            Some((message, _)) if message.is_message() => {
                self.read_message(&message, Mode::Deltas, sink);
            }
            _ => sink(Item::Unknown),
        }
        Ok(())
    }

    fn read_list(
        &mut self,
        event: Event<'_>,
        is_complete: bool,
        sink: &mut Sink<'_>,
    ) -> Result<(), NotJson> {
        let Some(messages) = parse_value::<Vec<Message<'_>>>(event.data)? else {
            sink(Item::Unknown);
            return Ok(());
        };
        // The server in JavaScript begins with the messages of the thread, of which no event has told anything before.
        let is_known = |message: &Message<'_>| self.position(message.id.word()).is_some();
        if is_complete && !self.has_state && !messages.iter().any(is_known) {
            self.has_state = true;
            return Ok(());
        }
        self.has_state = true;
        for message in &messages {
            self.read_message(message, Mode::Whole, sink);
            if is_complete && let Some(at) = self.position(message.id.word()) {
                self.messages[at].end_calls(sink);
            }
        }
        Ok(())
    }

    /// Reads LangServe's output: a text, a message, or whatever the chain returns.
    fn read_data(&mut self, event: Event<'_>, sink: &mut Sink<'_>) -> Result<(), NotJson> {
        let Some(json) = parse_value::<&RawValue>(event.data)? else { return Err(NotJson) };
        if let Some(text) = Escaped::of_string(json) {
            sink(Item::Text(Delta::new(text)));
            return Ok(());
        }
        match parse::<Message<'_>>(event.data)? {
            Some(message) if message.is_message() => {
                self.read_message(&message, Mode::Deltas, sink);
            }
            _ => sink(Item::Native),
        }
        Ok(())
    }

    /// A run that waits for a person says so in its state.
    fn read_interrupt(&mut self, event: Event<'_>) -> Result<(), NotJson> {
        #[derive(Deserialize)]
        struct State<'a> {
            #[serde(borrow, rename = "__interrupt__")]
            interrupt: &'a RawValue,
        }
        let state = parse::<State<'_>>(event.data)?;
        self.is_interrupted |=
            state.is_some_and(|state| !matches!(state.interrupt.get(), "[]" | "null"));
        Ok(())
    }

    fn read_message(&mut self, message: &Message<'_>, mode: Mode, sink: &mut Sink<'_>) {
        match message.from() {
            From::Assistant => self.read_assistant(message, mode, sink),
            From::Tool => self.read_result(message, sink),
            From::Other => {}
        }
    }

    fn read_assistant(&mut self, message: &Message<'_>, mode: Mode, sink: &mut Sink<'_>) {
        let at = self.message(message.id.word());
        let kept = self.messages.iter().map(MessageState::kept_bytes).sum::<usize>();
        let state = &mut self.messages[at];
        state.read_texts(message, mode, sink);
        let chunks = message.call_chunks();
        if mode == Mode::Deltas && !chunks.is_empty() {
            state.read_chunks(&chunks, sink);
        } else {
            let calls = message.calls();
            state.read_calls(&calls, MAX_ARGUMENT_BYTES.saturating_sub(kept), sink);
            if mode == Mode::Deltas && !calls.is_empty() {
                state.end_calls(sink);
            }
        }
        if message.is_last() && mode == Mode::Deltas {
            state.end_calls(sink);
        }
        if let Some(reason) = message.finish_reason() {
            self.finish = Some(reason.into_owned());
        }
        if let Some(usage) = message.usage() {
            match mode {
                Mode::Deltas => state.usage.add(usage),
                Mode::Whole => state.usage = usage,
            }
            let mut all = self.forgotten;
            for message in &self.messages {
                all.add(message.usage);
            }
            sink(Item::Usage(all));
        }
    }

    fn read_result(&mut self, message: &Message<'_>, sink: &mut Sink<'_>) {
        let id = message.tool_call_id.word();
        // The calls of a message run when it is whole.
        for state in &mut self.messages {
            if state.calls.iter().any(|call| call.id == id) {
                state.end_calls(sink);
            }
        }
        let at = self.message(message.id.word());
        if std::mem::replace(&mut self.messages[at].read[0], 1) == 0 {
            sink(Item::ToolResult(ToolResult {
                id: message.tool_call_id.get().unwrap_or_default(),
                name: message.name.get().unwrap_or_default(),
                result: message.content.map_or("null", RawValue::get),
                is_error: message.is_error(),
            }));
        }
    }

    fn position(&self, id: &str) -> Option<usize> {
        self.messages.iter().rposition(|message| message.id == id)
    }

    /// Returns the position of what is known of a message, which is new if it is not known yet.
    fn message(&mut self, id: &str) -> usize {
        if let Some(at) = self.position(id) {
            return at;
        }
        if self.messages.len() == MAX_MESSAGES
            && let Some(oldest) = self.messages.pop_front()
        {
            self.forgotten.add(oldest.usage);
        }
        self.count += 1;
        let state = MessageState { id: bounded(id), number: self.count, ..Default::default() };
        self.messages.push_back(state);
        self.messages.len() - 1
    }
}

/// An id that is remembered; empty if it is too long for that.
fn bounded(id: &str) -> String {
    if id.len() <= MAX_ID_BYTES { id.to_owned() } else { String::new() }
}

impl MessageState {
    fn read_texts(&mut self, message: &Message<'_>, mode: Mode, sink: &mut Sink<'_>) {
        // Where the texts of each kind begin that have not been read.
        let mut seen = self.read;
        message.pieces(&mut |kind, text| {
            let text = match mode {
                Mode::Deltas => text,
                Mode::Whole => {
                    let seen = &mut seen[kind as usize];
                    let skipped = text.as_str().len().min(*seen);
                    *seen -= skipped;
                    self.read[kind as usize] += text.as_str().len() - skipped;
                    match text.without_start(skipped) {
                        Some(text) if !text.is_empty() => text,
                        _ => return,
                    }
                }
            };
            let delta = Delta::new(text);
            sink(match kind {
                PieceKind::Text => Item::Text(delta),
                PieceKind::Refusal => Item::Refusal(delta),
                PieceKind::Reasoning => Item::Reasoning(delta),
            });
        });
    }

    fn read_chunks(&mut self, chunks: &[langchain::CallChunk<'_>], sink: &mut Sink<'_>) {
        for (position, chunk) in chunks.iter().enumerate() {
            let index = chunk.index.0.unwrap_or(position as u64);
            let call = CallKey::Number(self.number, index);
            let (id, name) = (chunk.id.filled(), chunk.name.filled());
            if id.is_some() || name.is_some() {
                let id = id.unwrap_or_default();
                if self.calls.len() < MAX_CALLS && !self.calls.iter().any(|it| it.index == index) {
                    self.calls.push(CallState { index, id: bounded(id.as_str()), whole: None });
                }
                sink(Item::ToolStart { call, id, name: name.unwrap_or_default(), choice: 0 });
            }
            if let Some(text) = chunk.args.filled() {
                sink(Item::ToolArguments { call, text });
            }
        }
    }

    /// The bytes of arguments that are kept.
    fn kept_bytes(&self) -> usize {
        self.calls.iter().filter_map(|call| call.whole.as_deref()).map(str::len).sum()
    }

    /// Reads calls of which each part has the whole arguments so far, and keeps as many bytes of them as it may.
    fn read_calls(&mut self, calls: &[langchain::Call<'_>], may: usize, sink: &mut Sink<'_>) {
        let may = may + self.kept_bytes();
        for (position, call) in calls.iter().enumerate() {
            let index = position as u64;
            let id = call.id.word();
            if !id.is_empty() && self.ended.iter().any(|ended| ended == id) {
                continue;
            }
            let whole = call.args.map(RawValue::get).filter(|args| args.len() <= may / calls.len());
            let whole = whole.map(str::to_owned);
            if let Some(open) = self.calls.iter_mut().find(|open| open.index == index) {
                open.whole = whole.or(open.whole.take());
                continue;
            }
            if self.calls.len() == MAX_CALLS {
                return;
            }
            self.calls.push(CallState { index, id: bounded(id), whole });
            sink(Item::ToolStart {
                call: CallKey::Number(self.number, index),
                id: call.id.get().unwrap_or_default(),
                name: call.name.get().unwrap_or_default(),
                choice: 0,
            });
        }
    }

    fn end_calls(&mut self, sink: &mut Sink<'_>) {
        for call in self.calls.drain(..) {
            let arguments = call.whole.as_deref().map(Escaped::new);
            sink(Item::ToolEnd { call: CallKey::Number(self.number, call.index), arguments });
            if self.ended.len() < MAX_CALLS {
                self.ended.push(call.id);
            }
        }
    }
}
