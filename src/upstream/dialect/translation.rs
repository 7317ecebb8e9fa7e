//! The translation of one reply: from the events of its dialect to publications, with exactly one end.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::failure::is_failure;
use super::item::{Delta, End, Failure, Item, NotJson, Progress};
use super::publication::Writer;
use super::summary::ReplySummary;
use super::tool_calls::{OpenCall, TooManyCalls, ToolCalls, pair_with};
use super::{Event, Reader, reader};
use crate::config::Publish;
use crate::protocol::{Dialect, ErrorCode, ErrorEvent, json_text};
use crate::telemetry;
use crate::telemetry::upstreams::UpstreamMetrics;

/// The names of events that only show that the stream is alive.
const KEEP_ALIVES: [&str; 5] = ["ping", "heartbeat", "keepalive", "keep-alive", "keep_alive"];

/// The most texts that wait for the second half of a character at once.
const MAX_HALVES: usize = 64;

/// Why an event cannot be translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::upstream) enum Untranslatable {
    NotJson,
    TooLarge,
}

impl From<TooManyCalls> for Untranslatable {
    fn from(_: TooManyCalls) -> Self {
        Self::TooLarge
    }
}

/// How a reply has ended, by what its stream says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Completed,
    Failed,
    Aborted,
}

/// The end of a reply.
#[derive(Debug)]
pub struct Conclusion {
    /// The terminal event.
    pub json: Bytes,
    pub outcome: Outcome,
    /// What the upstream says of its failure, for the log.
    pub reason: Option<String>,
}

/// Translates one reply.
pub(in crate::upstream) struct Translation {
    reader: Box<dyn Reader>,
    /// How far the stream is.
    progress: Progress,
    state: State,
}

/// What belongs to the whole reply.
struct State {
    dialect: Dialect,
    publish: Publish,
    metrics: Arc<UpstreamMetrics>,
    task_id: Box<str>,
    writer: Writer,
    tool_calls: ToolCalls,
    /// The first halves of surrogate pairs whose other half has not come.
    halves: Vec<(TextKind, u64, String)>,
    /// What is to be published, in order.
    publications: VecDeque<Bytes>,
    end: Option<End<'static>>,
    is_closed: bool,
    summary: ReplySummary,
}

#[derive(Clone, Copy, PartialEq)]
enum TextKind {
    Text,
    Refusal,
    Reasoning,
}

impl Translation {
    /// `None` if the dialect is not one of an API.
    pub fn new(
        dialect: Dialect,
        publish: Publish,
        metrics: &Arc<UpstreamMetrics>,
        task_id: &str,
    ) -> Option<Self> {
        let state = State {
            dialect,
            publish,
            metrics: Arc::clone(metrics),
            task_id: task_id.into(),
            writer: Writer::new(task_id),
            tool_calls: ToolCalls::default(),
            halves: Vec::new(),
            publications: VecDeque::new(),
            end: None,
            is_closed: false,
            summary: ReplySummary::default(),
        };
        Some(Self { reader: reader(dialect)?, progress: Progress::Running, state })
    }

    /// Takes an event of the stream. Nothing may be taken after [`Translation::is_over`].
    pub fn take(&mut self, name: &str, data: &str) -> Result<(), Untranslatable> {
        // Every dialect that names its failures does it so. LangGraph's have the path to a subgraph behind the name.
        if name.split('|').next() == Some("error") {
            if self.state.publish == Publish::Native {
                // A text is only in the terminal event.
                let _ = self.state.publish_native(name, data);
            }
            self.state.set_end(End::Failed(Failure::read(data)));
            self.progress = Progress::Over;
            return Ok(());
        }
        match self.read(Event { name, data }) {
            Err(NotJson) if is_keep_alive(name, data) => Ok(()),
            // An event that is only a name.
            Err(NotJson) if data.trim().is_empty() => {
                telemetry::dialects::unknown_event(self.state.metrics.name(), self.state.dialect);
                self.state.publish_native(name, "")
            }
            Err(NotJson) => match json_text(data) {
                // Python writes NaN, which is now in quotes.
                Some(Cow::Owned(json)) => self
                    .read(Event { name, data: &json })
                    .map_err(|NotJson| Untranslatable::NotJson)?,
                _ => Err(Untranslatable::NotJson),
            },
            Ok(taken) => taken,
        }
    }

