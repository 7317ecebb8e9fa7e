//! The spans of one message, from its arrival to the last event of its reply.

use std::sync::{Arc, Mutex, PoisonError};

use super::GenerationEnd;
use crate::telemetry::spans::{Span, SpanStatus};

/// Two children of the message's span: one until the first chunk, one from there to the terminal event. A clone
/// is held by whoever receives the events and by whoever determines the end.
#[derive(Debug, Clone, Default)]
pub struct ReplySpans(Option<Arc<Mutex<Open>>>);

#[derive(Debug)]
struct Open {
    message: Span,
    first_chunk: Option<Span>,
    terminal_event: Option<Span>,
}

impl ReplySpans {
    /// The upstream has accepted the message whose span this is.
    pub fn start(message: Span, task_id: &str) -> Self {
        if !message.is_recording() {
            return Self(None);
        }
        let mut message = message;
        message.set("tidegate.task_id", task_id.to_owned());
        let first_chunk = Some(message.child("first chunk"));
        Self(Some(Arc::new(Mutex::new(Open { message, first_chunk, terminal_event: None }))))
    }

    /// A chunk of the reply has come. Only the first one changes anything.
    pub fn record_chunk(&self) {
        self.with(|open| {
            if let Some(first_chunk) = open.first_chunk.take() {
                first_chunk.end();
                open.terminal_event = Some(open.message.child("terminal event"));
            }
        });
    }

    /// The reply has ended.
    pub fn end(&self, end: GenerationEnd) {
        let status = match end {
            GenerationEnd::Completed => SpanStatus::Ok,
            GenerationEnd::Cancelled | GenerationEnd::Taken => SpanStatus::Refused,
            GenerationEnd::WorkerLost
            | GenerationEnd::TaskFailed
            | GenerationEnd::Overdue
            | GenerationEnd::EngineDown => SpanStatus::Error,
        };
        self.with(|open| {
            for mut span in
                [open.first_chunk.take(), open.terminal_event.take()].into_iter().flatten()
            {
                span.set_outcome(end.label(), status);
            }
            let mut message = std::mem::take(&mut open.message);
            message.set_outcome(end.label(), status);
        });
    }

    fn with(&self, change: impl FnOnce(&mut Open)) {
        if let Some(open) = &self.0 {
            change(&mut open.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}
