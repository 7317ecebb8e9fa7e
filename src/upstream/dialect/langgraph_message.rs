//! What is known of one message of a run, whose parts are what is new or the whole so far.

use serde_json::value::RawValue;

use super::Sink;
use super::escaped::Escaped;
use super::item::{CallKey, Delta, Item, Usage};
use super::langchain::{self, Message, PieceKind};

/// The longest id of a message or call that is remembered.
const MAX_ID_BYTES: usize = 256;
/// The most calls of one message.
const MAX_CALLS: usize = 128;
#[derive(Default)]
pub(super) struct MessageState {
    pub id: String,
    pub number: u64,
    /// How much of the message's texts has been read, as they are escaped.
    pub read: [usize; 3],
    pub usage: Usage,
    /// The calls that have begun and not ended.
    pub calls: Vec<CallState>,
    /// The ids of calls that have ended.
    pub ended: Vec<String>,
}

pub(super) struct CallState {
    pub index: u64,
    pub id: String,
    /// The arguments so far, if each part has the whole of them.
    pub whole: Option<String>,
}

/// How the parts of a message relate to each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Each has what is new.
    Deltas,
    /// Each has all so far.
    Whole,
}

/// An id that is remembered; empty if it is too long for that.
pub(super) fn bounded(id: &str) -> String {
    if id.len() <= MAX_ID_BYTES { id.to_owned() } else { String::new() }
}

impl MessageState {
    pub fn read_texts(&mut self, message: &Message<'_>, mode: Mode, sink: &mut Sink<'_>) {
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

    pub fn read_chunks(&mut self, chunks: &[langchain::CallChunk<'_>], sink: &mut Sink<'_>) {
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
    pub fn kept_bytes(&self) -> usize {
        self.calls.iter().filter_map(|call| call.whole.as_deref()).map(str::len).sum()
    }

    /// Reads calls of which each part has the whole arguments so far, and keeps as many bytes of them as it may.
    pub fn read_calls(&mut self, calls: &[langchain::Call<'_>], may: usize, sink: &mut Sink<'_>) {
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

    pub fn end_calls(&mut self, sink: &mut Sink<'_>) {
        for call in self.calls.drain(..) {
            let arguments = call.whole.as_deref().map(Escaped::new);
            sink(Item::ToolEnd { call: CallKey::Number(self.number, call.index), arguments });
            if self.ended.len() < MAX_CALLS {
                self.ended.push(call.id);
            }
        }
    }
}