    fn read(&mut self, event: Event<'_>) -> Result<Result<(), Untranslatable>, NotJson> {
        let state = &mut self.state;
        let mut taken = Ok(());
        let (mut is_passed, mut has_failed) = (false, false);
        let mut sink = |item: Item<'_>| match item {
            // A server in between may write it, in a form of its own.
            Item::Unknown if is_unnamed(event.name) && is_failure(event.data) => has_failed = true,
            Item::Unknown | Item::Native if is_passed || KEEP_ALIVES.contains(&event.name) => {}
            item => {
                is_passed |= matches!(item, Item::Unknown | Item::Native);
                taken = taken.and_then(|()| state.take(item, event));
            }
        };
        let mut progress = self.reader.read(event, &mut sink)?;
        if has_failed {
            state.set_end(End::Failed(Failure::read(event.data)));
            progress = Progress::Over;
        }
        if self.state.publish == Publish::Native {
            taken = taken.and_then(|()| self.state.publish_native(event.name, event.data));
        }
        if self.progress != Progress::Over {
            self.progress = progress;
        }
        Ok(taken)
    }

    /// Takes that the body has ended, and that all of it has come.
    pub fn end_body(&mut self) {
        if self.progress != Progress::Running {
            return;
        }
        let state = &mut self.state;
        let event = Event { name: "", data: "" };
        // Ends of what has begun take nothing that could be too large.
        let mut sink = |item: Item<'_>| {
            let _ = state.take(item, event);
        };
        self.progress = self.reader.end_body(&mut sink);
    }

    /// Returns the next publication that is ready, and not the terminal one.
    pub fn next(&mut self) -> Option<Bytes> {
        self.state.publications.pop_front()
    }

    /// Whether what has come proves that the reply has ended.
    pub fn has_ended(&self) -> bool {
        self.progress != Progress::Running
    }

    /// Whether something waits for [`Translation::next`].
    pub fn has_publications(&self) -> bool {
        !self.state.publications.is_empty()
    }

    /// Whether nothing that counts can follow.
    pub fn is_over(&self) -> bool {
        self.progress == Progress::Over
    }

    /// Ends a reply whose end is proved: nothing more of it is taken, and its last publications are ready.
    pub fn close(&mut self) {
        self.progress = Progress::Over;
        let state = &mut self.state;
        if std::mem::replace(&mut state.is_closed, true) {
            return;
        }
        if !matches!(state.end, Some(End::Failed(_))) {
            state.flush_halves();
            while let Some(call) = state.tool_calls.end_next(None) {
                state.publish_tool_end(&call);
            }
        }
        if state.publish == Publish::Events && state.summary.usage.is_known() {
            state.publications.push_back(state.writer.usage(&state.summary.usage));
        }
    }

    /// Returns the terminal event of a reply that is closed.
    pub fn conclude(&mut self) -> Conclusion {
        let state = &mut self.state;
        let end = state.end.take().unwrap_or_else(|| End::completed(Default::default()));
        match end {
            End::Completed { reason, raw } => {
                state.summary.finish_reason = Some(reason);
                let json = state.writer.complete(reason, raw.as_str());
                Conclusion { json, outcome: Outcome::Completed, reason: None }
            }
            End::Failed(failure) => {
                let event = ErrorEvent::new(ErrorCode::TaskFailed, &failure.text)
                    .upstream_code(failure.code.as_deref())
                    .task_id(&state.task_id);
                let json = event.to_json().into();
                Conclusion { json, outcome: Outcome::Failed, reason: Some(failure.to_string()) }
            }
            End::Aborted => {
                let json = crate::protocol::cancelled(&state.task_id).into();
                Conclusion { json, outcome: Outcome::Aborted, reason: None }
            }
        }
    }

    pub fn summary_mut(&mut self) -> &mut ReplySummary {
        &mut self.state.summary
    }
}

