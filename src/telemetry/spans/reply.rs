//! The spans of one message from its arrival to the last event of its reply.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Span, Went};
use crate::telemetry::generations::GenerationEnd;

/// Under the message's: one until the first chunk comes, one from there to the terminal event. Shared by
/// whoever hears the events and whoever knows the end.
#[derive(Debug, Clone, Default)]
pub struct ReplySpans(Option<Arc<Mutex<Open>>>);

#[derive(Debug)]
struct Open {
    message: Span,
    first_chunk: Option<Span>,
    terminal_event: Option<Span>,
}

impl ReplySpans {
    /// The upstream has the message.
    pub fn begin(message: Span, task_id: &str) -> Self {
        if !message.is_on() {
            return Self(None);
        }
        let mut message = message;
        message.set("tidegate.task_id", task_id.to_owned());
        let first_chunk = Some(Span::under(&message, "first chunk"));
        Self(Some(Arc::new(Mutex::new(Open { message, first_chunk, terminal_event: None }))))
    }

    /// A part of its content has come.
    pub fn chunk(&self) {
        self.with(|open| {
            if let Some(first_chunk) = open.first_chunk.take() {
                first_chunk.end();
                open.terminal_event = Some(Span::under(&open.message, "terminal event"));
            }
        });
    }

    /// It is over.
    pub fn ended(&self, end: GenerationEnd) {
        let went = match end {
            GenerationEnd::Completed => Went::Well,
            GenerationEnd::Cancelled | GenerationEnd::Taken => Went::Refused,
            GenerationEnd::WorkerLost
            | GenerationEnd::TaskFailed
            | GenerationEnd::Overdue
            | GenerationEnd::EngineDown => Went::Wrong,
        };
        self.with(|open| {
            for mut span in
                [open.first_chunk.take(), open.terminal_event.take()].into_iter().flatten()
            {
                span.outcome(end.label(), went);
            }
            let mut message = std::mem::take(&mut open.message);
            message.outcome(end.label(), went);
        });
    }

    fn with(&self, change: impl FnOnce(&mut Open)) {
        if let Some(open) = &self.0 {
            change(&mut open.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}
