//! Runs of a LangGraph server, in Python or JavaScript, and streams of LangServe.
//!
//! LangServe proves its end with `event: end`. A LangGraph server may do so too, but usually it just ends the body, so
//! that here a body that has ended as a whole is the proof, unless it has ended inside a message: a run that is stopped
//! from elsewhere writes nothing more.

use std::collections::VecDeque;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Map;
use serde_json::value::RawValue;

use super::escaped::Escaped;
use super::item::{Delta, End, FinishReason, Item, NotJson, Progress, ToolResult, Usage};
use super::langchain::{From, Message};
use super::langgraph_message::{MessageState, Mode, bounded};
use super::{Event, Reader, Sink, parse, parse_value};

/// The most messages of which something is known; an older one is forgotten.
const MAX_MESSAGES: usize = 256;
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
    /// Whether the newest message has parts that still come.
    is_inside_message: bool,
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
            "" => return self.read_whole(event, sink),
            _ => {
                sink(Item::Unknown);
                return Ok(Progress::Running);
            }
        }
        if matches!(name, "values" | "updates" | "checkpoints") {
            // A step of the graph has ended.
            self.is_inside_message = false;
        }
        self.has_begun = true;
        Ok(Progress::Running)
    }

    fn end_body(&mut self, sink: &mut Sink<'_>) -> Progress {
        if !self.has_begun || self.has_own_end || self.is_inside_message {
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

    /// Reads an answer that is not streamed: the state of a run that has ended, or LangServe's output.
    fn read_whole(&mut self, event: Event<'_>, sink: &mut Sink<'_>) -> Result<Progress, NotJson> {
        #[derive(Deserialize)]
        struct Answer<'a> {
            #[serde(borrow, default)]
            messages: Option<Vec<Message<'a>>>,
            #[serde(borrow, default)]
            output: Option<&'a RawValue>,
            #[serde(borrow, default, rename = "__interrupt__")]
            interrupt: Option<&'a RawValue>,
        }
        let answer: Option<Answer<'_>> = parse(event.data)?;
        let Some(answer) = answer else {
            sink(Item::Unknown);
            return Ok(Progress::Running);
        };
        match (answer.messages, answer.output) {
            (Some(messages), _) => {
                // Those before the user's last one are the thread's.
                let asked = messages.iter().rposition(|message| message.from() == From::Other);
                for message in messages.iter().skip(asked.map_or(0, |at| at + 1)) {
                    self.read_message(message, Mode::Whole, sink);
                }
            }
            (None, Some(output)) => {
                self.read_data(Event { name: event.name, data: output.get() }, sink)?;
            }
            (None, None) if answer.interrupt.is_some() => {}
            (None, None) => {
                sink(Item::Unknown);
                return Ok(Progress::Running);
            }
        }
        if answer.interrupt.is_some() {
            self.read_interrupt(event)?;
            sink(Item::Native);
        }
        self.end(sink);
        Ok(Progress::Over)
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
            if is_complete {
                self.is_inside_message = false;
                if let Some(at) = self.position(message.id.word()) {
                    self.messages[at].end_calls(sink);
                }
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
            From::Tool => {
                self.is_inside_message = false;
                self.read_result(message, sink);
            }
            From::Other => {}
        }
    }

    fn read_assistant(&mut self, message: &Message<'_>, mode: Mode, sink: &mut Sink<'_>) {
        self.is_inside_message = message.will_be_marked();
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