impl State {
    fn take(&mut self, item: Item<'_>, event: Event<'_>) -> Result<(), Untranslatable> {
        match item {
            Item::Text(delta) => self.take_text(TextKind::Text, &delta),
            Item::Refusal(delta) => self.take_text(TextKind::Refusal, &delta),
            Item::Reasoning(delta) => self.take_text(TextKind::Reasoning, &delta),
            Item::ToolStart { call, id, name, choice } => {
                if self.tool_calls.is_replaced(call, &id)
                    && let Some(ended) = self.tool_calls.end(call, None)
                {
                    self.publish_tool_end(&ended);
                }
                if let Some(call) = self.tool_calls.start(call, &id, &name, choice)? {
                    let json = self.writer.tool_start(&call.id, &call.name, choice);
                    push(&mut self.publications, self.publish, json);
                }
            }
            Item::ToolArguments { call, text } => {
                if let Some((delta, call)) = self.tool_calls.add(call, &text)? {
                    let json =
                        self.writer.tool_arguments(&call.id, &call.name, &delta, call.choice());
                    push(&mut self.publications, self.publish, json);
                }
            }
            Item::ToolEnd { call, arguments } => {
                if let Some(ended) = self.tool_calls.end(call, arguments) {
                    self.publish_tool_end(&ended);
                }
            }
            Item::ToolsEnd { choice } => {
                while let Some(ended) = self.tool_calls.end_next(Some(choice)) {
                    self.publish_tool_end(&ended);
                }
            }
            Item::ToolResult(result) => {
                let json = self.writer.tool_result(&result);
                push(&mut self.publications, self.publish, json);
            }
            Item::Usage(usage) => self.summary.usage.update(usage),
            Item::Native | Item::Unknown => {
                if matches!(item, Item::Unknown) {
                    telemetry::dialects::unknown_event(self.metrics.name(), self.dialect);
                }
                if self.publish == Publish::Events {
                    self.publish_native(event.name, event.data)?;
                }
            }
            Item::End(end) => self.set_end(end.into_owned()),
        }
        Ok(())
    }

    /// A failure may come after the proof of an end, but nothing undoes it.
    fn set_end(&mut self, end: End<'static>) {
        if !matches!(self.end, Some(End::Failed(_))) {
            self.end = Some(end);
        }
    }

    fn take_text(&mut self, kind: TextKind, Delta { choice, text }: &Delta<'_>) {
        let mut unused = String::new();
        let found = self.halves.iter().position(|(of, at, _)| (*of, *at) == (kind, *choice));
        let half = match found.and_then(|at| self.halves.get_mut(at)) {
            Some((_, _, half)) => half,
            None => &mut unused,
        };
        let text = pair_with(half, text.as_str());
        if !unused.is_empty() && self.halves.len() < MAX_HALVES {
            self.halves.push((kind, *choice, unused));
        }
        self.publish_text(kind, *choice, &text);
    }

    fn publish_text(&mut self, kind: TextKind, choice: u64, text: &str) {
        if text.is_empty() {
            return;
        }
        match kind {
            _ if choice != 0 => {}
            TextKind::Text | TextKind::Refusal => self.summary.add_text(text),
            TextKind::Reasoning => self.summary.add_reasoning(text),
        }
        if self.publish == Publish::Events {
            self.publications.push_back(match kind {
                TextKind::Text => self.writer.chunk(text, choice, false),
                TextKind::Refusal => self.writer.chunk(text, choice, true),
                TextKind::Reasoning => self.writer.reasoning(text, choice),
            });
        }
    }

    /// Publishes that the second halves of characters have not come.
    fn flush_halves(&mut self) {
        for (kind, choice, half) in std::mem::take(&mut self.halves) {
            if !half.is_empty() {
                self.publish_text(kind, choice, "\\ufffd");
            }
        }
    }

    fn publish_tool_end(&mut self, call: &OpenCall) {
        self.summary.add_tool_call(&call.id, &call.name, &call.arguments);
        let json = self.writer.tool_end(&call.id, &call.name, &call.arguments, call.choice());
        push(&mut self.publications, self.publish, json);
    }

    fn publish_native(&mut self, name: &str, data: &str) -> Result<(), Untranslatable> {
        // Some events are only a name.
        let data = if data.is_empty() { "null" } else { data };
        // It may be nested more deeply than clients can read.
        let json = json_text(data).ok_or(Untranslatable::NotJson)?;
        self.publications.push_back(self.writer.native(name, &json));
        Ok(())
    }
}

/// Whether the stream gives an event no name; `message` is the default of event streams.
fn is_unnamed(name: &str) -> bool {
    matches!(name, "" | "message")
}

/// Whether an event that is not JSON only shows that the stream is alive.
pub(in crate::upstream) fn is_keep_alive(name: &str, data: &str) -> bool {
    KEEP_ALIVES.contains(&name) || (is_unnamed(name) && data.trim().is_empty())
}

/// Publishes an event, where the objects of the API are not published in its place.
fn push(publications: &mut VecDeque<Bytes>, publish: Publish, json: Bytes) {
    if publish == Publish::Events {
        publications.push_back(json);
    }
}
